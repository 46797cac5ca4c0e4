//! Cross-entropy from logits.

/// The mean over rows of the cross-entropy between softmax(logits) and the row's target, in nats. `log_sum_exp` receives a number
/// for each row that [`cross_entropy_backward`] needs.
///
/// Without rows it is NaN, as the mean of nothing.
///
/// # Panics
/// If the lengths disagree or a target is not in `0..classes`: outside data are the caller's to check.
pub fn cross_entropy(
    logits: &[f32],
    classes: usize,
    targets: &[i32],
    log_sum_exp: &mut [f32],
) -> f32 {
    let _ = (logits, classes, targets, log_sum_exp);
    todo!()
}

/// Writes the gradient of the logits, `(softmax(logits) - onehot(target)) · grad / rows`, for the gradient `grad` of the mean.
///
/// # Panics
/// As [`cross_entropy`].
pub fn cross_entropy_backward(
    logits: &[f32],
    classes: usize,
    targets: &[i32],
    log_sum_exp: &[f32],
    grad: f32,
    grad_logits: &mut [f32],
) {
    let _ = (logits, classes, targets, log_sum_exp, grad, grad_logits);
    todo!()
}
