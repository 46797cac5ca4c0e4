//! What a profile says of each operand, in the words of statistics.

use mantissa_metrics::{Fits, GroupSpread, MagnitudeSketch, fit_distributions};
use rayon::prelude::*;
use serde::Serialize;

use crate::drift::{Drift, StepSummary};
use crate::profile::{OperandStatistics, PassProfile, Profile};
use crate::site::{Pass, Role};

/// The confidence of intervals.
const CONFIDENCE: f64 = 0.95;

/// What was measured of one operand of one pass.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OperandDescription {
    /// The site.
    pub site: String,
    /// The pass.
    pub pass: Pass,
    /// The operand.
    pub operand: Role,
    /// Batch, outer and depth lengths of the full operand.
    pub shape: [usize; 3],
    /// Elements that were measured.
    pub count: u64,
    /// The share of them that is zero.
    pub zeros: f64,
    /// Infinities and NaNs among them.
    pub non_finite: u64,
    /// The largest finite magnitude of the full operand over all steps.
    pub amax: f32,
    /// The smallest measured magnitude other than zero.
    pub min_nonzero: Option<f32>,
    /// The mean.
    pub mean: f64,
    /// The root mean square.
    pub rms: Option<f64>,
    /// The skewness.
    pub skewness: Option<f64>,
    /// The kurtosis, 3 for a normal.
    pub kurtosis: Option<f64>,
    /// Magnitudes that 1, 50, 99 and 99.9 % of the elements do not exceed.
    pub magnitudes: Quantiles,
    /// Distributions fitted to the sampled rows, those of each step in units of their root mean square; none where there is
    /// too little, or one value is too frequent.
    pub fits: Option<Fits>,
    /// How rows along the contraction differ.
    pub channels: SpreadDescription,
    /// How blocks of 32 along the contraction differ.
    pub blocks: SpreadDescription,
    /// How the operand moved; none with a single step.
    pub drift: Option<Drift>,
    /// The measured steps one by one.
    pub series: Vec<StepSummary>,
}

/// Some quantiles of magnitudes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// 1 %.
    pub p1: Option<f64>,
    /// 50 %.
    pub p50: Option<f64>,
    /// 99 %.
    pub p99: Option<f64>,
    /// 99.9 %.
    pub p99_9: Option<f64>,
}

/// How the groups of one kind differ.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SpreadDescription {
    /// The median of the groups' amaxes, as a share of the tensor's.
    pub median_amax: Option<f64>,
    /// How many powers of two lie between the amaxes of groups that 5 % and 95 % of all groups do not exceed; groups of
    /// zeros are left out.
    pub amax_octaves: Option<f64>,
    /// The same of their root mean squares.
    pub rms_octaves: Option<f64>,
    /// The median of the groups' crest factors, amax over root mean square.
    pub median_crest: Option<f64>,
}

impl Profile {
    /// What was measured of every operand of the sites that `is_wanted` names, in forward order.
    pub fn describe(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<OperandDescription> {
        let sites = self.sites.iter().filter(|site| is_wanted(&site.site.name));
        let operands = sites.flat_map(|site| {
            site.passes.iter().flat_map(move |(&pass, measured)| {
                let roles = pass.operands().into_iter().enumerate();
                roles.map(move |(side, role)| (&site.site.name, pass, measured, side, role))
            })
        });
        let operands: Vec<_> = operands.collect();
        operands
            .into_par_iter()
            .map(|(site, pass, measured, side, operand)| {
                describe(site, pass, measured, side, operand)
            })
            .collect()
    }
}

fn describe(
    site: &str,
    pass: Pass,
    measured: &PassProfile,
    side: usize,
    operand: Role,
) -> OperandDescription {
    let statistics = [&measured.left, &measured.right][side];
    let OperandStatistics {
        shape,
        amax,
        moments,
        magnitudes,
        groups,
        series,
        ..
    } = statistics;
    OperandDescription {
        site: site.to_string(),
        pass,
        operand,
        shape: *shape,
        count: moments.total(),
        zeros: moments.zeros as f64 / moments.total().max(1) as f64,
        non_finite: moments.non_finite,
        amax: *amax,
        min_nonzero: moments.min_nonzero,
        mean: moments.mean,
        rms: moments.rms(),
        skewness: moments.skewness(),
        kurtosis: moments.kurtosis(),
        magnitudes: Quantiles {
            p1: magnitudes.quantile(0.01),
            p50: magnitudes.quantile(0.5),
            p99: magnitudes.quantile(0.99),
            p99_9: magnitudes.quantile(0.999),
        },
        fits: fit_distributions(&standardized(measured, side), CONFIDENCE),
        channels: spread(&groups.channels),
        blocks: spread(&groups.blocks),
        drift: statistics.drift(),
        series: series.clone(),
    }
}

/// The sampled rows of all steps, each step's in units of its root mean square: a scale that follows the tensor makes them
/// one sample.
fn standardized(measured: &PassProfile, side: usize) -> Vec<f32> {
    let mut pooled = Vec::new();
    for sample in &measured.samples {
        let (_, rows, _) = sample.side(side);
        let finite = rows.iter().filter(|x| x.is_finite());
        let (squares, count) = finite.fold((0.0, 0u32), |(sum, count), &x| {
            (sum + f64::from(x).powi(2), count + 1)
        });
        if squares > 0.0 {
            let unit = (squares / f64::from(count)).sqrt();
            pooled.extend(rows.iter().map(|&x| (f64::from(x) / unit) as f32));
        }
    }
    pooled
}

fn spread(groups: &GroupSpread) -> SpreadDescription {
    SpreadDescription {
        median_amax: groups.amax.quantile(0.5),
        amax_octaves: octaves(&groups.amax),
        rms_octaves: octaves(&groups.rms),
        median_crest: groups.crest.quantile(0.5),
    }
}

/// Powers of two between the 5 % and the 95 % quantile of what is not zero.
fn octaves(ratios: &MagnitudeSketch) -> Option<f64> {
    let zeros = ratios.zeros() as f64 / ratios.count().max(1) as f64;
    let quantile = |share: f64| ratios.quantile(zeros + (1.0 - zeros) * share);
    let (low, high) = (quantile(0.05)?, quantile(0.95)?);
    (low > 0.0).then(|| (high / low).log2())
}
