//! What was measured when a decision was made.

use std::collections::BTreeMap;

use mantissa_quant::Numerics;
use serde::{Deserialize, Serialize};

use crate::site::Role;

/// The measurements behind the numerics of one pass. Metrics are kept to four significant digits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// How many steps were sampled.
    pub samples: u64,
    /// The first sampled step.
    pub first_step: u64,
    /// The last sampled step.
    pub last_step: u64,
    /// How many outputs of the product were evaluated.
    pub outputs: u64,
    /// The length of the contraction.
    pub depth: u64,
    /// What the pair costs on the target, in units of the f32 product.
    pub cost: f64,
    /// The product's share of what all products of a step cost in f32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_share: Option<f64>,
    /// The predicted quality loss, in shares of a step's progress; absent where the site's gradients were not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality_loss: Option<f64>,
    /// The upper end of its 95 % confidence interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality_loss_high: Option<f64>,
    /// Backward error of the product: median over the sampled outputs.
    pub backward_error: f64,
    /// The upper end of its 95 % confidence interval, which was held against the bound.
    pub backward_error_high: f64,
    /// Under a budget, the same of the worst of the sampled steps, each by itself: what was accepted, and what a guard, which
    /// measures one step at a time, holds the pass to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backward_error_worst_step: Option<f64>,
    /// The bound at this depth; infinite under a budget.
    pub backward_error_bound: f64,
    /// How far the tightest metric stayed below its bound, as a share of the bound.
    pub margin: f64,
    /// The metric that came nearest to its bound.
    pub tightest: String,
    /// The rule of the policy that bounds it; empty in plans made before rules had names.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rule: String,
    /// Each operand's own error.
    pub operands: BTreeMap<Role, OperandEvidence>,
    /// What would have been chosen if this pair were not a candidate, none where f32 was the first to clear; under a budget,
    /// the next safer pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_up: Option<Alternative>,
    /// Of the cheaper pairs, all of which failed a threshold, the one that missed by least; under a budget, the next cheaper
    /// pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Alternative>,
    /// What promoting this pass alone would gain and cost, where that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion: Option<Promotion>,
}

/// What becomes of a plan if one pass gets safer numerics and everything else stays.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promotion {
    /// The safer numerics.
    pub numerics: BTreeMap<Role, Numerics>,
    /// How much less quality is predicted to be lost, in shares of a step's progress.
    pub gain: f64,
    /// How much more the step's products cost, as a share of their cost in f32.
    pub cost: f64,
    /// Whether it pays for itself: demoting some other pass would save as much time at a smaller loss.
    pub pays: bool,
}

/// One operand's quantization error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperandEvidence {
    /// The share of elements that were not zero and became zero.
    pub underflow: f64,
    /// Under a budget, the upper end of its 95 % confidence interval at the worst of the sampled steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub underflow_worst_step: Option<f64>,
    /// The share of elements beyond the largest value their scale can hold.
    pub saturation: f64,
    /// Magnitude of the mean error as a share of the mean magnitude.
    pub bias: f64,
}

/// A pair that was not chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alternative {
    /// The operands' numerics.
    pub numerics: BTreeMap<Role, Numerics>,
    /// What the pair costs on the target.
    pub cost: f64,
    /// Backward error of the product: median over the sampled outputs.
    pub backward_error: f64,
    /// Its predicted quality loss, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality_loss: Option<f64>,
    /// Why it was not chosen.
    pub reason: String,
}

/// `value` to four significant digits, so that plan files are readable and do not differ in noise.
pub(crate) fn significant(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}
