//! Scaled and masked softmax.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::math::exp;
use crate::rows::{count_rows, rows_per_piece};
use crate::vector::{dispatch, dot, largest, sum};

/// Which scores are masked, for rows of scores numbered by batch, head and query, the query fastest.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    /// Masked where not zero; the keys of one row lie next to each other.
    pub masked: &'a [u8],
    /// Heads of one batch.
    pub heads: usize,
    /// Queries of one head.
    pub queries: usize,
    /// Elements of `masked` from one batch, head and query to the next; 0 where all share the same.
    pub strides: [usize; 3],
    /// What masked scores become, after scaling: minus infinity, or Burn's large negative number.
    pub value: f32,
}

impl<'a> Mask<'a> {
    /// A `[batch, keys]` mask, shared by all heads and queries of a batch.
    pub fn of_keys(
        masked: &'a [u8],
        heads: usize,
        queries: usize,
        keys: usize,
        value: f32,
    ) -> Self {
        Self {
            masked,
            heads,
            queries,
            strides: [keys, 0, 0],
            value,
        }
    }

    /// A `[queries, keys]` mask, shared by all batches and heads.
    pub fn of_pairs(
        masked: &'a [u8],
        heads: usize,
        queries: usize,
        keys: usize,
        value: f32,
    ) -> Self {
        Self {
            masked,
            heads,
            queries,
            strides: [0, 0, keys],
            value,
        }
    }

    /// A `[batch, queries, keys]` mask, shared by all heads of a batch.
    pub fn of_batches(
        masked: &'a [u8],
        heads: usize,
        queries: usize,
        keys: usize,
        value: f32,
    ) -> Self {
        Self {
            masked,
            heads,
            queries,
            strides: [queries * keys, 0, keys],
            value,
        }
    }

    /// A `[batch, heads, queries, keys]` mask.
    pub fn of_scores(
        masked: &'a [u8],
        heads: usize,
        queries: usize,
        keys: usize,
        value: f32,
    ) -> Self {
        Self {
            masked,
            heads,
            queries,
            strides: [heads * queries * keys, queries * keys, keys],
            value,
        }
    }

    /// The mask of the `columns` scores of one row.
    #[inline]
    pub(crate) fn row(&self, row: usize, columns: usize) -> &'a [u8] {
        let (head, query) = (row / self.queries, row % self.queries);
        let (batch, head) = (head / self.heads, head % self.heads);
        let start = batch * self.strides[0] + head * self.strides[1] + query * self.strides[2];
        &self.masked[start..start + columns]
    }
}

/// Replaces each row of `columns` scores by `softmax(scale · scores)`.
///
/// A masked score counts as the mask's value. So a row whose every score is masked becomes uniform if the value is finite, and
/// zeros if it is minus infinity. So does a row whose every score is minus infinity by itself; NaN in a row makes all of it NaN.
///
/// # Panics
/// If the scores are not whole rows, or the mask is smaller than they are.
pub fn softmax(scores: &mut [f32], columns: usize, scale: f32, mask: Option<Mask>) {
    count_rows(scores.len(), columns);
    let block = rows_per_piece(columns);
    scores
        .par_chunks_mut(block * columns.max(1))
        .enumerate()
        .for_each(|(index, scores)| {
            dispatch(SoftmaxRows {
                scores,
                columns,
                first: index * block,
                scale,
                mask,
                log_sum_exp: &mut [],
            });
        });
}

/// Turns the gradient of [`softmax`]'s probabilities into that of its scores, in place.
///
/// Masked scores get no gradient because their probability is zero; where every score of a row is masked with a finite value,
/// use [`masked_softmax_backward`].
///
/// # Panics
/// If the lengths differ or are not whole rows.
pub fn softmax_backward(probabilities: &[f32], grad: &mut [f32], columns: usize, scale: f32) {
    backward(probabilities, grad, columns, scale, None);
}

/// [`softmax_backward`] with no gradient at masked scores whatever their probability, as Burn's `mask_fill` has it.
///
/// # Panics
/// If the lengths differ or are not whole rows, or the mask is smaller than they are.
pub fn masked_softmax_backward(
    probabilities: &[f32],
    grad: &mut [f32],
    columns: usize,
    scale: f32,
    mask: Mask,
) {
    backward(probabilities, grad, columns, scale, Some(mask));
}

