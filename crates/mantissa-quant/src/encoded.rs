//! Operands quantized once and kept as bytes.

use mantissa_formats::{Overflow, RandomBits, Rounder, Rounding};
use rayon::prelude::*;

use crate::amax::Amax;
use crate::factor::Factor;
use crate::gemm::{Reading, Side};
use crate::granularity::Granularity;
use crate::numerics::Numerics;
use crate::operand::Operand;
use crate::panel::Order;
use crate::product::OperandReport;
use crate::scaled::Scaled;

/// Elements that one task encodes; operands with fewer than two tasks stay on one thread.
const TASK_ELEMENTS: usize = 1 << 15;

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
    encode_into(operand, numerics, Amax::Own, random, Vec::new())
}

/// [`encode`] scaled by `amax` as in [`Factor::with_amax`], and into memory that is used again, such as that of
/// [`Encoded::into_codes`]; what it holds is overwritten.
///
/// # Panics
/// If the operand reaches outside its data.
pub fn encode_into(
    operand: &Operand,
    numerics: &Numerics,
    amax: Amax<'_>,
    random: RandomBits,
    mut codes: Vec<u8>,
) -> Option<Encoded> {
    let one_scale = matches!(
        numerics.granularity,
        Granularity::Unscaled | Granularity::Tensor
    );
    if !one_scale || numerics.format.bits() > 8 {
        return None;
    }
    let factor = Factor::new(*operand, *numerics, random).with_amax(amax);
    let scaled = Scaled::new(&factor);
    let scale = scaled.scale()?;
    let mut side = scaled.side(Reading::Floats);
    side.order = Order::OuterMajor;
    codes.resize(operand.count(), 0);
    encode_all(&side, &mut codes);
    if !side.poisoned.get_mut().ok()?.is_empty() {
        return None;
    }
    let mut report = scaled.report(side);
    if numerics.overflow == Overflow::Special {
        report.non_finite = report.non_finite.max(non_finite(numerics, &codes));
    }
    Some(Encoded {
        codes,
        numerics: *numerics,
        scale,
        batch: operand.batch(),
        outer: operand.outer,
        depth: operand.depth,
        report,
    })
}

/// Writes the codes of all elements, on all threads if there are enough of them.
pub(crate) fn encode_all(side: &Side, codes: &mut [u8]) {
    if codes.is_empty() {
        return;
    }
    let parallel = codes.len() >= 2 * TASK_ELEMENTS;
    let rows = (TASK_ELEMENTS / side.depth).clamp(1, side.outer);
    for (matrix, codes) in codes.chunks_mut(side.outer * side.depth).enumerate() {
        let task = |(task, codes): (usize, &mut [u8])| side.encode(matrix, task * rows, codes);
        if parallel {
            codes
                .par_chunks_mut(rows * side.depth)
                .enumerate()
                .for_each(task);
        } else {
            codes
                .chunks_mut(rows * side.depth)
                .enumerate()
                .for_each(task);
        }
    }
}

/// How many codes are infinite or NaN.
fn non_finite(numerics: &Numerics, codes: &[u8]) -> u64 {
    if !(numerics.format.has_nan() || numerics.format.has_infinity()) {
        return 0;
    }
    let rounder = Rounder::new(numerics.format, Rounding::Nearest, Overflow::Special);
    let all: [u8; 256] = std::array::from_fn(|code| code as u8);
    let mut values = [0.0; 256];
    rounder.decode_u8(&all, &mut values);
    let special = values.map(|x| u64::from(!x.is_finite()));
    let count =
        |codes: &[u8]| -> u64 { codes.iter().map(|code| special[usize::from(*code)]).sum() };
    codes.par_chunks(TASK_ELEMENTS).map(count).sum()
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

    /// The memory of the codes, for [`encode_into`].
    pub fn into_codes(self) -> Vec<u8> {
        self.codes
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
