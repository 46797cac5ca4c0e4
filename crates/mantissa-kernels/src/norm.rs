//! Layer normalization.

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
    let _ = (x, gamma, beta, epsilon, out, moments);
    todo!()
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
    let _ = (x, moments, gamma, grad, grad_gamma, grad_beta);
    todo!()
}
