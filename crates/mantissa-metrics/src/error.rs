//! What a numerics does to the elements of one operand.

use mantissa_formats::RandomBits;
use mantissa_quant::{Numerics, Operand};
use serde::{Deserialize, Serialize};

/// TODO
#[derive(Copy, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuantizationError {
    /// Finite elements compared.
    pub count: u64,
    /// Infinities and NaNs of the original, excluded from everything else but counted in the denominator of the shares.
    pub non_finite: u64,
    /// Signal to quantization-noise ratio in decibels, `10 log10(sum x^2 / sum (q-x)^2)`; undefined where there is no
    /// noise (exact, or no elements) and where an element overflowed to infinity or NaN.
    pub sqnr_db: Option<f64>,
    /// Mean of x².
    pub signal: f64,
    /// Mean squared error, the mean of (q−x)²; infinite if an element overflowed to infinity or NaN.
    #[serde(with = "crate::serial::unbounded")]
    pub mse: f64,
    /// Signed mean error, the mean of q−x, over the elements that did not overflow to infinity or NaN.
    pub bias: f64,
    /// Cosine of the angle between original and quantized; undefined if either is all zero or an element overflowed.
    pub cosine: Option<f64>,
    /// Share of all elements that were not zero and became zero.
    pub underflow: f64,
    /// Share of all elements whose x/scale rounds past the format's largest finite value.
    pub saturation: f64,
}

impl QuantizationError {
    /// Compares originals with their quantized values; `saturated` is the number of elements clipped.
    pub fn from_pairs(original: &[f32], quantized: &[f32], saturated: u64) -> Self {
        let _ = (original, quantized, saturated);
        todo!()
    }

    /// `bias / sqrt(signal)`: the bias in units of the operand's root mean square; 0 if both are zero.
    pub fn relative_bias(&self) -> f64 {
        todo!()
    }
}

/// Quantizes the operand and compares.
pub fn quantization_error(operand: &Operand, numerics: &Numerics, random: RandomBits) -> QuantizationError {
    let _ = (operand, numerics, random);
    todo!()
}

/// Cosine of the angle between two vectors, in f64; `None` if either is zero, not finite, or the lengths differ.
pub fn cosine(a: &[f32], b: &[f32]) -> Option<f64> {
    let _ = (a, b);
    todo!()
}
