//! Quantized operands.

use mantissa_formats::RandomBits;

use crate::granularity::ScaleLayout;
use crate::line;
use crate::numerics::Numerics;
use crate::operand::Operand;
use crate::panel::{Order, Scaling, fold_in_place, quantize_into, quantize_panel};
use crate::product::OperandReport;

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
    /// Elements of the operand that were NaN or infinite, or that overflowed to it.
    pub non_finite: u64,
    /// Groups whose amax was zero or not finite, which have scale 1 for it, or too small for a
    /// two-level scale.
    pub degenerate_groups: u64,
}

impl Quantized {
    /// The elements times their scales, row-major `[batch, outer, depth]`.
    pub fn dequantize(&self) -> Vec<f32> {
        let mut values = self.values.clone();
        if values.is_empty() {
            return values;
        }
        if self.layout.shared {
            let all = values.len();
            line::multiply(&mut values, &self.scales, all);
            return values;
        }
        for (row, values) in values.chunks_mut(self.depth).enumerate() {
            let first = self.layout.index(row / self.outer, row % self.outer, 0);
            let scales = &self.scales[first..first + self.layout.depth_groups];
            line::multiply(values, scales, self.layout.depth_group);
        }
        values
    }

    /// The scale of element `[matrix, outer, depth]`.
    pub fn scale(&self, matrix: usize, outer: usize, depth: usize) -> f32 {
        self.scales[self.layout.index(matrix, outer, depth)]
    }
}

/// Quantizes an operand: each group is divided by its scale (a true division) and rounded to the
/// format. The scale of a group is what [`ScaleKind`](crate::ScaleKind) makes of its amax; a group
/// whose amax is zero or not finite has scale 1 and is counted.
///
/// The random bits of an element are those of its index in `[batch, outer, depth]`, whatever the
/// strides.
///
/// # Panics
/// If the operand reaches outside its data.
pub fn quantize(operand: &Operand, numerics: &Numerics, random: RandomBits) -> Quantized {
    let panel = quantize_panel(operand, numerics, random, Order::OuterMajor, false);
    Quantized {
        values: panel.values,
        scales: panel.scales,
        layout: panel.layout,
        batch: operand.batch(),
        outer: operand.outer,
        depth: operand.depth,
        non_finite: panel.non_finite,
        degenerate_groups: panel.degenerate_groups,
    }
}

/// Quantizes and scales back: what a product sees of an operand, row-major `[batch, outer, depth]`.
/// Equal to [`quantize`] and [`Quantized::dequantize`], in one pass.
///
/// # Panics
/// If the operand reaches outside its data.
pub fn fake_quantize(operand: &Operand, numerics: &Numerics, random: RandomBits) -> Vec<f32> {
    quantize_panel(operand, numerics, random, Order::OuterMajor, true).values
}

/// [`fake_quantize`] into memory of the caller's. Returns what quantization met.
///
/// # Panics
/// If the operand reaches outside its data, or `out` is not as long as it has elements.
pub fn fake_quantize_into(
    operand: &Operand,
    numerics: &Numerics,
    random: RandomBits,
    out: &mut [f32],
) -> OperandReport {
    quantize_into(operand, numerics, random, Order::OuterMajor, true, out).report()
}

/// [`fake_quantize`] of a matrix `[outer, depth]`, contiguous and row-major, where it lies: half the memory traffic of
/// [`fake_quantize_into`]. Returns what quantization met.
///
/// ```
/// use mantissa_formats::RandomBits;
/// use mantissa_quant::{Operand, fake_quantize, fake_quantize_in_place};
///
/// let mut values = [1.0, -0.3, 0.01, 2.5, 0.0, 1.9];
/// let e4m3 = "e4m3/channel".parse()?;
/// let copy = fake_quantize(&Operand::matrix(&values, 2, 3)?, &e4m3, RandomBits::NONE);
/// let report = fake_quantize_in_place(&mut values, [2, 3], &e4m3, RandomBits::NONE);
/// assert_eq!(values, copy[..]);
/// assert_eq!(report.non_finite, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
/// If `values` are not `outer * depth` elements.
pub fn fake_quantize_in_place(
    values: &mut [f32],
    [outer, depth]: [usize; 2],
    numerics: &Numerics,
    random: RandomBits,
) -> OperandReport {
    fold_in_place(values, [outer, depth], numerics, random).report()
}

impl Scaling {
    fn report(&self) -> OperandReport {
        OperandReport {
            non_finite: self.non_finite,
            degenerate_groups: self.degenerate_groups,
            amax: None,
        }
    }
}
