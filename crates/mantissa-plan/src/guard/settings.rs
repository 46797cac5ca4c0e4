//! When the guard measures, and when it acts.

use serde::{Deserialize, Serialize};

use super::ladder::Ladder;
use crate::policy::Thresholds;

/// When the guard measures, and when it acts: the `[guard]` table of a run's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Steps from one measurement to the next; while the loss is in trouble every step is measured.
    pub every: u64,
    /// About how many outputs of each pass's product are evaluated.
    pub outputs: usize,
    /// A pass is out of budget where a metric exceeds its bound times this: more than 1, so that a pair that was chosen
    /// close to its bound is not promoted by the noise of one measurement.
    pub tolerance: f64,
    /// Measurements in a row out of budget after which a pass is promoted.
    pub patience: u32,
    /// One measurement is enough where a metric exceeds its bound times this; it waits for no dwell.
    pub far_out: f64,
    /// Measurements after a change of a pass before the next one.
    pub dwell: u32,
    /// Measurements in a row in which the numerics a pass was promoted from would do, after which it gets them back. It
    /// doubles with every demotion of the pass.
    pub demote_after: u32,
    /// They would do where every metric stays below its bound times this.
    pub demote_below: f64,
    /// Growth of an operand's amax since the last quiet measurement that makes it a suspect of a divergence.
    pub drift: f64,
    /// A loss is a spike where it exceeds its trend by so many deviations.
    pub spike: f64,
    /// Spikes in a row that are a divergence. Steps whose forward pass is not finite count as spikes.
    pub spikes: u32,
    /// Skipped steps in a row that are a divergence. More than a dynamic loss scale needs to find its place.
    pub skips: u32,
    /// Rollbacks of a run; the next divergence ends it.
    pub max_rollbacks: u32,
    /// Which numerics are safer than which.
    pub ladder: Ladder,
    /// The budget.
    pub thresholds: Thresholds,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            every: 50,
            outputs: 1024,
            tolerance: 1.25,
            patience: 2,
            far_out: 4.0,
            dwell: 3,
            demote_after: 20,
            demote_below: 0.7,
            drift: 16.0,
            spike: 6.0,
            spikes: 4,
            skips: 20,
            max_rollbacks: 3,
            ladder: Ladder::default(),
            thresholds: Thresholds::default(),
        }
    }
}

impl Settings {
    /// What keeps these settings from making sense, if anything.
    pub fn check(&self) -> Result<(), String> {
        let counts = [
            ("every", self.every),
            ("outputs", self.outputs as u64),
            ("patience", self.patience.into()),
            ("demote_after", self.demote_after.into()),
            ("spikes", self.spikes.into()),
            ("skips", self.skips.into()),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(format!("guard.{name} must be at least 1"));
        }
        let factors = [
            ("tolerance", self.tolerance),
            ("far_out", self.far_out),
            ("drift", self.drift),
            ("spike", self.spike),
        ];
        let small = |x: f64| !x.is_finite() || x < 1.0;
        if let Some((name, value)) = factors.iter().find(|(_, value)| small(*value)) {
            return Err(format!("guard.{name} must be at least 1, not {value}"));
        }
        if self.far_out < self.tolerance {
            return Err(format!(
                "guard.far_out ({}) must not be below guard.tolerance ({})",
                self.far_out, self.tolerance
            ));
        }
        if !(0.0..=1.0).contains(&self.demote_below) {
            return Err(format!(
                "guard.demote_below must be a share from 0 to 1, not {}: what would be demoted to has to be in budget",
                self.demote_below
            ));
        }
        Ok(())
    }
}
