//! Layer normalization.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::rows::{count_rows, rows_per_piece, rows_per_sum, sum_over_blocks};
use crate::scratch::with_scratch;
use crate::vector::{LANES, dispatch, fold_lanes, sum};

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
    fn with_simd<S: Simd>(self, _: S) {
        let width = self.gamma.len();
        let rows = self.x.chunks_exact(width).zip(self.moments);
        for ((x, moments), out) in rows.zip(self.out.chunks_exact_mut(width)) {
            let mean = sum(x, |x| x) / width as f32;
            // From the differences, for the difference of two large sums would be lost in rounding.
            let variance = sum(x, |x| (x - mean) * (x - mean)) / width as f32;
            let inverse_deviation = 1.0 / (variance + self.epsilon).sqrt();
            *moments = RowMoments {
                mean,
                inverse_deviation,
            };
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
    fn with_simd<S: Simd>(self, _: S) {
        let width = self.gamma.len();
        let scale = 1.0 / width as f32;
        let rows = self.x.chunks_exact(width).zip(self.moments);
        for ((x, moments), grad) in rows.zip(self.grad.chunks_exact_mut(width)) {
            let RowMoments {
                mean,
                inverse_deviation,
            } = *moments;
            let mut sums = [[0.0; LANES]; 2];
            let mut lanes = |i: usize, len: usize| {
                let (x, grad, gamma) = (&x[i..][..len], &grad[i..][..len], &self.gamma[i..][..len]);
                let grad_gamma = &mut self.grad_gamma[i..][..len];
                let grad_beta = &mut self.grad_beta[i..][..len];
                for j in 0..len {
                    let normal = (x[j] - mean) * inverse_deviation;
                    let scaled = grad[j] * gamma[j];
                    sums[0][j] += scaled;
                    sums[1][j] += scaled * normal;
                    grad_gamma[j] += grad[j] * normal;
                    grad_beta[j] += grad[j];
                }
            };
            let whole = width / LANES * LANES;
            for i in (0..whole).step_by(LANES) {
                lanes(i, LANES);
            }
            lanes(whole, width - whole);
            let add = |a, b| a + b;
            let [mean_scaled, mean_product] = sums.map(|lanes| scale * fold_lanes(lanes, add));
            for ((grad, x), gamma) in grad.iter_mut().zip(x).zip(self.gamma) {
                let normal = (x - mean) * inverse_deviation;
                *grad = inverse_deviation * (*grad * gamma - mean_scaled - normal * mean_product);
            }
        }
    }
}
