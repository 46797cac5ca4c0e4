//! What became of a training step, and why it was skipped.

use std::fmt;

use crate::session::Fault;

/// What became of a training step.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "schedules and averages must not advance on a skipped step"]
pub enum Step {
    /// The weights were updated.
    Applied {
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

/// Why a step was skipped.
#[derive(Clone, Debug, PartialEq)]
pub struct SkipCause {
    /// The unscaled loss. If it is not finite, the forward pass broke and no loss scale helps.
    pub loss: f32,
    /// The scale the loss had.
    pub loss_scale: f32,
    /// The scale the next loss will have.
    pub next_loss_scale: f32,
    /// The parameters whose gradients were not finite, in the model's order.
    pub parameters: Vec<NonFiniteGradient>,
    /// The operands in which non-finite values were met, in the order of the computation.
    pub faults: Vec<Fault>,
}

/// A parameter whose gradient was not finite.
#[derive(Clone, Debug, PartialEq)]
pub struct NonFiniteGradient {
    /// The parameter's path.
    pub parameter: String,
    /// How many elements were infinite or NaN.
    pub count: u64,
    /// The largest finite magnitude, still scaled.
    pub amax: f32,
}

impl fmt::Display for SkipCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.loss.is_finite() {
            write!(
                f,
                "the loss is {}: the forward pass broke, which no loss scale mends",
                self.loss
            )?;
        } else {
            write!(f, "gradients overflowed at loss scale {}", self.loss_scale)?;
        }
        if let Some(fault) = self.faults.first() {
            write!(f, "; first {fault}")?;
        }
        if let Some(first) = self.parameters.first() {
            write!(
                f,
                "; {} parameters with non-finite gradients, first {} ({} elements, largest finite {:e})",
                self.parameters.len(),
                first.parameter,
                first.count,
                first.amax
            )?;
        }
        if self.loss.is_finite() && self.next_loss_scale < self.loss_scale {
            write!(f, "; next loss scale {}", self.next_loss_scale)?;
        }
        Ok(())
    }
}
