//! Products of quantized operands.

use mantissa_formats::{Overflow, RandomBits, Rounder, Rounding};
use rayon::prelude::*;

use crate::encoded::Encoded;
use crate::factor::{Factor, Source};
use crate::granularity::Granularity;
use crate::integer::{Codes, multiply_exactly};
use crate::line;
use crate::matmul::{Matrices, multiply_batch};
use crate::numerics::Numerics;
use crate::operand::Operand;
use crate::panel::{Order, Panel, quantize_panel};

/// What quantization met in one operand.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct OperandReport {
    /// Elements that were NaN or infinite, or that overflowed to it; not counted for an operand in fp32.
    pub non_finite: u64,
    /// Groups whose amax did not determine their scale.
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

/// Values above this may leave the range of f32 when two of them are multiplied and summed, so such
/// formats are scaled back before the product and not after it.
const LARGEST_UNSCALED: f32 = (1u64 << 32) as f32;
/// Elements of the result that one task scales.
const TASK_ELEMENTS: usize = 1 << 14;

/// `out[b, m, n] = sum over k of lhs[b, m, k] * rhs[b, n, k]`, both operands quantized first; `out` is
/// row-major `[batch, lhs.outer, rhs.outer]` and overwritten. A batch of one matrix is paired with
/// every matrix of the other operand.
///
/// - Floating formats: products are exact and sums are in f32.
/// - Scales of tensors and channels are multiplied into the result once, at the end. Scales of blocks
///   and tiles are multiplied into the elements before the product: exact for powers of two, one f32
///   rounding an element otherwise. The same holds for formats as wide in range as bf16, whose
///   products before scaling could overflow.
/// - Two integer operands with scales of tensors or channels: the sums are exact integers, rounded
///   once to f32 and then multiplied by the scales.
/// - A NaN, and an infinity that does not saturate, makes every element that depends on it non-finite.
/// - Two operands in fp32: a plain f32 product.
///
/// - A `bias` of one number for each column is added to every row at the end, with a rounding of its own.
/// - [`Encoded`] factors give what their values would, bit for bit.
///
/// The result does not depend on the number of threads.
///
/// # Panics
/// If an operand reaches outside its data, the operands differ in depth, their batches differ and
/// neither is one, or `out` or `bias` has another length than the result or its rows.
pub fn product(lhs: Factor, rhs: Factor, bias: Option<&[f32]>, out: &mut [f32]) -> ProductReport {
    assert_eq!(lhs.depth(), rhs.depth(), "the operands differ in depth");
    let batch = match (lhs.batch(), rhs.batch()) {
        (1, batch) | (batch, 1) => batch,
        (left, right) => {
            assert_eq!(left, right, "the operands differ in batch");
            left
        }
    };
    let columns = rhs.outer();
    assert_eq!(
        out.len(),
        batch * lhs.outer() * columns,
        "the result has another length"
    );
    assert!(
        bias.is_none_or(|bias| bias.len() == columns),
        "the bias has another length than the result has columns"
    );
    let (mut left_offsets, mut right_offsets) = (Vec::new(), Vec::new());
    let left = Ready::new(&lhs, &mut left_offsets);
    let right = Ready::new(&rhs, &mut right_offsets);
    match (left.codes(), right.codes()) {
        (Some(left), Some(right)) => multiply_exactly(&left, &right, lhs.depth(), out),
        _ => multiply_batch(&left.matrices(), &right.matrices(), out),
    }
    apply_scales(&left, &right, out);
    if let Some(bias) = bias.filter(|bias| !bias.is_empty()) {
        for row in out.chunks_mut(columns) {
            row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
        }
    }
    ProductReport {
        lhs: left.report(),
        rhs: right.report(),
    }
}

/// An operand ready to be multiplied.
struct Ready<'a> {
    operand: Operand<'a>,
    numerics: Numerics,
    /// The quantized elements; none in fp32, where the operand itself is read.
    panel: Option<Panel>,
    /// Scales that the result is still to be multiplied by.
    pending: Pending,
}

/// Which scales are not in the panel's elements yet.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Pending {
    None,
    Tensor,
    Channel,
}

impl<'a> Ready<'a> {
    fn new(factor: &Factor<'a>, offsets: &'a mut Vec<usize>) -> Self {
        match factor.source {
            Source::Values {
                operand,
                numerics,
                random,
            } => Ready::values(operand, numerics, random),
            Source::Codes {
                encoded,
                transposed,
            } => {
                offsets.resize(encoded.batch, 0);
                Ready::codes_of(encoded, transposed, factor, offsets)
            }
        }
    }

    fn codes_of(
        encoded: &Encoded,
        transposed: bool,
        factor: &Factor<'a>,
        offsets: &'a [usize],
    ) -> Self {
        let numerics = encoded.numerics;
        let rounder = Rounder::new(numerics.format, Rounding::Nearest, Overflow::Special);
        let mut values = vec![0.0; encoded.codes.len()];
        rounder.decode_u8(&encoded.codes, &mut values);
        let pending = Ready::pending_of(&numerics);
        if pending == Pending::None && encoded.scale != 1.0 {
            values.iter_mut().for_each(|x| *x *= encoded.scale);
        }
        let panel = Panel {
            values,
            order: if transposed {
                Order::DepthMajor
            } else {
                Order::OuterMajor
            },
            scales: vec![encoded.scale],
            layout: numerics.granularity.layout(factor.outer(), factor.depth()),
            non_finite: encoded.report.non_finite,
            degenerate_groups: encoded.report.degenerate_groups,
        };
        let operand = Operand {
            data: &[],
            offsets,
            outer: factor.outer(),
            depth: factor.depth(),
            outer_stride: 0,
            depth_stride: 0,
        };
        Ready {
            operand,
            numerics,
            panel: Some(panel),
            pending,
        }
    }

