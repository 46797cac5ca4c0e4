//! A skipped step as data.

use mantissa::SkipCause;
use mantissa::optimizer::{NonFinite, Verdict};
use mantissa::plan::{Pass, Role};
use serde::{Deserialize, Serialize};

/// Why a step was skipped, and what that means for those to come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SkipRecord {
    /// What it says about the loss scale.
    pub verdict: Verdict,
    /// The scale of the next loss.
    pub next_loss_scale: f32,
    /// Steps skipped since the last that was applied, this one included.
    pub skips_in_a_row: u64,
    /// Whether the loss scaling ends training here, at its smallest scale.
    pub exhausted: bool,
    /// The first operand, in the order of the computation, with non-finite values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<OperandRecord>,
    /// The parameters whose gradients are not finite; magnitudes are those of the scaled gradients.
    pub gradients: Vec<NonFinite>,
    /// The parameters that are not finite themselves.
    pub weights: Vec<NonFinite>,
    /// What to do if steps keep being skipped.
    pub remedy: String,
}

/// An operand with non-finite values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperandRecord {
    /// The site.
    pub site: String,
    /// The pass.
    pub pass: Pass,
    /// The operand.
    pub operand: Role,
    /// How many elements are infinite or NaN.
    pub count: u64,
}

impl SkipRecord {
    /// The data of a cause.
    pub fn of(cause: &SkipCause) -> Self {
        Self {
            verdict: cause.verdict(),
            next_loss_scale: cause.next_loss_scale,
            skips_in_a_row: cause.skips_in_a_row,
            exhausted: cause.is_exhausted,
            first: cause.faults.first().map(|fault| OperandRecord {
                site: fault.site.clone(),
                pass: fault.pass,
                operand: fault.role,
                count: fault.count,
            }),
            gradients: cause.parameters.clone(),
            weights: cause.weights.clone(),
            remedy: cause.remedy(),
        }
    }
}
