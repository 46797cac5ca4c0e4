//! A scale from the statistics of the largest gradient.

use serde::{Deserialize, Serialize};

use super::bounds_problem;

/// Settings of *LogMax* loss scaling (OpenSeq2Seq, `open_seq2seq/optimizers/automatic_loss_scaler.py`): the largest
/// unscaled gradient of a step is taken as log-normal, and the scale as large as overflows stay rare.
///
/// With `x = log2(amax)`, its running mean `mu` over about `1 / (1 - mean_smoothing)` steps and its standard deviation
/// `sigma` over about `1 / (1 - deviation_smoothing)`, both corrected for their start at 0, the scale of the next step is
/// `2^(log_max - (mu + deviations * sigma))` within its bounds. An overflow counts as `x = log_max`; a step whose gradients
/// are all zero has no `x` and moves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogMaxScaling {
    /// The scale of the first step.
    pub init_scale: f32,
    /// log2 of the magnitude that must rarely be reached: 16 for FP16 and E5M2.
    pub log_max: f64,
    /// Weight of the past in the mean, from 0 to below 1.
    pub mean_smoothing: f64,
    /// Weight of the past in the standard deviation, from 0 to below 1.
    pub deviation_smoothing: f64,
    /// Standard deviations above the mean that must stay below `log_max`.
    pub deviations: f64,
    /// The scale never falls below this.
    pub min_scale: f32,
    /// The scale never rises above this.
    pub max_scale: f32,
}

impl LogMaxScaling {
    /// OpenSeq2Seq's constants; 3.09 is the normal quantile of 0.999, so that one step in a thousand overflows.
    pub const DEFAULT: Self = Self {
        init_scale: 16384.0,
        log_max: 16.0,
        mean_smoothing: 0.99,
        deviation_smoothing: 0.999,
        deviations: 3.09,
        min_scale: 1.0,
        max_scale: 16384.0,
    };

    pub(super) fn problem(&self) -> Option<String> {
        let weights = [
            ("mean_smoothing", self.mean_smoothing),
            ("deviation_smoothing", self.deviation_smoothing),
        ];
        bounds_problem(self.init_scale, self.min_scale, self.max_scale).or_else(|| {
            if let Some((name, weight)) = weights
                .into_iter()
                .find(|(_, weight)| !(0.0..1.0).contains(weight))
            {
                Some(format!(
                    "{name} must be at least 0 and below 1, not {weight}"
                ))
            } else if !(-149.0..=128.0).contains(&self.log_max) {
                Some(format!(
                    "log_max must be the log2 of an f32, from -149 to 128, not {}",
                    self.log_max
                ))
            } else if !(self.deviations.is_finite() && self.deviations >= 0.0) {
                Some(format!(
                    "deviations must be finite and not negative, not {}",
                    self.deviations
                ))
            } else {
                None
            }
        })
    }
}
