//! The cheapest pair of numerics that clears the thresholds with confidence.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::evaluate::{Evaluator, Excerpt, PairError, stream};
use crate::evidence::{Alternative, Evidence, OperandEvidence, significant};
use crate::loss_scaling::LossScaling;
use crate::plan::{Plan, PlanError, PlannedSite, Source};
use crate::policy::{Check, Policy, backward_error_high};
use crate::profile::{PassProfile, Profile, SiteProfile};
use crate::site::{Pass, PassNumerics, Role, SiteNumerics};
use crate::warning::unscaled_gradient;

/// Why no plan can be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChooseError {
    /// There is nothing to choose from.
    #[error("the profile holds no measurement; measure at least one training step")]
    Empty,
    /// The profile names a site twice.
    #[error("the profile cannot become a plan: {0}")]
    Plan(#[from] PlanError),
}

/// Chooses numerics for every pass of every site of a profile: the cheapest candidate pair whose metrics clear the
/// policy's thresholds with confidence, and among pairs of equal cost the one with the smallest backward error.
///
/// Embeddings multiply nothing and passes that were not measured tell nothing; they stay in f32. The result depends on
/// the profile and the policy alone.
pub fn choose(profile: &Profile, policy: &Policy) -> Result<Plan, ChooseError> {
    if profile.steps().is_empty() {
        return Err(ChooseError::Empty);
    }
    let sites: Vec<PlannedSite> = profile
        .sites
        .par_iter()
        .map(|measured| choose_site(measured, policy))
        .collect();
    let source = Source::Profile {
        target: policy.target.name.clone(),
        steps: profile.steps(),
    };
    let unscaled = |site: &PlannedSite| unscaled_gradient(&site.numerics).is_some();
    let loss_scaling = if sites.iter().any(unscaled) {
        LossScaling::dynamic()
    } else {
        LossScaling::None
    };
    Ok(Plan::new(source, loss_scaling, sites)?)
}

fn choose_site(measured: &SiteProfile, policy: &Policy) -> PlannedSite {
    let mut planned = PlannedSite::unmeasured(&measured.site, SiteNumerics::FP32);
    let decisions: BTreeMap<Pass, (PassNumerics, Evidence)> = measured
        .passes
        .iter()
        .map(|(&pass, measured_pass)| {
            (
                pass,
                choose_pass(&measured.site.name, pass, measured_pass, policy),
            )
        })
        .collect();
    for (pass, (numerics, evidence)) in decisions {
        *planned.numerics.pass_mut(pass) = numerics;
        planned.evidence.insert(pass, evidence);
    }
    planned
}

/// A pair with its cost and its metrics.
struct Candidate {
    cost: f64,
    error: PairError,
    tightest: Check,
}

impl Candidate {
    fn clears(&self) -> bool {
        self.error.numerics.is_fp32() || self.tightest.used() <= 1.0
    }

    fn median(&self) -> f64 {
        self.error
            .product
            .map_or(f64::INFINITY, |product| product.median)
    }
}

