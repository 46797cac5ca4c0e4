//! What became of a training step, and why it was skipped.

use std::fmt;

use mantissa_plan::Pass;
use serde::{Deserialize, Serialize};

use crate::session::Fault;

/// What became of a training step.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "schedules and averages must not advance on a skipped step"]
pub enum Step {
    /// The weights were updated.
    Applied {
        /// The unscaled loss, of all ranks together.
        loss: f32,
        /// The scale the loss had.
        loss_scale: f32,
        /// The global L2 norm of the unscaled gradients, before clipping.
        gradient_norm: f64,
    },
    /// Gradients were not finite: no weight and no optimizer state changed.
    Skipped {
        /// Why.
        cause: SkipCause,
    },
}

/// Why a step was skipped. It prints as one sentence; [`remedy`](SkipCause::remedy) says what to do if it goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct SkipCause {
    /// The unscaled loss, of all ranks together.
    pub loss: f32,
    /// The scale the loss had.
    pub loss_scale: f32,
    /// The scale the next loss will have.
    pub next_loss_scale: f32,
    /// The scale that the scaler does not go below; `None` if its scale never moves.
    pub min_loss_scale: Option<f32>,
    /// The parameters whose gradients were not finite, in the model's order.
    pub parameters: Vec<NonFinite>,
    /// The parameters that are not finite themselves, in the model's order.
    pub weights: Vec<NonFinite>,
    /// The operands in which non-finite values were met, in the order of the computation; none without a
    /// [session](crate::MasterOptimizer::with_session).
    pub faults: Vec<Fault>,
    /// Steps skipped since the last that was applied, this one included.
    pub skips_in_a_row: u64,
    /// Whether the scaler's settings end training here: see [`LossScaler::is_exhausted`](crate::LossScaler::is_exhausted).
    pub is_exhausted: bool,
}

/// A parameter, or its gradient, that is not finite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NonFinite {
    /// The parameter's path.
    pub parameter: String,
    /// How many elements are infinite or NaN.
    pub count: u64,
    /// How many elements there are.
    pub elements: u64,
    /// The largest finite magnitude; of a gradient, still scaled.
    pub amax: f32,
}

/// What a skipped step says about the loss scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Weights are infinite or NaN: an earlier update broke them, and no step can succeed.
    BrokenWeights,
    /// The forward pass met infinities or NaNs, before any gradient: a lower scale cannot help.
    BrokenForward,
    /// Only the backward pass overflowed, and the next loss has a lower scale.
    Lowered,
    /// Only the backward pass overflowed, and the scale stays: it is constant, or tolerates some overflows.
    Kept,
    /// Only the backward pass overflowed, at a scale that does not get any lower.
    AtMinimum,
}

impl SkipCause {
    /// What this says about the loss scale.
    pub fn verdict(&self) -> Verdict {
        let broken_operand = |fault: &Fault| fault.pass == Pass::Forward;
        if !self.weights.is_empty() {
            Verdict::BrokenWeights
        } else if !self.loss.is_finite() || self.faults.iter().any(broken_operand) {
            Verdict::BrokenForward
        } else if self.next_loss_scale < self.loss_scale {
            Verdict::Lowered
        } else if self
            .min_loss_scale
            .is_some_and(|min| self.loss_scale <= min)
        {
            Verdict::AtMinimum
        } else {
            Verdict::Kept
        }
    }

    /// What to do if steps keep being skipped for this cause.
    pub fn remedy(&self) -> String {
        let place = match self.faults.first() {
            Some(fault) => format!("{} of {}", fault.role, fault.site),
            None => "the operand that overflows".to_string(),
        };
        match self.verdict() {
            Verdict::BrokenWeights => {
                "go back to a checkpoint with finite weights, and lower the learning rate or clip the gradients".to_string()
            }
            Verdict::BrokenForward => format!(
                "the loss scale is not the cause: look at the data and the learning rate of these steps, or give {place} \
                 a wider format such as bf16"
            ),
            Verdict::Lowered => {
                "the scale is still falling: allow more skipped steps in a row, or begin with a lower scale".to_string()
            }
            Verdict::Kept if self.loss_scale > 1.0 => format!(
                "the scale stays at {}: begin with a lower one, or use a dynamic loss scaling without hysteresis",
                short(self.loss_scale)
            ),
            Verdict::Kept | Verdict::AtMinimum => format!(
                "gradients overflow even at the scale {}, so that it is not the cause: give {place} a wider format such as \
                 bf16, or look for what makes gradients infinite where the loss is not",
                short(self.loss_scale)
            ),
        }
    }
}

impl fmt::Display for SkipCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = self.verdict();
        match (verdict, self.weights.first()) {
            (Verdict::BrokenWeights, Some(weight)) => write!(
                f,
                "the weights are broken, which no loss scale mends: {} of {} elements of {} are not finite",
                weight.count, weight.elements, weight.parameter
            )?,
            (Verdict::BrokenForward, _) => write!(
                f,
                "the forward pass broke, which no loss scale mends: the loss is {}",
                self.loss
            )?,
            _ => write!(
                f,
                "gradients overflowed at loss scale {}",
                short(self.loss_scale)
            )?,
        }
        if let Some(fault) = self.faults.first() {
            write!(f, "; first {fault}")?;
        }
        if let Some(first) = self.parameters.first() {
            let parameters = match self.parameters.len() {
                1 => "1 parameter".to_string(),
                count => format!("{count} parameters"),
            };
            write!(
                f,
                "; {parameters} with non-finite gradients, first {} ({} of {} elements, largest finite {:e})",
                first.parameter, first.count, first.elements, first.amax
            )?;
        }
        match verdict {
            Verdict::Lowered => write!(f, "; next loss scale {}", short(self.next_loss_scale)),
            Verdict::AtMinimum => f.write_str("; the scale does not get any lower"),
            Verdict::BrokenWeights | Verdict::BrokenForward | Verdict::Kept => Ok(()),
        }
    }
}

/// A scale in few digits.
fn short(scale: f32) -> String {
    if (1e-4..1e7).contains(&scale) {
        scale.to_string()
    } else {
        format!("{scale:e}")
    }
}
