//! Operands quantized once and kept as bytes.

use mantissa_formats::{Overflow, RandomBits, Rounder, Rounding};

use crate::factor::Factor;
use crate::granularity::Granularity;
use crate::numerics::Numerics;
use crate::operand::Operand;
use crate::panel::{Order, quantize_panel};
use crate::product::OperandReport;

/// An operand quantized once: a byte an element and one scale. A training step encodes a tensor for
/// its forward product, keeps a quarter of the memory, and multiplies by the same codes in the
/// backward ones.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The codes, row-major `[batch, outer, depth]`; those of integers in two's complement.
    pub(crate) codes: Vec<u8>,
    pub(crate) numerics: Numerics,
    pub(crate) scale: f32,
    pub(crate) batch: usize,
    pub(crate) outer: usize,
    pub(crate) depth: usize,
    pub(crate) report: OperandReport,
}

/// Quantizes an operand to codes, as [`product`](crate::product()) would on its way: a product of these
/// codes equals one of the values bit for bit.
///
/// `None` where a byte and one scale do not say all: scales of channels, blocks and tiles, formats
/// of more than 8 bits, and a NaN in a format without one.
///
/// The random bits of an element are those of its index in `[batch, outer, depth]`.
///
/// # Panics
/// If the operand reaches outside its data.
pub fn encode(operand: &Operand, numerics: &Numerics, random: RandomBits) -> Option<Encoded> {
    let one_scale = matches!(
        numerics.granularity,
        Granularity::Unscaled | Granularity::Tensor
    );
    if !one_scale || numerics.format.bits() > 8 {
        return None;
    }
    let panel = quantize_panel(operand, numerics, random, Order::OuterMajor, false);
    if !numerics.format.has_nan() && panel.non_finite > 0 && panel.values.iter().any(|x| x.is_nan())
    {
        return None;
    }
    let mut codes = vec![0; panel.values.len()];
    Rounder::new(numerics.format, Rounding::Nearest, Overflow::Special).encode_u8(
        RandomBits::NONE,
        0,
        &panel.values,
        &mut codes,
    );
    Some(Encoded {
        codes,
        numerics: *numerics,
        scale: panel.scales[0],
        batch: operand.batch(),
        outer: operand.outer,
        depth: operand.depth,
        report: OperandReport {
            non_finite: panel.non_finite,
            degenerate_groups: panel.degenerate_groups,
        },
    })
}

impl Encoded {
    /// The matrices as a product's operand.
    pub fn factor(&self) -> Factor<'_> {
        Factor::encoded(self, false)
    }

    /// The same matrices with outer and depth exchanged: what was contracted is now the other axis.
    pub fn transposed(&self) -> Factor<'_> {
        Factor::encoded(self, true)
    }

    /// The codes, right-aligned, row-major `[batch, outer, depth]`.
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// What the values of the codes are multiplied by.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// `[batch, outer, depth]`.
    pub fn shape(&self) -> [usize; 3] {
        [self.batch, self.outer, self.depth]
    }

    /// How the elements are represented.
    pub fn numerics(&self) -> &Numerics {
        &self.numerics
    }

    /// What quantization met.
    pub fn report(&self) -> OperandReport {
        self.report
    }
}
