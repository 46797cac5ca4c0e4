//! Quantized operands.

use mantissa_formats::RandomBits;

use crate::granularity::ScaleLayout;
use crate::numerics::Numerics;
use crate::operand::Operand;

/// An operand as elements on its format's grid and the scales that map them back:
/// `x ~ values * scale`.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// Elements on the grid of the format, before scaling, row-major `[batch, outer, depth]`. A NaN
    /// stays NaN, also in formats without one.
    pub values: Vec<f32>,
    /// Scales, laid out as `layout` says; a single 1 when unscaled.
    pub scales: Vec<f32>,
    /// Where the scale of an element lies.
    pub layout: ScaleLayout,
    /// Matrices in the batch.
    pub batch: usize,
    /// Length of the axis that is not contracted.
    pub outer: usize,
    /// Length of the contracted axis.
    pub depth: usize,
    /// Elements of the operand that were NaN or infinite.
    pub non_finite: u64,
    /// Groups whose amax was zero or not finite and that have scale 1 for it.
    pub degenerate_groups: u64,
}

impl Quantized {
    /// The elements times their scales, row-major `[batch, outer, depth]`.
    pub fn dequantize(&self) -> Vec<f32> {
        todo!()
    }

    /// The scale of element `[matrix, outer, depth]`.
    pub fn scale(&self, matrix: usize, outer: usize, depth: usize) -> f32 {
        self.scales[self.layout.index(matrix, outer, depth)]
    }
}

/// Quantizes an operand.
///
/// # Panics
/// If the operand reaches outside its data.
pub fn quantize(operand: &Operand, numerics: &Numerics, random: RandomBits) -> Quantized {
    let _ = (operand, numerics, random);
    todo!()
}

/// Quantizes and scales back: what a product sees of an operand, row-major `[batch, outer, depth]`.
///
/// # Panics
/// If the operand reaches outside its data.
pub fn fake_quantize(operand: &Operand, numerics: &Numerics, random: RandomBits) -> Vec<f32> {
    let _ = (operand, numerics, random);
    todo!()
}
