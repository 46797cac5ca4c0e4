//! The measurements a plan is made from.

use std::collections::BTreeMap;
use std::path::Path;

use mantissa_metrics::{ExponentHistogram, Moments};
use serde::{Deserialize, Serialize};

use crate::site::{Pass, Site};

/// The version of the profile file this crate reads and writes.
pub const SCHEMA: u32 = 1;

/// How many samples of one pass a profile keeps; where there are more, the steps kept stay evenly spread.
pub const SAMPLES_KEPT: usize = 8;

/// Samples and statistics of the operands of every pass of every site of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The sites in forward order.
    pub sites: Vec<SiteProfile>,
}

/// The measurements at one site.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteProfile {
    /// The site.
    pub site: Site,
    /// The passes that were measured.
    pub passes: BTreeMap<Pass, PassProfile>,
}

/// The measurements of one pass, its operands in the order of [`Pass::operands`].
#[derive(Clone, Debug, PartialEq)]
pub struct PassProfile {
    /// The left operand's statistics, over all measured steps.
    pub left: OperandStatistics,
    /// The right operand's statistics, over all measured steps.
    pub right: OperandStatistics,
    /// Whole rows and columns, by step.
    pub samples: Vec<PassSample>,
}

/// What was measured of one operand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperandStatistics {
    /// The full operand's batch, outer and depth lengths as its product sees them (the largest step's).
    pub shape: [usize; 3],
    /// The largest finite magnitude of the full operand over all steps.
    pub amax: f32,
    /// Moments of the measured elements.
    pub moments: Moments,
    /// Exponents of the measured elements.
    pub exponents: ExponentHistogram,
}

/// Whole rows of both operands of one pass in one step: `left` is `[batch, outer_left, depth]`, `right` is
/// `[batch, outer_right, depth]`, row-major, and row i of a left matrix meets row j of the right matrix of the same
/// batch index.
#[derive(Clone, Debug, PartialEq)]
pub struct PassSample {
    /// The training step.
    pub step: u64,
    /// How many matrices were sampled.
    pub batch: usize,
    /// Sampled rows of each left matrix.
    pub outer_left: usize,
    /// Sampled rows of each right matrix.
    pub outer_right: usize,
    /// The full length of the contraction.
    pub depth: usize,
    /// The left rows.
    pub left: Vec<f32>,
    /// The right rows.
    pub right: Vec<f32>,
    /// The largest finite magnitude of the whole left operand, which sets its scale at tensor granularity.
    pub left_amax: f32,
    /// The largest finite magnitude of the whole right operand.
    pub right_amax: f32,
}

/// Why a profile cannot be recorded, merged, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {}

impl Profile {
    /// An empty profile of a model with these sites.
    pub fn new(sites: &[Site]) -> Self {
        let _ = sites;
        todo!()
    }

    /// Adds one step's measurement of one pass of the site of this name.
    pub fn record(
        &mut self,
        site: &str,
        pass: Pass,
        sample: PassSample,
        left: OperandStatistics,
        right: OperandStatistics,
    ) -> Result<(), ProfileError> {
        let _ = (site, pass, sample, left, right);
        todo!()
    }

    /// The measurements at the site of this name.
    pub fn site(&self, name: &str) -> Option<&SiteProfile> {
        self.sites
            .iter()
            .find(|measured| measured.site.name == name)
    }

    /// The measured steps, ascending.
    pub fn steps(&self) -> Vec<u64> {
        todo!()
    }

    /// Adds the measurements of another profile of the same model.
    pub fn merge(&mut self, other: &Profile) -> Result<(), ProfileError> {
        let _ = other;
        todo!()
    }

    /// Reads a profile file.
    pub fn load(path: impl AsRef<Path>) -> Result<Profile, ProfileError> {
        let _ = path.as_ref();
        todo!()
    }

    /// Writes the profile file whole or not at all.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ProfileError> {
        let _ = path.as_ref();
        todo!()
    }
}
