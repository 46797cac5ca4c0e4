//! The scale from mean and deviation of the largest gradient.

use mantissa_plan::loss_scaling::LogMaxScaling;
use serde::{Deserialize, Serialize};

use super::observation::Observation;

/// What a [`LogMaxScaling`] has come to. The running means are as if everything had been 0 before the start.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogMaxState {
    /// The scale of the next loss.
    pub scale: f32,
    /// Running mean of `log2(amax)`, by `mean_smoothing`.
    pub mean: f64,
    /// The weight that the start still has in it.
    pub mean_start_weight: f64,
    /// Running mean of `log2(amax)`, by `deviation_smoothing`.
    pub slow_mean: f64,
    /// Running mean of the square of `log2(amax)`, by `deviation_smoothing`.
    pub slow_square: f64,
    /// The weight that the start still has in these two.
    pub slow_start_weight: f64,
}

impl LogMaxState {
    /// Before the first step.
    pub fn new(settings: &LogMaxScaling) -> Self {
        Self {
            scale: settings.init_scale,
            mean: 0.0,
            mean_start_weight: 1.0,
            slow_mean: 0.0,
            slow_square: 0.0,
            slow_start_weight: 1.0,
        }
    }

    /// After one more step.
    #[must_use]
    pub fn after(self, settings: &LogMaxScaling, observed: &Observation) -> Self {
        let x = if observed.overflowed {
            settings.log_max
        } else if observed.amax > 0.0 {
            f64::from(observed.amax).log2() - f64::from(observed.loss_scale).log2()
        } else {
            return self;
        };
        let (fast, slow) = (settings.mean_smoothing, settings.deviation_smoothing);
        let next = Self {
            scale: self.scale,
            mean: fast * self.mean + (1.0 - fast) * x,
            mean_start_weight: self.mean_start_weight * fast,
            slow_mean: slow * self.slow_mean + (1.0 - slow) * x,
            slow_square: slow * self.slow_square + (1.0 - slow) * x * x,
            slow_start_weight: self.slow_start_weight * slow,
        };
        let mean = next.mean / (1.0 - next.mean_start_weight);
        let slow_mean = next.slow_mean / (1.0 - next.slow_start_weight);
        let square = next.slow_square / (1.0 - next.slow_start_weight);
        // Rounding can leave a constant x a variance just below 0.
        let deviation = (square - slow_mean * slow_mean).max(0.0).sqrt();
        let scale = (settings.log_max - (mean + settings.deviations * deviation)).exp2();
        Self {
            scale: (scale as f32).clamp(settings.min_scale, settings.max_scale),
            ..next
        }
    }
}
