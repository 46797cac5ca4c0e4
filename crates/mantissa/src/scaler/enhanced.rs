//! The dynamic scale with a smallest scale that rises.

use mantissa_plan::loss_scaling::{DynamicScaling, EnhancedScaling, Floor, FloorStep, Stall};
use serde::{Deserialize, Serialize};

use super::dynamic::DynamicState;
use super::observation::Observation;

/// What an [`EnhancedScaling`] has come to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnhancedState {
    /// The scale above the floor.
    pub dynamic: DynamicState,
    /// The smallest scale of the next step.
    pub floor: f32,
    /// Steps taken, skipped ones too.
    pub steps: u64,
    /// What was seen of the loss; not moved where the floor rises at given steps.
    pub watch: StallWatch,
}

/// The running mean of the loss, and for how long it has not fallen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StallWatch {
    /// The running mean, as if the loss had been 0 before the start.
    pub mean: f64,
    /// The weight that this 0 still has.
    pub start_weight: f64,
    /// The lowest corrected mean that was clearly below the one before it.
    pub lowest: Option<f64>,
    /// Stalled steps in a row, since the floor last rose.
    pub stalled: u32,
}

impl EnhancedState {
    /// Before the first step.
    pub fn new(settings: &EnhancedScaling) -> Self {
        let floor = match &settings.floor {
            Floor::Steps(steps) => floor_at(0, steps, settings.dynamic.min_scale),
            Floor::Stall(_) => settings.dynamic.min_scale,
        };
        let mut dynamic = DynamicState::new(&settings.dynamic);
        dynamic.scale = dynamic.scale.max(floor);
        Self {
            dynamic,
            floor,
            steps: 0,
            watch: StallWatch {
                mean: 0.0,
                start_weight: 1.0,
                lowest: None,
                stalled: 0,
            },
        }
    }

    /// After one more step.
    #[must_use]
    pub fn after(self, settings: &EnhancedScaling, observed: &Observation) -> Self {
        let steps = self.steps + 1;
        let (floor, watch) = match &settings.floor {
            Floor::Steps(list) => (
                floor_at(steps, list, settings.dynamic.min_scale),
                self.watch,
            ),
            Floor::Stall(stall) => self.watch.after(stall, self.floor, observed.loss),
        };
        let above_floor = DynamicScaling {
            min_scale: floor,
            ..settings.dynamic
        };
        let mut dynamic = self.dynamic.after(&above_floor, observed.overflowed);
        dynamic.scale = dynamic.scale.max(floor);
        Self {
            dynamic,
            floor,
            steps,
            watch,
        }
    }
}

/// The floor of a step.
fn floor_at(step: u64, floors: &[FloorStep], lowest: f32) -> f32 {
    let reached = floors.iter().take_while(|floor| floor.from_step <= step);
    reached.last().map_or(lowest, |floor| floor.min_scale)
}

impl StallWatch {
    /// The floor and the watch after one more loss; one that is not finite tells nothing.
    fn after(self, stall: &Stall, floor: f32, loss: f32) -> (f32, Self) {
        if !loss.is_finite() {
            return (floor, self);
        }
        let mut next = self;
        next.mean = stall.smoothing * self.mean + (1.0 - stall.smoothing) * f64::from(loss);
        next.start_weight = self.start_weight * stall.smoothing;
        let mean = next.mean / (1.0 - next.start_weight);
        let has_fallen = self
            .lowest
            .is_none_or(|lowest| mean < lowest - stall.improvement * lowest.abs());
        if has_fallen {
            next.lowest = Some(mean);
            next.stalled = 0;
            return (floor, next);
        }
        next.stalled += 1;
        if next.stalled < stall.patience {
            return (floor, next);
        }
        next.stalled = 0;
        let higher = (f64::from(floor) * stall.factor) as f32;
        // A floor that began above the limit stays where it is.
        (higher.min(stall.limit).max(floor), next)
    }
}
