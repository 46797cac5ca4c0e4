//! What one step tells a scaler.

use mantissa_metrics::ExponentHistogram;

/// What one step tells a scaler.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// Whether a gradient was infinite or NaN, so that the step is skipped.
    pub overflowed: bool,
    /// The unscaled loss.
    pub loss: f32,
    /// The scale that the gradients carry.
    pub loss_scale: f32,
    /// The largest finite magnitude of the gradients, still scaled; 0 where all are zero.
    pub amax: f32,
    /// The exponents of the gradients, still scaled, if the scaler [asks for them](super::LossScaler::wants_exponents).
    pub exponents: Option<&'a ExponentHistogram>,
}

impl Observation<'_> {
    /// A step of which nothing is known but whether its gradients overflowed.
    pub fn of(overflowed: bool) -> Self {
        Self {
            overflowed,
            loss: f32::NAN,
            loss_scale: 1.0,
            amax: 0.0,
            exponents: None,
        }
    }
}
