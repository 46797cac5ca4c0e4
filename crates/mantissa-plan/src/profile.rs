//! The measurements a plan is made from.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mantissa_metrics::{
    ExponentHistogram, GroupSpreads, MagnitudeSketch, Moments, TensorStatistics,
};
use serde::{Deserialize, Serialize};

pub use crate::drift::STEPS_KEPT;
use crate::drift::{Drift, StepSummary, check_series, drift, merge_series, most_crowded};
use crate::dump::{self, DumpError};
use crate::names;
use crate::profile_file;
use crate::site::{Pass, Role, Site};

/// The version of the profile file this crate reads and writes.
pub const SCHEMA: u32 = 2;

/// How many samples of one pass a profile keeps; where there are more, the steps kept stay evenly spread.
pub const SAMPLES_KEPT: usize = 8;

/// Counts beyond this are no counts of elements, and their sums might overflow.
const MOST_ELEMENTS: u64 = 1 << 53;

/// Every step fits a TOML integer.
pub(crate) const LAST_STEP: u64 = i64::MAX as u64;

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
    /// Whole rows of both operands, ascending by step, at most [`SAMPLES_KEPT`] of them.
    pub samples: Vec<PassSample>,
}

/// What was measured of one operand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperandStatistics {
    /// The full operand's batch, outer and depth lengths as its product sees them (the largest of all steps).
    pub shape: [usize; 3],
    /// The largest finite magnitude of the full operand over all steps.
    pub amax: f32,
    /// Moments of the measured elements.
    pub moments: Moments,
    /// Exponents of the measured elements.
    pub exponents: ExponentHistogram,
    /// Quantiles of the magnitudes of the measured elements.
    pub magnitudes: MagnitudeSketch,
    /// How the channels and blocks among the measured elements spread about the tensor.
    pub groups: GroupSpreads,
    /// The measured steps one by one, ascending, at most [`STEPS_KEPT`] of them and those evenly spread.
    pub series: Vec<StepSummary>,
}

/// Whole rows of both operands of one pass in one step: `left` is `[batch, outer_left, depth]`, `right` is
/// `[batch, outer_right, depth]`, row-major, and every row of a left matrix meets every row of the right matrix of the
/// same batch index.
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
pub enum ProfileError {
    /// The file cannot be read.
    #[error("cannot read the profile {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the profile {}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What is wrong, and in which file.
    #[error("{}: {fault}", .path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: Box<ProfileError>,
    },
    /// The file is not a profile, or a damaged one.
    #[error("the profile cannot be read: {0}; measure again")]
    Malformed(String),
    /// The file was made by another version.
    #[error(
        "the profile has schema {found} but this version of mantissa reads schema {SCHEMA}; measure again, or use the version that made it"
    )]
    OtherSchema {
        /// The file's version.
        found: u64,
    },
    /// The profile cannot be put into a file.
    #[error("the profile cannot be encoded: {0}")]
    Encode(String),
    /// No site of the profile has this name.
    #[error("the profile has no site `{name}`{hint}")]
    UnknownSite {
        /// The name asked for.
        name: String,
        /// The nearest name, in words.
        hint: String,
    },
    /// The site is a look-up.
    #[error(
        "site `{0}` is an embedding: it looks up and multiplies nothing, so there is no pass to measure"
    )]
    NotAProduct(String),
    /// A sample or its statistics contradict themselves.
    #[error("site `{site}`, pass {pass}: {fault}")]
    Inconsistent {
        /// The site.
        site: String,
        /// The pass.
        pass: Pass,
        /// What does not agree.
        fault: String,
    },
    /// The file is no profile, and no dump either.
    #[error(
        "the file is no profile, having no `mantissa_profile` in its metadata, and as a dump of tensors it cannot be read: {0}"
    )]
    Dump(#[from] DumpError),
    /// Two profiles cannot be merged.
    #[error("the profiles are of different models: {0}; merge profiles of one model only")]
    DifferentModels(String),
}

impl Profile {
    /// An empty profile of a model with these sites.
    pub fn new(sites: &[Site]) -> Self {
        let sites = sites
            .iter()
            .map(|site| SiteProfile {
                site: site.clone(),
                passes: BTreeMap::new(),
            })
            .collect();
        Profile { sites }
    }

    /// Adds one step's measurement of one pass of the site of this name: rows of both operands, and their statistics in that step.
    pub fn record(
        &mut self,
        site: &str,
        pass: Pass,
        sample: PassSample,
        left: OperandStatistics,
        right: OperandStatistics,
    ) -> Result<(), ProfileError> {
        let Some(index) = self
            .sites
            .iter()
            .position(|measured| measured.site.name == site)
        else {
            return Err(self.unknown(site));
        };
        let measured = PassProfile {
            left,
            right,
            samples: vec![sample],
        };
        let entry = &mut self.sites[index];
        if !entry.site.kind.is_product() {
            return Err(ProfileError::NotAProduct(site.to_string()));
        }
        measured
            .check()
            .map_err(|fault| ProfileError::Inconsistent {
                site: site.to_string(),
                pass,
                fault,
            })?;
        entry.add(pass, measured);
        Ok(())
    }

