//! Cross-entropy from logits.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::math::exp;
use crate::powers::Powers;
use crate::rows::rows_per_piece;
use crate::vector::{dispatch, largest};

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
    check(logits, classes, targets, log_sum_exp);
    let block = rows_per_piece(classes);
    log_sum_exp
        .par_chunks_mut(block)
        .zip(logits.par_chunks(block * classes.max(1)))
        .for_each(|(log_sum_exp, logits)| {
            dispatch(LogSumExp {
                logits,
                classes,
                log_sum_exp,
            });
        });
    let rows = logits.chunks_exact(classes.max(1)).zip(log_sum_exp);
    let total: f64 = rows
        .zip(targets)
        .map(|((logits, log_sum_exp), target)| {
            f64::from(*log_sum_exp) - f64::from(logits[*target as usize])
        })
        .sum();
    (total / targets.len() as f64) as f32
}

/// Replaces the logits by their gradient, `(softmax(logits) - onehot(target)) · grad / rows`, for the gradient `grad` of the mean:
/// with many classes they are the largest tensors of a training step, and one memory does for both.
///
/// # Panics
/// As [`cross_entropy`].
pub fn cross_entropy_backward(
    logits: &mut [f32],
    classes: usize,
    targets: &[i32],
    log_sum_exp: &[f32],
    grad: f32,
) {
    check(logits, classes, targets, log_sum_exp);
    let factor = grad / targets.len() as f32;
    let block = rows_per_piece(classes);
    logits
        .par_chunks_mut(block * classes.max(1))
        .zip(targets.par_chunks(block))
        .zip(log_sum_exp.par_chunks(block))
        .for_each(|((logits, targets), log_sum_exp)| {
            dispatch(Backward {
                logits,
                classes,
                targets,
                log_sum_exp,
                factor,
            });
        });
}

fn check(logits: &[f32], classes: usize, targets: &[i32], log_sum_exp: &[f32]) {
    assert_eq!(
        targets.len() * classes,
        logits.len(),
        "{} targets and {} logits do not make rows of {classes}",
        targets.len(),
        logits.len()
    );
    assert_eq!(
        targets.len(),
        log_sum_exp.len(),
        "log_sum_exp is one for each row"
    );
    if let Some(target) = targets.iter().find(|t| **t < 0 || **t as usize >= classes) {
        panic!("target {target} is not one of {classes} classes");
    }
}

struct LogSumExp<'a> {
    logits: &'a [f32],
    classes: usize,
    log_sum_exp: &'a mut [f32],
}

impl WithSimd for LogSumExp<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut powers = Powers::new();
        for (row, out) in self.logits.chunks_exact(self.classes).zip(self.log_sum_exp) {
            let largest = largest(simd, row, |x| x);
            let total = powers.sum(simd, row, |x| x - largest);
            *out = largest + total.ln();
        }
    }
}

struct Backward<'a> {
    logits: &'a mut [f32],
    classes: usize,
    targets: &'a [i32],
    log_sum_exp: &'a [f32],
    factor: f32,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let rows = self.logits.chunks_exact_mut(self.classes);
        let numbers = self.targets.iter().zip(self.log_sum_exp);
        for (row, (target, log_sum_exp)) in rows.zip(numbers) {
            let target = *target as usize;
            // Where the probability is near 1, the difference to 1 is what counts.
            let of_target = self.factor * (exp(row[target] - log_sum_exp) - 1.0);
            for x in &mut *row {
                *x = self.factor * exp(*x - log_sum_exp);
            }
            row[target] = of_target;
        }
    }
}
