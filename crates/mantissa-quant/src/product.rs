//! Products of quantized operands.

use rayon::prelude::*;

use crate::factor::Factor;
use crate::gemm::{Job, Kernel, Reading, Side, multiply};
use crate::scaled::Scaled;

/// What quantization met in one operand.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct OperandReport {
    /// Elements that were NaN or infinite, or that overflowed to it; not counted for an operand in fp32.
    pub non_finite: u64,
    /// Groups whose amax did not determine their scale.
    pub degenerate_groups: u64,
    /// The largest magnitude of an operand with one scale, where a product or an encoding read it.
    pub amax: Option<f32>,
}

/// What quantization met in the operands of a product.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct ProductReport {
    /// The left operand.
    pub lhs: OperandReport,
    /// The right operand.
    pub rhs: OperandReport,
}

/// The deepest sum of products of two 8-bit codes that is exact in an i32, in whole cells.
const EXACT_DEPTH: usize = (1 << 31) / (128 * 128) - 4;
/// Elements of the result that one task scales.
const TASK_ELEMENTS: usize = 1 << 14;

/// `out[b, m, n] = sum over k of lhs[b, m, k] * rhs[b, n, k]`, both operands quantized first; `out` is
/// row-major `[batch, lhs.outer, rhs.outer]` and overwritten. A batch of one matrix is paired with
/// every matrix of the other operand.
///
/// - Floating formats: sums are in f32, each made of fused multiply-adds along the depth in blocks of
///   256 that are added in order.
/// - Scales of tensors and channels are multiplied into the result once, at the end. Scales of blocks
///   and tiles are multiplied into the elements before the product: exact for powers of two, one f32
///   rounding an element otherwise. The same holds for formats as wide in range as bf16, whose
///   products before scaling could overflow.
/// - Two integer operands with scales of tensors or channels: the sums are exact integers, rounded
///   once to f32 and then multiplied by the scales.
/// - A NaN, and an infinity that does not saturate, makes every element that depends on it non-finite.
/// - Two operands in fp32: a plain f32 product.
/// - A `bias` of one number for each column is added to every row at the end, with a rounding of its own.
/// - [`Encoded`](crate::Encoded) factors give what their values would, bit for bit.
///
/// The result depends neither on the number of threads nor on the machine's vector instructions.
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
    let codes = lhs.has_codes() && rhs.has_codes();
    let kernel = Kernel::best(codes);
    multiply_on(kernel, lhs, rhs, bias, out)
}

/// [`product`] on a certain kernel; one of codes only if both factors have them.
pub(crate) fn multiply_on(
    kernel: &Kernel,
    lhs: Factor,
    rhs: Factor,
    bias: Option<&[f32]>,
    out: &mut [f32],
) -> ProductReport {
    let left = Scaled::new(&lhs);
    let right = Scaled::new(&rhs);
    let reading = |offset: bool| match kernel.codes {
        true => Reading::Codes { offset },
        false => Reading::Floats,
    };
    let left_side = left.side(reading(kernel.offset));
    let right_side = right.side(reading(false));
    let depth = lhs.depth();
    // The product of two scales can leave the range of f32 where the scaled result does not.
    let extreme = extreme(left.pending(), right.pending());
    let deep = kernel.codes && depth > EXACT_DEPTH;
    let later = extreme || deep;
    let job = Job {
        kernel,
        left: &left_side,
        right: &right_side,
        row_scales: if later { &[1.0] } else { left.pending() },
        column_scales: if later { &[1.0] } else { right.pending() },
        bias: bias.filter(|_| !later),
        depth: 0..depth,
        raw: false,
    };
    if deep {
        multiply_deep(&job, out);
    } else {
        multiply(&job, out);
    }
    if later {
        scale_exactly(left.pending(), right.pending(), &job, bias, out);
    }
    poison(&left_side, &right_side, out);
    ProductReport {
        lhs: left.report(left_side),
        rhs: right.report(right_side),
    }
}

/// Whether a product of a left and a right scale may be subnormal or infinite.
fn extreme(left: &[f32], right: &[f32]) -> bool {
    let range = |scales: &[f32]| {
        let ends = [f32::INFINITY, 0.0];
        scales.iter().fold(ends, |[least, most], &scale| {
            [least.min(scale), most.max(scale)]
        })
    };
    let ([least, most], [other_least, other_most]) = (range(left), range(right));
    let empty = left.is_empty() || right.is_empty();
    let normal = (least * other_least).is_normal() && (most * other_most).is_normal();
    !(empty || normal)
}

/// Sums of more integer products than an i32 holds: exact sums of pieces of the depth, added in i64.
fn multiply_deep(job: &Job, out: &mut [f32]) {
    let mut sums = vec![0i64; out.len()];
    for start in (0..job.depth.end).step_by(EXACT_DEPTH) {
        let piece = Job {
            depth: start..job.depth.end.min(start + EXACT_DEPTH),
            raw: true,
            ..job.clone()
        };
        multiply(&piece, out);
        for (sum, bits) in sums.iter_mut().zip(&*out) {
            *sum += i64::from(bits.to_bits() as i32);
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = sum as f32;
    }
}

/// Multiplies the result by its scales, whose product is taken in f64 where f32 cannot hold it, and
/// adds the bias.
fn scale_exactly(left: &[f32], right: &[f32], job: &Job, bias: Option<&[f32]>, out: &mut [f32]) {
    let (rows, columns) = (job.left.outer, job.right.outer);
    if out.is_empty() || job.depth.is_empty() {
        return;
    }
    let lines = (TASK_ELEMENTS / columns).max(1);
    let tasks = out.par_chunks_mut(lines * columns).enumerate();
    tasks.for_each(|(task, out)| {
        for (row, out) in (task * lines..).zip(out.chunks_mut(columns)) {
            let (matrix, row) = (row / rows, row % rows);
            let at = |scales: &[f32], batch: usize, len: usize, index: usize| match scales {
                [scale] => *scale,
                _ if batch == 1 => scales[index],
                _ => scales[matrix * len + index],
            };
            let left = at(left, job.left.batch, rows, row);
            for (column, x) in out.iter_mut().enumerate() {
                let right = at(right, job.right.batch, columns, column);
                *x = match left * right {
                    scale if scale.is_normal() => *x * scale,
                    _ => (f64::from(*x) * (f64::from(left) * f64::from(right))) as f32,
                };
                if let Some(bias) = bias {
                    *x += bias[column];
                }
            }
        }
    });
}

/// Makes NaN what depends on a NaN that codes could not hold.
fn poison(left: &Side, right: &Side, out: &mut [f32]) {
    let (rows, columns) = (left.outer, right.outer);
    let of = |side: &Side| std::mem::take(&mut *side.poisoned.lock().expect("no thread panicked"));
    let (lefts, rights) = (of(left), of(right));
    if lefts.is_empty() && rights.is_empty() {
        return;
    }
    for (matrix, out) in out.chunks_mut(rows * columns).enumerate() {
        let here = |side: &Side, at: usize| side.batch == 1 || at == matrix;
        for &[_, row] in lefts.iter().filter(|at| here(left, at[0])) {
            out[row * columns..][..columns].fill(f32::NAN);
        }
        for &[_, column] in rights.iter().filter(|at| here(right, at[0])) {
            out.iter_mut()
                .skip(column)
                .step_by(columns)
                .for_each(|x| *x = f32::NAN);
        }
    }
}