    /// The measurements at the site of this name; the error suggests the nearest name.
    pub fn site(&self, name: &str) -> Result<&SiteProfile, ProfileError> {
        self.sites
            .iter()
            .find(|measured| measured.site.name == name)
            .ok_or_else(|| self.unknown(name))
    }

    /// The sampled steps, ascending.
    pub fn steps(&self) -> Vec<u64> {
        let passes = self.sites.iter().flat_map(|site| site.passes.values());
        let steps: BTreeSet<u64> = passes
            .flat_map(|pass| pass.samples.iter().map(|sample| sample.step))
            .collect();
        steps.into_iter().collect()
    }

    /// The last step that was measured, whether its samples were kept or not.
    pub fn last_step(&self) -> Option<u64> {
        let passes = self.sites.iter().flat_map(|site| site.passes.values());
        let operands = passes.flat_map(|pass| [&pass.left, &pass.right]);
        let last = operands.filter_map(|operand| operand.series.last());
        last.map(|summary| summary.step).max()
    }

    /// Adds the measurements of another profile of the same model: another run, another rank, or later steps.
    pub fn merge(&mut self, other: &Profile) -> Result<(), ProfileError> {
        if let Some(difference) = self.difference(other) {
            return Err(ProfileError::DifferentModels(difference));
        }
        for (mine, theirs) in self.sites.iter_mut().zip(&other.sites) {
            for (&pass, measured) in &theirs.passes {
                mine.add(pass, measured.clone());
            }
        }
        Ok(())
    }

    /// Reads a profile file, or the tensors that another framework [dumped](crate::dump).
    pub fn load(path: impl AsRef<Path>) -> Result<Profile, ProfileError> {
        profile_file::load(path.as_ref())
    }

    /// Writes the profile file whole or not at all.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ProfileError> {
        profile_file::save(self, path.as_ref())
    }

    /// The bytes of its file.
    ///
    /// # Errors
    /// If a statistic cannot be written as JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ProfileError> {
        profile_file::encode(self)
    }

    /// A profile from the bytes of its file, or of a [dump]: a safetensors file whose metadata does not say that
    /// it is a profile.
    ///
    /// # Errors
    /// If they are those of neither, or of a damaged file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Profile, ProfileError> {
        profile_file::decode(bytes)
    }

    /// A profile from the bytes of a [dump], whatever its metadata says.
    ///
    /// # Errors
    /// If they are not those of a whole safetensors file, or its tensors are not the operands of products.
    pub fn from_dump(bytes: &[u8]) -> Result<Profile, ProfileError> {
        dump::read(&profile_file::tensors(bytes)?)
    }

    fn unknown(&self, name: &str) -> ProfileError {
        ProfileError::UnknownSite {
            name: name.to_string(),
            hint: names::did_you_mean(
                name,
                self.sites
                    .iter()
                    .map(|measured| measured.site.name.as_str()),
            ),
        }
    }

    fn difference(&self, other: &Profile) -> Option<String> {
        for (mine, theirs) in self.sites.iter().zip(&other.sites) {
            if mine.site != theirs.site {
                let (a, b) = (&mine.site, &theirs.site);
                return Some(format!(
                    "where one has `{}` ({}) the other has `{}` ({})",
                    a.name, a.kind, b.name, b.kind
                ));
            }
        }
        let (mine, theirs) = (self.sites.len(), other.sites.len());
        (mine != theirs).then(|| format!("one has {mine} sites and the other {theirs}"))
    }
}

impl SiteProfile {
    fn add(&mut self, pass: Pass, measured: PassProfile) {
        match self.passes.get_mut(&pass) {
            Some(known) => known.merge(measured),
            None => {
                self.passes.insert(pass, measured);
            }
        }
    }
}

impl PassProfile {
    fn merge(&mut self, other: PassProfile) {
        self.left.merge(&other.left);
        self.right.merge(&other.right);
        for sample in other.samples {
            let place = self
                .samples
                .partition_point(|known| known.step <= sample.step);
            self.samples.insert(place, sample);
        }
        while self.samples.len() > SAMPLES_KEPT {
            self.samples
                .remove(most_crowded(&self.samples, |sample| sample.step));
        }
    }

