//! Dropout with a mask that is drawn again instead of stored.

use mantissa_formats::RandomBits;

/// Zeroes each element of `x` with the given probability and multiplies the others by `1 / (1 - probability)` (Srivastava et al.
/// 2014, JMLR 15). The same call on the gradient is the backward. Element `i` reads index `i` of `random`.
///
/// # Panics
/// If the probability is not in `0..=1`.
pub fn dropout(x: &mut [f32], probability: f64, random: RandomBits) {
    let _ = (x, probability, random);
    todo!()
}

/// Adds [`dropout`] of `x` to `residual`, in place. With probability 0 it is a plain addition.
///
/// # Panics
/// If the lengths differ or the probability is not in `0..=1`.
pub fn dropout_add(x: &[f32], residual: &mut [f32], probability: f64, random: RandomBits) {
    let _ = (x, residual, probability, random);
    todo!()
}
