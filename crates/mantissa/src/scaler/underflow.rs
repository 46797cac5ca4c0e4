//! The scale that weighs underflow against overflow.

use mantissa_metrics::ExponentHistogram;
use mantissa_plan::loss_scaling::UnderflowScaling;
use serde::{Deserialize, Serialize};

use super::observation::Observation;

/// What an [`UnderflowScaling`] has come to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnderflowState {
    /// The scale of the next loss.
    pub scale: f32,
    /// Steps in a row with too much underflow, since the scale last moved.
    pub lossy_steps: u32,
}

impl UnderflowState {
    /// Before the first step.
    pub fn new(settings: &UnderflowScaling) -> Self {
        Self {
            scale: settings.init_scale,
            lossy_steps: 0,
        }
    }

    /// After one more step.
    #[must_use]
    pub fn after(self, settings: &UnderflowScaling, observed: &Observation) -> Self {
        if observed.overflowed {
            return self.moved(settings, -1);
        }
        if observed.amax == 0.0 {
            return self;
        }
        // Gradients of another scale than the present one are looked at as if they had the present one.
        let ratio = f64::from(self.scale) / f64::from(observed.loss_scale);
        let highest = exponent(f64::from(settings.format.max_finite()));
        let room = highest - exponent(f64::from(observed.amax) * ratio);
        let headroom = settings.headroom as i32;
        if room < headroom {
            return self.moved(settings, room - headroom);
        }
        let lossy = observed.exponents.is_some_and(|exponents| {
            let lowest = exponent(f64::from(settings.format.min_subnormal()));
            let shift = ratio.log2().round() as i32;
            underflow_share(exponents, lowest - shift) > settings.max_underflow
        });
        let lossy_steps = if lossy && room > headroom {
            self.lossy_steps + 1
        } else {
            0
        };
        if lossy_steps >= settings.raise_after {
            return self.moved(settings, 1);
        }
        Self {
            lossy_steps,
            ..self
        }
    }

    /// The scale times a power of two, within its bounds.
    fn moved(self, settings: &UnderflowScaling, power: i32) -> Self {
        let scale = f64::from(self.scale) * f64::from(power).exp2();
        Self {
            scale: (scale as f32).clamp(settings.min_scale, settings.max_scale),
            lossy_steps: 0,
        }
    }
}

/// The share of non-zero finite elements below half of `2^lowest`: those that nearest rounding takes to zero where
/// `2^lowest` is the smallest value.
fn underflow_share(exponents: &ExponentHistogram, lowest: i32) -> f64 {
    let (mut lost, mut all) = (0, 0);
    for (exponent, count) in exponents.iter() {
        all += count;
        if exponent < lowest - 1 {
            lost += count;
        }
    }
    if all == 0 {
        0.0
    } else {
        lost as f64 / all as f64
    }
}

/// `floor(log2 x)` of a normal positive number.
fn exponent(x: f64) -> i32 {
    (x.to_bits() >> 52) as i32 - 1023
}