fn backward(
    probabilities: &[f32],
    grad: &mut [f32],
    columns: usize,
    scale: f32,
    mask: Option<Mask>,
) {
    assert_eq!(
        probabilities.len(),
        grad.len(),
        "probabilities and gradient differ in length"
    );
    count_rows(grad.len(), columns);
    let block = rows_per_piece(columns);
    let piece = block * columns.max(1);
    grad.par_chunks_mut(piece)
        .zip(probabilities.par_chunks(piece))
        .enumerate()
        .for_each(|(index, (grad, probabilities))| {
            dispatch(Backward {
                probabilities,
                grad,
                columns,
                first: index * block,
                scale,
                mask,
            });
        });
}

/// Rows that go through each stage together, so that the end of one row's sum does not keep the next row waiting.
const GROUP: usize = 8;

/// Softmax of some rows, the first of which has the number `first`.
pub(crate) struct SoftmaxRows<'a> {
    pub(crate) scores: &'a mut [f32],
    pub(crate) columns: usize,
    pub(crate) first: usize,
    pub(crate) scale: f32,
    pub(crate) mask: Option<Mask<'a>>,
    /// For each row, the logarithm of the sum of the exponentials of its scores, or infinity for a row of zeros; or empty.
    pub(crate) log_sum_exp: &'a mut [f32],
}

impl WithSimd for SoftmaxRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let columns = self.columns;
        for (group, rows) in self.scores.chunks_mut(GROUP * columns).enumerate() {
            let [mut shifts, mut sums] = [[0.0; GROUP]; 2];
            // What is still to be multiplied by.
            let scale = self.mask.map_or(self.scale, |_| 1.0);
            for (index, (row, shift)) in rows.chunks_exact_mut(columns).zip(&mut shifts).enumerate()
            {
                if let Some(mask) = self.mask {
                    let masked = mask.row(self.first + group * GROUP + index, columns);
                    fill_masked(row, self.scale, masked, mask.value);
                }
                let largest = largest(simd, row, |x| scale * x);
                // If all scores are minus infinity (or NaN), a difference of infinities would be NaN.
                *shift = if largest == f32::NEG_INFINITY {
                    0.0
                } else {
                    largest
                };
            }
            for (row, shift) in rows.chunks_exact_mut(columns).zip(&shifts) {
                for x in row {
                    *x = exp(scale * *x - shift);
                }
            }
            for (row, total) in rows.chunks_exact(columns).zip(&mut sums) {
                *total = sum(simd, row, |x| x);
            }
            for (row, sum) in rows.chunks_exact_mut(columns).zip(&sums) {
                let inverse = if *sum == 0.0 { 0.0 } else { 1.0 / sum };
                for x in row {
                    *x *= inverse;
                }
            }
            let outputs = self.log_sum_exp.iter_mut().skip(group * GROUP);
            for (log_sum_exp, (shift, sum)) in outputs.zip(shifts.iter().zip(&sums)) {
                *log_sum_exp = if *sum == 0.0 {
                    f32::INFINITY
                } else {
                    shift + sum.ln()
                };
            }
        }
    }
}

/// Scales the scores that are not masked, and replaces the others.
#[inline(always)]
pub(crate) fn fill_masked(row: &mut [f32], scale: f32, masked: &[u8], value: f32) {
    for (x, masked) in row.iter_mut().zip(masked) {
        *x = if *masked == 0 { *x * scale } else { value };
    }
}

struct Backward<'a> {
    probabilities: &'a [f32],
    grad: &'a mut [f32],
    columns: usize,
    first: usize,
    scale: f32,
    mask: Option<Mask<'a>>,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let rows = self.grad.chunks_exact_mut(self.columns);
        let rows = rows.zip(self.probabilities.chunks_exact(self.columns));
        for (index, (grad, probabilities)) in rows.enumerate() {
            let mean = dot(simd, grad, probabilities);
            for (grad, p) in grad.iter_mut().zip(probabilities) {
                *grad = self.scale * (p * (*grad - mean));
            }
            if let Some(mask) = self.mask {
                clear_masked(grad, mask.row(self.first + index, self.columns));
            }
        }
    }
}

/// Zeroes what is masked.
#[inline(always)]
pub(crate) fn clear_masked(row: &mut [f32], masked: &[u8]) {
    for (x, masked) in row.iter_mut().zip(masked) {
        *x = if *masked == 0 { *x } else { 0.0 };
    }
}
