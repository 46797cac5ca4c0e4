//! Products of quantized operands.

use mantissa_formats::RandomBits;

use crate::numerics::Numerics;
use crate::operand::Operand;

/// What quantization met in one operand.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct OperandReport {
    /// Elements that were NaN or infinite; not counted for an operand in fp32.
    pub non_finite: u64,
    /// Groups whose amax was zero or not finite and that have scale 1 for it.
    pub degenerate_groups: u64,
}

/// What quantization met in the operands of a product.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct ProductReport {
    /// The left operand.
    pub lhs: OperandReport,
    /// The right operand.
    pub rhs: OperandReport,
}

/// `out[b, m, n] = sum over k of lhs[b, m, k] * rhs[b, n, k]`, both operands quantized first.
#[allow(clippy::too_many_arguments)]
pub fn product(
    lhs: &Operand,
    lhs_numerics: &Numerics,
    lhs_random: RandomBits,
    rhs: &Operand,
    rhs_numerics: &Numerics,
    rhs_random: RandomBits,
    out: &mut [f32],
) -> ProductReport {
    let _ = (
        lhs,
        lhs_numerics,
        lhs_random,
        rhs,
        rhs_numerics,
        rhs_random,
        out,
    );
    todo!()
}