fn choose_pass(
    site: &str,
    pass: Pass,
    measured: &PassProfile,
    policy: &Policy,
) -> (PassNumerics, Evidence) {
    let per_sample = policy.outputs.div_ceil(measured.samples.len().max(1));
    let excerpts: Vec<Excerpt> = measured
        .samples
        .iter()
        .map(|sample| Excerpt::new(sample, per_sample))
        .collect();
    let depth = excerpts.iter().map(Excerpt::depth).max().unwrap_or(1);
    let mut evaluator = Evaluator::new(&excerpts, policy.seed, stream(site, pass));
    let mut pairs: Vec<(f64, PassNumerics)> = policy
        .candidates
        .pairs(pass)
        .into_iter()
        .map(|pair| (policy.target.cost(&pair, depth), pair))
        .collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));

    // Cheapest first, one group of equal cost after the other, until two pairs cleared or f32 did.
    let mut cleared: Vec<Candidate> = Vec::new();
    let mut failed: Vec<Candidate> = Vec::new();
    for group in pairs.chunk_by(|a, b| a.0 == b.0) {
        let mut clear_here = Vec::new();
        for &(cost, pair) in group {
            let error = evaluator.pair(pair);
            let candidate = Candidate {
                cost,
                tightest: policy.thresholds.tightest(pass, depth, &error),
                error,
            };
            if candidate.clears() {
                clear_here.push(candidate);
            } else if cleared.is_empty() {
                failed.push(candidate);
            }
        }
        clear_here.sort_by(|a, b| a.median().total_cmp(&b.median()));
        cleared.extend(clear_here);
        let full_precision = cleared
            .iter()
            .any(|candidate| candidate.error.numerics.is_fp32());
        if cleared.len() > 1 || full_precision {
            break;
        }
    }
    let mut cleared = cleared.into_iter();
    let chosen = cleared
        .next()
        .expect("f32 is always among the pairs and always clears");
    let runner_up = cleared.next();
    let nearest_miss = failed
        .into_iter()
        .filter(|candidate| candidate.cost < chosen.cost)
        .min_by(|a, b| a.tightest.used().total_cmp(&b.tightest.used()));
    let evidence = evidence(
        pass,
        depth,
        measured,
        policy,
        &chosen,
        runner_up.as_ref(),
        nearest_miss.as_ref(),
    );
    (chosen.error.numerics, evidence)
}

fn evidence(
    pass: Pass,
    depth: usize,
    measured: &PassProfile,
    policy: &Policy,
    chosen: &Candidate,
    runner_up: Option<&Candidate>,
    nearest_miss: Option<&Candidate>,
) -> Evidence {
    let steps = || measured.samples.iter().map(|sample| sample.step);
    let operand = |error: &crate::evaluate::OperandError| OperandEvidence {
        underflow: significant(error.underflow.estimate),
        saturation: significant(error.saturation.estimate),
        bias: significant(error.bias.estimate),
    };
    let [left_role, right_role]: [Role; 2] = pass.operands();
    Evidence {
        samples: measured.samples.len() as u64,
        first_step: steps().min().unwrap_or(0),
        last_step: steps().max().unwrap_or(0),
        outputs: chosen.error.product.map_or(0, |product| product.count),
        depth: depth as u64,
        cost: chosen.cost,
        backward_error: significant(chosen.error.product.map_or(0.0, |product| product.median)),
        backward_error_high: significant(backward_error_high(&chosen.error)),
        backward_error_bound: significant(policy.thresholds.backward_error(pass, depth)),
        margin: significant(1.0 - chosen.tightest.used()),
        tightest: chosen.tightest.metric.clone(),
        operands: BTreeMap::from([
            (left_role, operand(&chosen.error.left)),
            (right_role, operand(&chosen.error.right)),
        ]),
        runner_up: runner_up
            .map(|candidate| alternative(pass, candidate, behind(candidate, chosen))),
        rejected: nearest_miss.map(|candidate| alternative(pass, candidate, missed(candidate))),
    }
}

fn alternative(pass: Pass, candidate: &Candidate, reason: String) -> Alternative {
    let numerics = candidate.error.numerics;
    let [left_role, right_role] = pass.operands();
    Alternative {
        numerics: BTreeMap::from([(left_role, numerics.left), (right_role, numerics.right)]),
        cost: candidate.cost,
        backward_error: significant(candidate.median()),
        reason,
    }
}

fn behind(candidate: &Candidate, chosen: &Candidate) -> String {
    if candidate.cost > chosen.cost {
        "it clears the thresholds too, at a higher cost".to_string()
    } else {
        "it clears the thresholds at the same cost, with a larger backward error".to_string()
    }
}

fn missed(candidate: &Candidate) -> String {
    let Check {
        metric,
        high,
        bound,
    } = &candidate.tightest;
    if candidate.error.product.is_none() {
        "the samples hold nothing but zeros or non-finite products".to_string()
    } else if high.is_finite() {
        format!("{metric} may be {:.3e}, beyond {:.3e}", high, bound)
    } else if candidate.median().is_finite() {
        "the samples have too few rows for a confidence interval".to_string()
    } else {
        format!("{metric} is not finite")
    }
}
