//! What every candidate would do to every measured product, and what follows from that.
//!
//! A profile's samples are quantized under each candidate; nothing is trained. [`WhatIf`] says which pairs of numerics
//! are tried, [`SiteOutcome`] and [`PassOutcome`] hold what became of them, [`summarize`] looks over sites, and
//! [`advice`] and [`prediction`] put it in words.
//!
//! ```
//! use mantissa_formats::RandomBits;
//! use mantissa_metrics::sample::student_t;
//! use mantissa_plan::whatif::{WhatIf, select};
//! use mantissa_plan::{OperandStatistics, Pass, PassSample, Profile, Site, SiteKind};
//!
//! // One step's forward operands: 16 rows of each, 128 deep, with heavy tails.
//! let [left, right] = [0, 1].map(|stream| student_t(3.0, RandomBits::new(1, stream), 16 * 128));
//! let amax = |rows: &[f32]| rows.iter().fold(0f32, |top, x| top.max(x.abs()));
//! let (left_amax, right_amax) = (amax(&left), amax(&right));
//! let statistics = |amax, rows: &[f32]| OperandStatistics::of(0, [1, 16, 128], amax, rows);
//! let (l, r) = (statistics(left_amax, &left), statistics(right_amax, &right));
//! let sample = PassSample {
//!     step: 0, batch: 1, outer_left: 16, outer_right: 16, depth: 128, left, right, left_amax, right_amax,
//! };
//! let mut profile = Profile::new(&[Site::new("encoder.query", SiteKind::Linear)]);
//! profile.record("encoder.query", Pass::Forward, sample, l, r)?;
//!
//! let sites = select(&profile, Some("encoder.*"))?;
//! let outcome = WhatIf::default().site(sites[0]);
//! let error_of = |token: &str| {
//!     outcome.passes[0].same(token.parse().unwrap()).unwrap().product.unwrap().median
//! };
//! assert!(error_of("int8/block32") < error_of("e4m3/block32"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod advice;
mod grid;
pub mod prediction;
mod summary;

use globset::Glob;
use mantissa_metrics::fit_student_t;
use mantissa_quant::Numerics;
use rayon::prelude::*;

use crate::evaluate::{Evaluator, Excerpt, PairError, stream};
use crate::names;
use crate::profile::{PassProfile, Profile, SiteProfile};
use crate::site::{Pass, PassNumerics, Site, SiteKind};

pub use grid::grid;
pub use summary::{Spread, Summary, Worst, summarize};

/// Which pairs of numerics are tried, and on how much of the samples.
#[derive(Clone, Debug, PartialEq)]
pub struct WhatIf {
    /// The pairs.
    pub pairs: Pairs,
    /// About how many outputs of each pass's product are evaluated, over all its samples.
    pub outputs: usize,
    /// Keys the random bits of stochastic rounding.
    pub seed: u64,
}

/// Pairs of numerics for the two operands of a product.
#[derive(Clone, Debug, PartialEq)]
pub enum Pairs {
    /// Each of these for both operands.
    Same(Vec<Numerics>),
    /// Each of these for the left operand with each of them for the right one.
    All(Vec<Numerics>),
    /// These.
    Asked(Vec<PassNumerics>),
}

/// What became of the passes of one site.
#[derive(Clone, Debug, PartialEq)]
pub struct SiteOutcome {
    /// The site.
    pub site: Site,
    /// The measured passes, in the order of [`Pass::ALL`].
    pub passes: Vec<PassOutcome>,
}

/// What became of one pass.
#[derive(Clone, Debug, PartialEq)]
pub struct PassOutcome {
    /// The pass.
    pub pass: Pass,
    /// Sampled steps.
    pub samples: usize,
    /// Evaluated rows of either operand, over all samples.
    pub rows: [usize; 2],
    /// Evaluated outputs of the product.
    pub outputs: usize,
    /// The length of the contraction; the largest where samples differ.
    pub depth: usize,
    /// Degrees of freedom of a Student-t distribution fitted to either operand; `None` where nothing can be fitted, as
    /// to the output of a rectifier.
    pub nu: [Option<f64>; 2],
    /// The pairs, in the order in which they were asked for.
    pub pairs: Vec<PairError>,
}

/// Why nothing can be evaluated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelectError {
    /// There is nothing to evaluate.
    #[error("the profile holds no measurement; measure at least one training step")]
    Empty,
    /// The glob is not one.
    #[error("`{glob}` is not a glob: {fault}")]
    Glob {
        /// What was to be one.
        glob: String,
        /// What is wrong with it.
        fault: String,
    },
    /// No measured site has such a name.
    #[error("no measured site is named like `{glob}`; {hint}")]
    NoSite {
        /// The glob.
        glob: String,
        /// The nearest names.
        hint: String,
    },
}

