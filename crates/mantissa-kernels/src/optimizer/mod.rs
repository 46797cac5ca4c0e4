//! Optimizer updates in one pass over parameters, gradients and moments.
//!
//! An update is set up once for a step ([`Adam::new`], [`Sgd::new`]: everything that depends on the step and not on
//! the element, computed in f64) and then applied to one tensor after the other. Each element is read once,
//! multiplied with `gradient_factor`, and written once. The operations of an element are single f32 additions,
//! multiplications, divisions and square roots in a fixed order, never fused, so that the result has the same bits
//! on every SIMD width and thread count. Moments may be stored in few bits: [`state`](crate::state).
//!
//! `gradient_factor` undoes the loss scale and clips: `clip / loss_scale`. Where that is a power of two the product
//! with the scaled gradient is exact, and the update is the one that the unscaled gradient gives.

mod adafactor;
mod adam;
mod lamb;
mod sgd;

pub use adafactor::{Adafactor, AdafactorMoments, AdafactorSettings};
pub use adam::Adam;
pub use lamb::Lamb;
pub use sgd::{Momentum, Sgd};

use crate::state::StateView;

/// How the parameter itself pulls towards zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WeightDecay {
    /// The parameter shrinks by `learning rate * rate` of itself, apart from the gradient: AdamW.
    Decoupled(f32),
    /// `rate` times the parameter is added to its gradient, as an L2 penalty of `rate / 2` times its square would.
    L2(f32),
}

/// # Panics
/// If the lengths differ.
fn check_moments(gradients: &[f32], parameters: &[f32], [first, second]: &[StateView<'_>; 2]) {
    let len = parameters.len();
    assert!(
        gradients.len() == len && first.len() == len && second.len() == len,
        "{len} parameters, {} gradients, {} first and {} second moments",
        gradients.len(),
        first.len(),
        second.len()
    );
}
