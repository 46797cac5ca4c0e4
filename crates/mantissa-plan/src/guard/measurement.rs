//! What a pass's operands and their numerics are like at one step of a run.

use std::collections::BTreeMap;

use mantissa_quant::Numerics;
use serde::{Deserialize, Serialize};

use super::settings::Settings;
use crate::drift;
use crate::evaluate::{Evaluator, Excerpt, OperandError, PairError, stream};
use crate::evidence::{Evidence, OperandEvidence, significant};
use crate::policy::{Check, Metric, backward_error_high, tightest};
use crate::profile::PassSample;
use crate::site::{Pass, PassNumerics, Role};

/// Sampled rows of both operands of one pass of one site, from one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The site.
    pub site: String,
    /// The pass.
    pub pass: Pass,
    /// The rows. The products of all rows of the left operand with all of the right are computed exactly, in f64: they
    /// are the full-precision shadow that the quantized product is compared with.
    pub rows: PassSample,
}

/// A pass as it was measured in a running training: a line of `measurements.jsonl`. Metrics are kept to four significant
/// digits; what the sample cannot tell is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// The step.
    pub step: u64,
    /// The site.
    pub site: String,
    /// The pass.
    pub pass: Pass,
    /// Backward error of the product in the numerics in force, against the exact product of the same rows: median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backward_error: Option<f64>,
    /// The upper end of its 95 % confidence interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backward_error_high: Option<f64>,
    /// Its bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backward_error_bound: Option<f64>,
    /// Each operand's own.
    pub operands: BTreeMap<Role, OperandMeasurement>,
}

/// One operand as it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperandMeasurement {
    /// The numerics in force.
    pub numerics: Numerics,
    /// The largest finite magnitude of the whole operand.
    pub amax: f32,
    /// The share of elements that were not zero and became zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub underflow: Option<f64>,
    /// The share of elements that were clipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saturation: Option<f64>,
    /// Magnitude of the mean error as a share of the mean magnitude.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias: Option<f64>,
    /// Degrees of freedom of a Student-t fit, the weight of the tails; of each of a site's three tensors once, where it is
    /// met first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nu: Option<f64>,
}

impl Measurement {
    /// What numerics in force do to sampled rows of a pass: `error`, or nothing that could be measured where they are f32. `bound`
    /// is what its backward error may be. The tails of a site's three tensors are told once, where each is met first.
    pub fn of(
        site: &str,
        pass: Pass,
        rows: &PassSample,
        in_force: PassNumerics,
        error: Option<&PairError>,
        bound: Option<f64>,
    ) -> Self {
        let operand = |side: usize, numerics: Numerics, error: Option<OperandError>| {
            let error = error.filter(|_| !numerics.is_fp32());
            let role = pass.operands()[side];
            let (_, elements, amax) = rows.side(side);
            let is_first = pass == Pass::Forward || role == Role::Grad && pass == Pass::GradLhs;
            let measured = OperandMeasurement {
                numerics,
                amax,
                underflow: error.map(|error| significant(error.underflow.estimate)),
                saturation: error.map(|error| significant(error.saturation.estimate)),
                bias: error.map(|error| significant(error.bias.estimate)),
                nu: is_first
                    .then(|| drift::nu(elements))
                    .flatten()
                    .map(significant),
            };
            (role, measured)
        };
        let product = error.and_then(|error| error.product);
        Measurement {
            step: rows.step,
            site: site.to_string(),
            pass,
            backward_error: product.map(|product| significant(product.median)),
            backward_error_high: product
                .and_then(|product| product.median_interval)
                .map(|interval| significant(interval.high)),
            backward_error_bound: product.and(bound).map(significant),
            operands: BTreeMap::from([
                operand(0, in_force.left, error.map(|error| error.left)),
                operand(1, in_force.right, error.map(|error| error.right)),
            ]),
        }
    }
}

/// A sample that pairs of numerics are tried on.
pub(super) struct Trial<'s> {
    sample: &'s Sample,
    settings: &'s Settings,
    evaluator: Evaluator<'s>,
    depth: usize,
}

impl<'s> Trial<'s> {
    /// `excerpt` is of `sample`; stochastic numerics draw from `seed`.
    pub(super) fn new(
        sample: &'s Sample,
        excerpt: &'s [Excerpt; 1],
        settings: &'s Settings,
        seed: u64,
    ) -> Self {
        let stream = stream(&sample.site, sample.pass).wrapping_add(sample.rows.step << 1);
        Trial {
            sample,
            settings,
            evaluator: Evaluator::new(excerpt, seed, stream),
            depth: excerpt[0].depth(),
        }
    }

    /// The metric of a pair that uses up most of its bound; `None` where the sample has too few rows for a confidence
    /// interval, or nothing but zeros.
    pub(super) fn tightest(&mut self, pair: PassNumerics) -> Option<Check> {
        let error = self.evaluator.pair(pair);
        self.check(&error, None)
    }

    /// The backward error and the underflow that are `agreed` are in budget whatever the thresholds say.
    fn check(&self, error: &PairError, agreed: Option<&Evidence>) -> Option<Check> {
        let thresholds = &self.settings.thresholds;
        let mut error = *error;
        // The rows of one step are too few to bound a bias as small as those allowed: it is taken as it was found.
        for operand in [&mut error.left, &mut error.right] {
            operand.bias.high = operand.bias.estimate;
        }
        backward_error_high(&error).is_finite().then(|| {
            let mut checks = thresholds.checks(self.sample.pass, self.depth, &error);
            if let Some(agreed) = agreed {
                for check in &mut checks {
                    let accepted = match check.operand {
                        None => Some(accepted_backward_error(agreed)),
                        Some(role) if check.metric == Metric::Underflow => {
                            agreed.operands.get(&role).map(accepted_underflow)
                        }
                        Some(_) => None,
                    };
                    check.bound = check.bound.max(accepted.unwrap_or(0.0));
                }
            }
            tightest(checks)
        })
    }

    /// The pass under the numerics in force, as data and as what uses up most of its bound. `agreed` is the evidence of a choice
    /// within a budget.
    pub(super) fn measure(
        &mut self,
        in_force: PassNumerics,
        agreed: Option<&Evidence>,
    ) -> (Measurement, Option<Check>) {
        let Sample { site, pass, rows } = self.sample;
        let error = (!in_force.is_fp32()).then(|| self.evaluator.pair(in_force));
        let bound = self.settings.thresholds.backward_error(*pass, self.depth);
        let bound = bound.max(agreed.map_or(0.0, accepted_backward_error));
        let measurement = Measurement::of(site, *pass, rows, in_force, error.as_ref(), Some(bound));
        let check = error.as_ref().and_then(|error| self.check(error, agreed));
        (measurement, check)
    }
}

/// What a choice within a budget accepted of a step; of all steps together, in plans that do not say.
fn accepted_backward_error(agreed: &Evidence) -> f64 {
    let worst = agreed.backward_error_worst_step;
    worst.unwrap_or(agreed.backward_error_high)
}

/// Likewise of an operand.
fn accepted_underflow(operand: &OperandEvidence) -> f64 {
    operand.underflow_worst_step.unwrap_or(operand.underflow)
}