/// The measured sites of a profile whose names match a glob such as `encoder.layers.*.mha.*`; all of them without one.
///
/// # Errors
/// If there are none, with the nearest names.
pub fn select<'p>(
    profile: &'p Profile,
    glob: Option<&str>,
) -> Result<Vec<&'p SiteProfile>, SelectError> {
    let measured: Vec<&SiteProfile> = profile
        .sites
        .iter()
        .filter(|site| site.passes.values().any(|pass| !pass.samples.is_empty()))
        .collect();
    if measured.is_empty() {
        return Err(SelectError::Empty);
    }
    let Some(glob) = glob else {
        return Ok(measured);
    };
    let matcher = Glob::new(glob)
        .map_err(|error| SelectError::Glob {
            glob: glob.to_string(),
            fault: error.kind().to_string(),
        })?
        .compile_matcher();
    let known = || measured.iter().map(|site| site.site.name.as_str());
    let nearest = names::ranked(glob, known());
    let matched: Vec<&SiteProfile> = measured
        .iter()
        .copied()
        .filter(|site| matcher.is_match(&site.site.name))
        .collect();
    if matched.is_empty() {
        let hint = match nearest.as_slice() {
            [] => format!("it has {}", names::listed(&known().collect::<Vec<_>>(), 3)),
            nearest => format!("the nearest are {}", names::listed(nearest, 3)),
        };
        return Err(SelectError::NoSite {
            glob: glob.to_string(),
            hint,
        });
    }
    Ok(matched)
}

impl Default for WhatIf {
    /// The [`grid`], the same for both operands; 16,384 outputs a pass.
    fn default() -> Self {
        WhatIf {
            pairs: Pairs::Same(grid()),
            outputs: 1 << 14,
            seed: 0,
        }
    }
}

impl WhatIf {
    /// What becomes of every measured pass of a site. The result depends on the samples and the settings alone.
    pub fn site(&self, measured: &SiteProfile) -> SiteOutcome {
        self.passes(measured, &Pass::ALL)
    }

    /// What becomes of these passes of a site, as far as they were measured.
    pub fn passes(&self, measured: &SiteProfile, wanted: &[Pass]) -> SiteOutcome {
        let passes: Vec<(Pass, &PassProfile)> = measured
            .passes
            .iter()
            .filter(|(pass, profile)| wanted.contains(pass) && !profile.samples.is_empty())
            .map(|(&pass, profile)| (pass, profile))
            .collect();
        SiteOutcome {
            site: measured.site.clone(),
            passes: passes
                .into_par_iter()
                .map(|(pass, profile)| self.pass(&measured.site.name, pass, profile))
                .collect(),
        }
    }

    fn pass(&self, site: &str, pass: Pass, measured: &PassProfile) -> PassOutcome {
        let per_sample = self.outputs.div_ceil(measured.samples.len().max(1));
        let excerpts: Vec<Excerpt> = measured
            .samples
            .iter()
            .map(|sample| Excerpt::new(sample, per_sample))
            .collect();
        let nu = [0, 1].map(|side| {
            let rows: Vec<&[f32]> = excerpts.iter().map(|excerpt| excerpt.rows(side)).collect();
            fit_student_t(&rows.concat()).map(|fit| fit.nu)
        });
        let rows = [0, 1].map(|side| excerpts.iter().map(|excerpt| excerpt.row_count(side)).sum());
        let evaluator = Evaluator::new(&excerpts, self.seed, stream(site, pass));
        PassOutcome {
            pass,
            samples: excerpts.len(),
            rows,
            outputs: excerpts.iter().map(Excerpt::outputs).sum(),
            depth: excerpts.iter().map(Excerpt::depth).max().unwrap_or(0),
            nu,
            pairs: self.pairs.evaluate(evaluator),
        }
    }
}

impl Pairs {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Pairs::Same(numerics) => numerics.len(),
            Pairs::All(numerics) => numerics.len() * numerics.len(),
            Pairs::Asked(pairs) => pairs.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// In an order that keeps as little in memory as it can.
    fn evaluate(&self, mut evaluator: Evaluator) -> Vec<PairError> {
        match self {
            Pairs::Same(all) => all
                .iter()
                .map(|&numerics| {
                    let error = evaluator.pair(PassNumerics::both(numerics));
                    evaluator.forget(0);
                    evaluator.forget(1);
                    error
                })
                .collect(),
            Pairs::All(all) => {
                let mut errors = Vec::with_capacity(self.len());
                for &left in all {
                    errors.extend(
                        all.iter()
                            .map(|&right| evaluator.pair(PassNumerics { left, right })),
                    );
                    evaluator.forget(0);
                }
                errors
            }
            Pairs::Asked(pairs) => pairs.iter().map(|&pair| evaluator.pair(pair)).collect(),
        }
    }
}

impl PassOutcome {
    /// What these numerics did for both operands, if they were tried.
    pub fn same(&self, numerics: Numerics) -> Option<&PairError> {
        let wanted = PassNumerics::both(numerics);
        self.pairs.iter().find(|error| error.numerics == wanted)
    }
}

impl SiteOutcome {
    /// Whether this pass's product is the gradient of a weight: what an optimizer makes its step of.
    pub fn is_weight_gradient(&self, pass: Pass) -> bool {
        self.site.kind == SiteKind::Linear && pass == Pass::GradRhs
    }
}

/// The median backward error; infinite where there is none, so that it sorts last.
pub(crate) fn median(error: &PairError) -> f64 {
    error
        .product
        .map_or(f64::INFINITY, |product| product.median)
}
