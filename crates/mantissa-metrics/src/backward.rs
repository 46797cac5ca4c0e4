//! What the numerics of two operands do to their product.

use mantissa_formats::RandomBits;
use mantissa_quant::{Numerics, Operand};
use serde::{Deserialize, Serialize};

use crate::Interval;

/// Distribution of the element-wise backward error of a product.
#[derive(Copy, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackwardError {
    /// Elements of the product that were compared.
    pub count: u64,
    /// Elements left out: a zero denominator, or an exact product that is not finite.
    pub excluded: u64,
    /// Median.
    #[serde(with = "crate::serial::unbounded")]
    pub median: f64,
    /// 95 % confidence interval of the median; `None` if too few elements.
    pub median_interval: Option<Interval>,
    /// 95th percentile.
    #[serde(with = "crate::serial::unbounded")]
    pub p95: f64,
    /// 99th percentile.
    #[serde(with = "crate::serial::unbounded")]
    pub p99: f64,
    /// Mean.
    #[serde(with = "crate::serial::unbounded")]
    pub mean: f64,
}

impl BackwardError {
    /// Summary of element-wise errors, of which `independent` count as independent draws (for a product of an M-row
    /// and an N-row operand: the smaller of M and N). `None` without errors.
    pub fn from_errors(errors: Vec<f64>, independent: usize, excluded: u64) -> Option<Self> {
        let _ = (errors, independent, excluded);
        todo!()
    }
}

/// The exact product of two operands, computed once and compared with many numerics.
pub struct ExactProduct<'a> {
    lhs: Operand<'a>,
    rhs: Operand<'a>,
    product: Vec<f64>,
    magnitude: Vec<f64>,
}

impl<'a> ExactProduct<'a> {
    /// Multiplies in f64.
    pub fn new(lhs: &Operand<'a>, rhs: &Operand<'a>) -> Self {
        let _ = (lhs, rhs);
        todo!()
    }

    /// Element-wise backward errors of another result for the same product, `[batch, m, n]` row-major; elements without a denominator left out.
    pub fn errors_of(&self, result: &[f32]) -> Vec<f64> {
        let _ = (result, &self.lhs, &self.rhs, &self.product, &self.magnitude);
        todo!()
    }

    /// Backward error of the product in these numerics; `None` if no element has a denominator.
    pub fn backward_error(
        &self,
        lhs_numerics: &Numerics,
        lhs_random: RandomBits,
        rhs_numerics: &Numerics,
        rhs_random: RandomBits,
    ) -> Option<BackwardError> {
        let _ = (lhs_numerics, lhs_random, rhs_numerics, rhs_random);
        todo!()
    }
}

/// Backward error of one product; see [`ExactProduct`] for several numerics of the same operands. `None` if no element has a denominator.
pub fn backward_error(
    lhs: &Operand,
    lhs_numerics: &Numerics,
    lhs_random: RandomBits,
    rhs: &Operand,
    rhs_numerics: &Numerics,
    rhs_random: RandomBits,
) -> Option<BackwardError> {
    ExactProduct::new(lhs, rhs).backward_error(lhs_numerics, lhs_random, rhs_numerics, rhs_random)
}
