//! Dynamic scaling with a smallest scale that rises.

use serde::{Deserialize, Serialize};

use super::dynamic::DynamicScaling;

/// Settings of *enhanced* loss scaling (Mellempudi et al. 2019, arXiv 1905.12334, section 3.1): dynamic, with a smallest
/// scale, the *floor*, that rises as training goes on.
///
/// After every step the scale is what [`DynamicScaling`] makes it with the floor as its smallest scale, or the floor
/// itself where that rose above it. An overflow at the floor skips its step and moves nothing: it is taken as spurious,
/// for the sake of the many small gradients that a lower scale would lose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnhancedScaling {
    /// How the scale moves above the floor; `min_scale` is where the floor begins.
    #[serde(flatten)]
    pub dynamic: DynamicScaling,
    /// How the floor rises.
    pub floor: Floor,
}

/// How the smallest scale of [`EnhancedScaling`] rises.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Floor {
    /// At given steps.
    Steps(Vec<FloorStep>),
    /// Whenever the training loss stalls.
    Stall(Stall),
}

/// From one step on, the scale is at least this.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FloorStep {
    /// The first step, from 0 and with skipped ones counted, that has this floor.
    pub from_step: u64,
    /// The floor.
    pub min_scale: f32,
}

/// A floor that rises when the training loss stalls.
///
/// The paper raises the threshold "by observing the loss", by eye. Here the eye is a running mean: where it has not fallen
/// for long, small gradients may be lost, and a higher scale is worth some skipped steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stall {
    /// Weight of the past in the running mean of the loss, from 0 to below 1; the mean is corrected for its start at 0.
    pub smoothing: f64,
    /// A step is a stalled one unless the running mean is below the lowest so far by more than this share of it.
    pub improvement: f64,
    /// Stalled steps in a row before the floor rises, and again before it rises once more.
    pub patience: u32,
    /// What the floor is multiplied with, above 1.
    pub factor: f64,
    /// The floor never rises above this.
    pub limit: f32,
}

impl EnhancedScaling {
    /// The default constants with the floors of the paper's GNMT run: 8192 after 40 000 iterations, 32 768 after 150 000.
    pub fn gnmt() -> Self {
        let floor = |from_step, min_scale| FloorStep {
            from_step,
            min_scale,
        };
        Self {
            dynamic: DynamicScaling::DEFAULT,
            floor: Floor::Steps(vec![floor(40_000, 8192.0), floor(150_000, 32768.0)]),
        }
    }

    /// The default constants with a floor that doubles after 1000 steps without 1 % of progress, up to 32 768.
    pub fn on_stall() -> Self {
        Self {
            dynamic: DynamicScaling::DEFAULT,
            floor: Floor::Stall(Stall {
                smoothing: 0.99,
                improvement: 0.01,
                patience: 1000,
                factor: 2.0,
                limit: 32768.0,
            }),
        }
    }

    pub(super) fn problem(&self) -> Option<String> {
        let dynamic = &self.dynamic;
        if let Some(problem) = dynamic.problem() {
            return Some(problem);
        }
        if dynamic.stop_at_min {
            return Some(
                "stop_at_min contradicts the floor, at which overflows are tolerated".to_string(),
            );
        }
        match &self.floor {
            Floor::Steps(steps) if steps.is_empty() => Some(
                "the floor has no steps; write some, or use a dynamic scaling without a floor"
                    .to_string(),
            ),
            Floor::Steps(steps) => {
                let rises = steps.windows(2).all(|pair| {
                    pair[0].from_step < pair[1].from_step && pair[0].min_scale < pair[1].min_scale
                });
                let (lowest, highest) = (dynamic.min_scale, dynamic.max_scale);
                let outside = steps
                    .iter()
                    .find(|step| !(lowest..=highest).contains(&step.min_scale));
                if let Some(step) = outside {
                    Some(format!(
                        "the floor {} lies outside min_scale {lowest} to max_scale {highest}",
                        step.min_scale
                    ))
                } else if !rises {
                    Some("from_step and min_scale of the floor must rise together".to_string())
                } else {
                    None
                }
            }
            Floor::Stall(stall) => stall.problem(dynamic),
        }
    }
}

impl Stall {
    fn problem(&self, dynamic: &DynamicScaling) -> Option<String> {
        if !(0.0..1.0).contains(&self.smoothing) {
            Some(format!(
                "smoothing must be at least 0 and below 1, not {}",
                self.smoothing
            ))
        } else if !(0.0..1.0).contains(&self.improvement) {
            Some(format!(
                "improvement must be at least 0 and below 1, not {}",
                self.improvement
            ))
        } else if self.patience == 0 {
            Some("patience must be at least 1 step".to_string())
        } else if !(self.factor.is_finite() && self.factor > 1.0) {
            Some(format!(
                "the floor's factor must be finite and above 1, not {}",
                self.factor
            ))
        } else if !(dynamic.min_scale..=dynamic.max_scale).contains(&self.limit) {
            Some(format!(
                "the floor's limit {} lies outside min_scale {} to max_scale {}",
                self.limit, dynamic.min_scale, dynamic.max_scale
            ))
        } else {
            None
        }
    }
}
