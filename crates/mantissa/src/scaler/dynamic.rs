//! The scale that backs off at overflows and grows after clean steps.

use mantissa_plan::loss_scaling::DynamicScaling;
use serde::{Deserialize, Serialize};

/// What a [`DynamicScaling`] has come to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DynamicState {
    /// The scale of the next loss.
    pub scale: f32,
    /// Clean steps since the start or the last overflow; after growth, counted on from `settle_steps`.
    pub clean_steps: u64,
    /// At which overflow from now on the scale backs off.
    pub hysteresis_left: u32,
    /// Whether the last step overflowed at the smallest scale, with no more overflow tolerated.
    pub exhausted: bool,
}

impl DynamicState {
    /// Before the first step.
    pub fn new(settings: &DynamicScaling) -> Self {
        Self {
            scale: settings.init_scale,
            clean_steps: 0,
            hysteresis_left: settings.hysteresis,
            exhausted: false,
        }
    }

    /// After one more step.
    #[must_use]
    pub fn after(self, settings: &DynamicScaling, overflowed: bool) -> Self {
        if overflowed {
            self.after_overflow(settings)
        } else {
            self.after_clean_step(settings)
        }
    }

    fn after_overflow(self, settings: &DynamicScaling) -> Self {
        let counted = Self {
            clean_steps: 0,
            exhausted: false,
            ..self
        };
        if self.hysteresis_left > 1 {
            return Self {
                hysteresis_left: self.hysteresis_left - 1,
                ..counted
            };
        }
        let lower = times(self.scale, settings.backoff_factor);
        Self {
            scale: lower.max(settings.min_scale),
            exhausted: self.scale <= settings.min_scale,
            ..counted
        }
    }

    fn after_clean_step(self, settings: &DynamicScaling) -> Self {
        let mut next = Self {
            clean_steps: self.clean_steps + 1,
            exhausted: false,
            ..self
        };
        if settings.consecutive_hysteresis {
            next.hysteresis_left = settings.hysteresis;
        }
        let settle_steps = u64::from(settings.settle_steps);
        if next.clean_steps < settle_steps + u64::from(settings.growth_interval) {
            return next;
        }
        next.clean_steps = settle_steps;
        next.hysteresis_left = settings.hysteresis;
        let higher = times(self.scale, settings.growth_factor);
        if higher.is_finite() {
            next.scale = higher.min(settings.max_scale);
        }
        next
    }
}

fn times(scale: f32, factor: f64) -> f32 {
    (f64::from(scale) * factor) as f32
}