    /// What does not agree, if anything.
    pub(crate) fn check(&self) -> Result<(), String> {
        for sample in &self.samples {
            sample.check()?;
        }
        for (role, statistics) in [("left", &self.left), ("right", &self.right)] {
            check_amax(role, statistics.amax, &[])?;
            let Moments {
                count,
                zeros,
                non_finite,
                ..
            } = statistics.moments;
            let magnitudes = &statistics.magnitudes;
            let counts = [
                count,
                zeros,
                non_finite,
                statistics.exponents.total(),
                magnitudes.count(),
                magnitudes.non_finite(),
            ];
            if counts.iter().any(|&n| n > MOST_ELEMENTS) {
                return Err(format!(
                    "the {role} operand's statistics count more than 2^53 elements"
                ));
            }
            check_series(&statistics.series)
                .map_err(|fault| format!("the {role} operand's {fault}"))?;
        }
        Ok(())
    }
}

impl OperandStatistics {
    /// Statistics of an operand of this full shape and largest finite magnitude in a step, from some or all of its rows, each of
    /// `shape[2]` elements.
    pub fn of(step: u64, shape: [usize; 3], amax: f32, rows: &[f32]) -> Self {
        let TensorStatistics { moments, exponents } = TensorStatistics::of(rows);
        let rms = moments.rms().unwrap_or(0.0);
        let mut statistics = OperandStatistics {
            shape,
            amax,
            moments,
            exponents,
            magnitudes: MagnitudeSketch::of(rows),
            groups: GroupSpreads::of(rows, shape[2], amax, rms),
            series: Vec::new(),
        };
        statistics
            .series
            .push(StepSummary::of(step, &statistics, rows));
        statistics
    }

    /// How the operand moved from step to step; `None` if fewer than two steps were measured.
    pub fn drift(&self) -> Option<Drift> {
        drift(&self.series)
    }

    fn merge(&mut self, other: &OperandStatistics) {
        for (mine, theirs) in self.shape.iter_mut().zip(other.shape) {
            *mine = (*mine).max(theirs);
        }
        self.amax = self.amax.max(other.amax);
        self.moments.merge(&other.moments);
        self.exponents.merge(&other.exponents);
        self.magnitudes.merge(&other.magnitudes);
        self.groups.merge(&other.groups);
        merge_series(&mut self.series, &other.series);
    }
}

impl PassSample {
    /// The rows of the left (0) or right (1) operand: how many in each matrix, the elements, and the full operand's amax.
    pub(crate) fn side(&self, side: usize) -> (usize, &[f32], f32) {
        if side == 0 {
            (self.outer_left, &self.left, self.left_amax)
        } else {
            (self.outer_right, &self.right, self.right_amax)
        }
    }

    /// Multiplies the left and the right operand.
    pub(crate) fn multiply(&mut self, factors: [f32; 2]) {
        let sides = [
            (&mut self.left, &mut self.left_amax),
            (&mut self.right, &mut self.right_amax),
        ];
        for ((rows, amax), factor) in sides.into_iter().zip(factors) {
            if factor != 1.0 {
                *amax *= factor;
                rows.iter_mut().for_each(|x| *x *= factor);
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.step > LAST_STEP {
            return Err(format!(
                "a sample has step {}; steps end at 2^63 - 1",
                self.step
            ));
        }
        for (side, role) in ["left", "right"].into_iter().enumerate() {
            let (outer, rows, amax) = self.side(side);
            let count = self
                .batch
                .checked_mul(outer)
                .and_then(|count| count.checked_mul(self.depth));
            if count == Some(0) {
                return Err(format!(
                    "the sample of step {} has no {role} elements",
                    self.step
                ));
            }
            if count != Some(rows.len()) {
                return Err(format!(
                    "the sample of step {} has {} {role} elements where {} x {outer} x {} are announced",
                    self.step,
                    rows.len(),
                    self.batch,
                    self.depth
                ));
            }
            check_amax(role, amax, rows)?;
        }
        Ok(())
    }
}

/// An amax is a finite magnitude that no finite element exceeds.
fn check_amax(role: &str, amax: f32, rows: &[f32]) -> Result<(), String> {
    if !amax.is_finite() || amax < 0.0 {
        return Err(format!(
            "the {role} operand's amax is {amax}; it must be the largest finite magnitude"
        ));
    }
    // All of them together first, which is faster than one after the other.
    let is_beyond = |x: f32| x.is_finite() & (x.abs() > amax);
    let is_any_beyond = rows.iter().fold(false, |any, &x| any | is_beyond(x));
    match rows.iter().find(|&&x| is_any_beyond && is_beyond(x)) {
        Some(x) => Err(format!(
            "the {role} operand holds {x}, beyond its amax {amax}"
        )),
        None => Ok(()),
    }
}

/// The name of the tensor of one sampled operand in a profile file: `SITE/PASS/OPERAND@STEP`, and from the second
/// sample of the same step on (of another run) `….N`.
pub(crate) fn tensor_name(site: &str, pass: Pass, role: Role, step: u64, repeat: usize) -> String {
    match repeat {
        0 => format!("{site}/{pass}/{role}@{step}"),
        _ => format!("{site}/{pass}/{role}@{step}.{repeat}"),
    }
}
