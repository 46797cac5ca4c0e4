//! Layer normalization.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::rows::{count_rows, rows_per_piece, rows_per_sum, sum_over_blocks};
use crate::scratch::with_scratch;
use crate::vector::{dispatch, sum, sum_pairs};

/// What the backward of a row's normalization needs to know.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowMoments {
    /// The mean of the row.
    pub mean: f32,
    /// One over the square root of its population variance plus epsilon.
    pub inverse_deviation: f32,
}

/// Layer normalization (Ba, Kiros and Hinton 2016, arXiv 1607.06450) of rows of `gamma.len()`, with the population variance:
/// `(x - mean) / √(variance + epsilon) · gamma + beta`.
///
/// # Panics
/// If the lengths disagree.
pub fn layer_norm(
    x: &[f32],
    gamma: &[f32],
    beta: Option<&[f32]>,
    epsilon: f32,
    out: &mut [f32],
    moments: &mut [RowMoments],
) {
    let width = gamma.len();
    let rows = count_rows(x.len(), width);
    assert_eq!(x.len(), out.len(), "input and output differ in length");
    assert_eq!(rows, moments.len(), "moments are one for each row");
    if let Some(beta) = beta {
        assert_eq!(width, beta.len(), "gamma and beta differ in length");
    }
    let block = rows_per_piece(width);
    let piece = block * width.max(1);
    out.par_chunks_mut(piece)
        .zip(x.par_chunks(piece))
        .zip(moments.par_chunks_mut(block))
        .for_each(|((out, x), moments)| {
            dispatch(Forward {
                x,
                gamma,
                beta,
                epsilon,
                out,
                moments,
            })
        });
}

/// Turns `grad`, the gradient of [`layer_norm`]'s output, into that of `x`, in place, and writes the gradients of gamma and beta.
///
/// # Panics
/// If the lengths disagree.
pub fn layer_norm_backward(
    x: &[f32],
    moments: &[RowMoments],
    gamma: &[f32],
    grad: &mut [f32],
    grad_gamma: &mut [f32],
    grad_beta: Option<&mut [f32]>,
) {
    let width = gamma.len();
    let rows = count_rows(x.len(), width);
    assert_eq!(x.len(), grad.len(), "input and gradient differ in length");
    assert_eq!(rows, moments.len(), "moments are one for each row");
    assert_eq!(
        width,
        grad_gamma.len(),
        "gamma and its gradient differ in length"
    );
    if let Some(grad_beta) = &grad_beta {
        assert_eq!(
            width,
            grad_beta.len(),
            "gamma and the gradient of beta differ in length"
        );
    }
    let block = rows_per_sum(rows, width);
    let piece = block * width.max(1);
    with_scratch(2 * width, |sums| {
        let blocks = grad
            .par_chunks_mut(piece)
            .zip(x.par_chunks(piece))
            .zip(moments.par_chunks(block));
        sum_over_blocks(blocks, sums, |_, ((grad, x), moments), sums| {
            let (grad_gamma, grad_beta) = sums.split_at_mut(width);
            dispatch(Backward {
                x,
                moments,
                gamma,
                grad,
                grad_gamma,
                grad_beta,
            });
        });
        grad_gamma.copy_from_slice(&sums[..width]);
        if let Some(grad_beta) = grad_beta {
            grad_beta.copy_from_slice(&sums[width..]);
        }
    });
}

/// Rows that go through each stage together, so that the end of one row's sum does not keep the next row waiting.
const GROUP: usize = 4;

struct Forward<'a> {
    x: &'a [f32],
    gamma: &'a [f32],
    beta: Option<&'a [f32]>,
    epsilon: f32,
    out: &'a mut [f32],
    moments: &'a mut [RowMoments],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.gamma.len();
        let groups = self
            .x
            .chunks(GROUP * width)
            .zip(self.moments.chunks_mut(GROUP));
        for ((x, moments), out) in groups.zip(self.out.chunks_mut(GROUP * width)) {
            let share = 1.0 / width as f32;
            for (x, moments) in x.chunks_exact(width).zip(&mut *moments) {
                moments.mean = share * sum(simd, x, |x| x);
            }
            for (x, moments) in x.chunks_exact(width).zip(&mut *moments) {
                // From the differences, for the difference of two large sums would be lost in rounding.
                let mean = moments.mean;
                let variance = share * sum(simd, x, |x| (x - mean) * (x - mean));
                moments.inverse_deviation = 1.0 / (variance + self.epsilon).sqrt();
            }
            let rows = x.chunks_exact(width).zip(out.chunks_exact_mut(width));
            for ((x, out), moments) in rows.zip(moments) {
                let RowMoments {
                    mean,
                    inverse_deviation,
                } = *moments;
                let row = out.iter_mut().zip(x).zip(self.gamma);
                match self.beta {
                    Some(beta) => {
                        for (((out, x), gamma), beta) in row.zip(beta) {
                            *out = (x - mean) * inverse_deviation * gamma + beta;
                        }
                    }
                    None => {
                        for ((out, x), gamma) in row {
                            *out = (x - mean) * inverse_deviation * gamma;
                        }
                    }
                }
            }
        }
    }
}

struct Backward<'a> {
    x: &'a [f32],
    moments: &'a [RowMoments],
    gamma: &'a [f32],
    grad: &'a mut [f32],
    grad_gamma: &'a mut [f32],
    grad_beta: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    /// With `n` the normalized row and `g = grad · gamma`, the gradient is `(g - mean(g) - n · mean(g · n)) / deviation`.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.gamma.len();
        let share = 1.0 / width as f32;
        let groups = self.x.chunks(GROUP * width).zip(self.moments.chunks(GROUP));
        for ((x, moments), grad) in groups.zip(self.grad.chunks_mut(GROUP * width)) {
            let mut means = [[0.0; 2]; GROUP];
            let rows = x.chunks_exact(width).zip(grad.chunks_exact_mut(width));
            for (((x, grad), moments), means) in rows.zip(moments).zip(&mut means) {
                let RowMoments {
                    mean,
                    inverse_deviation,
                } = *moments;
                let columns = self.grad_gamma.iter_mut().zip(self.grad_beta.iter_mut());
                for ((((by_gamma, by_beta), x), grad), gamma) in
                    columns.zip(x).zip(grad.iter_mut()).zip(self.gamma)
                {
                    *by_gamma += *grad * ((x - mean) * inverse_deviation);
                    *by_beta += *grad;
                    *grad *= gamma;
                }
                *means = [
                    share * sum(simd, grad, |g| g),
                    share * inverse_deviation * sum_pairs(simd, grad, x, |g, x| g * (x - mean)),
                ];
            }
            let rows = x.chunks_exact(width).zip(grad.chunks_exact_mut(width));
            for (((x, grad), moments), means) in rows.zip(moments).zip(means) {
                let RowMoments {
                    mean,
                    inverse_deviation,
                } = *moments;
                let [mean_scaled, mean_product] = means;
                for (grad, x) in grad.iter_mut().zip(x) {
                    let normal = (x - mean) * inverse_deviation;
                    *grad = inverse_deviation * (*grad - mean_scaled - normal * mean_product);
                }
            }
        }
    }
}
