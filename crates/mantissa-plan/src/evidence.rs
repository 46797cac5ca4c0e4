//! What was measured when a decision was made.

use mantissa_quant::Numerics;
use serde::{Deserialize, Serialize};

/// The measurements behind the numerics of one pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The steps sampled: how many, the first and the last.
    pub samples: u64,
    /// The first sampled step.
    pub first_step: u64,
    /// The last sampled step.
    pub last_step: u64,
    /// How many outputs of the product were evaluated.
    pub outputs: u64,
    /// What the pair costs on the target, in units of the f32 product.
    pub cost: f64,
    /// Backward error of the product: median over the sampled outputs.
    pub backward_error: f64,
    /// The upper end of its confidence interval, which was held against the bound.
    pub backward_error_high: f64,
    /// The bound.
    pub backward_error_bound: f64,
    /// How far the tightest metric stayed below its bound, as a share of the bound; negative where nothing cleared.
    pub margin: f64,
    /// The metric that came nearest to its bound.
    pub tightest: String,
    /// The left operand's own error.
    pub left: OperandEvidence,
    /// The right operand's own error.
    pub right: OperandEvidence,
    /// What would have been chosen if this pair were not a candidate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_up: Option<Alternative>,
    /// The best of the cheaper pairs, all of which failed a threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Alternative>,
}

/// One operand's quantization error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperandEvidence {
    /// The share of elements that were not zero and became zero.
    pub underflow: f64,
    /// The share of elements beyond the largest value their scale can hold.
    pub saturation: f64,
    /// Magnitude of the mean error as a share of the mean magnitude.
    pub bias: f64,
}

/// A pair that was not chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alternative {
    /// The left operand's numerics.
    pub left: Numerics,
    /// The right operand's numerics.
    pub right: Numerics,
    /// What the pair costs on the target.
    pub cost: f64,
    /// Backward error of the product: median over the sampled outputs.
    pub backward_error: f64,
    /// Why it was not chosen.
    pub reason: String,
}