    fn pending_of(numerics: &Numerics) -> Pending {
        match numerics.granularity {
            _ if numerics.format.max_finite() > LARGEST_UNSCALED => Pending::None,
            Granularity::Tensor => Pending::Tensor,
            Granularity::Channel => Pending::Channel,
            Granularity::Unscaled | Granularity::Block(_) | Granularity::Tile(..) => Pending::None,
        }
    }

    fn values(operand: Operand<'a>, numerics: Numerics, random: RandomBits) -> Self {
        if numerics.is_fp32() {
            return Ready {
                operand,
                numerics,
                panel: None,
                pending: Pending::None,
            };
        }
        let pending = Ready::pending_of(&numerics);
        let order = match numerics.rounding {
            Rounding::Stochastic => Order::OuterMajor,
            Rounding::Nearest | Rounding::TowardZero | Rounding::NearestAway => Order::of(&operand),
        };
        let fold = pending == Pending::None;
        let panel = quantize_panel(&operand, &numerics, random, order, fold);
        Ready {
            operand,
            numerics,
            panel: Some(panel),
            pending,
        }
    }

    fn matrices(&self) -> Matrices<'_> {
        let Operand { outer, depth, .. } = self.operand;
        match &self.panel {
            None => Matrices::of(&self.operand),
            Some(panel) => Matrices::contiguous(
                &panel.values,
                self.operand.batch(),
                [outer, depth],
                panel.order == Order::OuterMajor,
            ),
        }
    }

    /// The codes, if the elements are integers.
    fn codes(&self) -> Option<Codes<'_>> {
        let unscaled = self.numerics.granularity == Granularity::Unscaled;
        let integers =
            self.numerics.format.is_integer() && (self.pending != Pending::None || unscaled);
        let panel = self.panel.as_ref().filter(|_| integers)?;
        Some(Codes {
            panel,
            max: self.numerics.format.max_finite(),
            matrices: self.matrices(),
            outer: self.operand.outer,
        })
    }

    /// The scales that the result's rows (or columns) of a matrix are to be multiplied by: one for
    /// all, or one for each.
    fn pending_scales(&self, matrix: usize) -> &[f32] {
        let matrix = if self.operand.batch() == 1 { 0 } else { matrix };
        match (&self.panel, self.pending) {
            (Some(panel), Pending::Tensor) => &panel.scales,
            (Some(panel), Pending::Channel) => {
                &panel.scales[matrix * self.operand.outer..][..self.operand.outer]
            }
            _ => &[1.0],
        }
    }

    fn report(&self) -> OperandReport {
        self.panel
            .as_ref()
            .map_or(OperandReport::default(), |panel| OperandReport {
                non_finite: panel.non_finite,
                degenerate_groups: panel.degenerate_groups,
            })
    }
}

/// Multiplies the result by the scales that its operands still owe.
fn apply_scales(left: &Ready, right: &Ready, out: &mut [f32]) {
    let (rows, columns) = (left.operand.outer, right.operand.outer);
    if (left.pending, right.pending) == (Pending::None, Pending::None)
        || out.is_empty()
        || left.operand.depth == 0
    {
        return;
    }
    let ranges: Vec<[f32; 2]> = (0..right.operand.batch())
        .map(|matrix| range(right.pending_scales(matrix)))
        .collect();
    let scale_row = |row: usize, out: &mut [f32]| {
        let matrix = row / rows;
        let lefts = left.pending_scales(matrix);
        let scale = *lefts.get(row % rows).unwrap_or(&lefts[0]);
        let range = *ranges.get(matrix).unwrap_or(&ranges[0]);
        scale_row(out, scale, right.pending_scales(matrix), range);
    };
    let lines = (TASK_ELEMENTS / columns).max(1);
    let task = |(task, out): (usize, &mut [f32])| {
        for (row, out) in out.chunks_mut(columns).enumerate() {
            scale_row(task * lines + row, out);
        }
    };
    if out.len() <= 2 * TASK_ELEMENTS {
        out.chunks_mut(lines * columns).enumerate().for_each(task);
    } else {
        out.par_chunks_mut(lines * columns)
            .enumerate()
            .for_each(task);
    }
}

fn range(scales: &[f32]) -> [f32; 2] {
    let ends = [f32::INFINITY, 0.0];
    scales.iter().fold(ends, |[least, most], &scale| {
        [least.min(scale), most.max(scale)]
    })
}

/// Multiplies a row by `left` and by its columns' scales, or by the single one of `rights`, which lie
/// in a range.
fn scale_row(out: &mut [f32], left: f32, rights: &[f32], range: [f32; 2]) {
    match rights {
        // The product of two scales can leave the range of f32 where the scaled result does not.
        _ if !range.iter().all(|right| (left * right).is_normal()) => {
            for (column, x) in out.iter_mut().enumerate() {
                let right = *rights.get(column).unwrap_or(&rights[0]);
                *x = (f64::from(*x) * (f64::from(left) * f64::from(right))) as f32;
            }
        }
        [right] => {
            let all = out.len();
            line::multiply(out, &[left * right], all);
        }
        _ => {
            for (x, right) in out.iter_mut().zip(rights) {
                *x *= left * right;
            }
        }
    }
}
