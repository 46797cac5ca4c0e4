//! Where the time of training goes.

use std::time::Instant;

use serde::Serialize;

/// Wall-clock time of the steps taken so far: `timing.json`. The log is free of it, so that two runs of one configuration have
/// the same.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Timing {
    /// Steps since the run began or was resumed.
    pub steps: u64,
    /// Seconds in each part of all of them.
    pub seconds: Parts,
}

/// The parts of a step.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Parts {
    /// Drawing the batch.
    pub data: f64,
    /// The forward pass, its measurements included.
    pub forward: f64,
    /// The backward pass, its measurements included.
    pub backward: f64,
    /// Unscaling, checking and applying the gradients, and adding them up over ranks.
    pub update: f64,
}

impl Timing {
    /// Adds a step, from when it began, over the ends of its parts.
    pub fn add(&mut self, moments: [Instant; 5]) {
        let Parts {
            data,
            forward,
            backward,
            update,
        } = &mut self.seconds;
        let parts = [data, forward, backward, update];
        for (part, moments) in parts.into_iter().zip(moments.windows(2)) {
            *part += (moments[1] - moments[0]).as_secs_f64();
        }
        self.steps += 1;
    }
}
