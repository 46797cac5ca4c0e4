//! Loss scaling: multiplying the loss, and so every gradient, so that small gradients survive in narrow formats.
//!
//! The types carry the order of things: a loss becomes a [`ScaledLoss`], its backward pass gives
//! [`ScaledGradients`] that remember their scale, and only
//! [`MasterOptimizer::step`](crate::MasterOptimizer::step) takes those, unscales them by *that* scale, and then lets
//! the scaler move.
//!
//! A scaler is settings, a [`LossScaling`], and a state. States are plain data too, and each moves by a pure function
//! `after`, from one step's [`Observation`].
//!
//! | settings | state |
//! |---|---|
//! | [`DynamicScaling`] | [`DynamicState`] |
//! | [`EnhancedScaling`] | [`EnhancedState`] |
//! | [`LogMaxScaling`] | [`LogMaxState`] |
//! | [`UnderflowScaling`] | [`UnderflowState`] |

mod dynamic;
mod enhanced;
mod log_max;
mod observation;
mod underflow;

use std::cell::Cell;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Gradients, Tensor};
use mantissa_plan::loss_scaling::{
    DynamicScaling, EnhancedScaling, LogMaxScaling, UnderflowScaling,
};
use mantissa_plan::{LossScaling, LossScalingError, Plan};
use serde::{Deserialize, Serialize};

pub use dynamic::DynamicState;
pub use enhanced::{EnhancedState, StallWatch};
pub use log_max::LogMaxState;
pub use observation::Observation;
pub use underflow::UnderflowState;

/// Decides the loss scale of each step. Serializable: it is complete, and belongs into every checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossScaler {
    policy: Policy,
    skips_in_a_row: u64,
}

/// Settings with their state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Policy {
    None,
    Constant(f32),
    Dynamic {
        settings: DynamicScaling,
        state: DynamicState,
    },
    Enhanced {
        settings: EnhancedScaling,
        state: EnhancedState,
    },
    LogMax {
        settings: LogMaxScaling,
        state: LogMaxState,
    },
    UnderflowAware {
        settings: UnderflowScaling,
        state: UnderflowState,
    },
}

impl LossScaler {
    /// A scaler before its first step.
    ///
    /// # Errors
    /// If the settings contradict each other.
    pub fn new(scaling: &LossScaling) -> Result<Self, LossScalingError> {
        scaling.check()?;
        let policy = match scaling.clone() {
            LossScaling::None => Policy::None,
            LossScaling::Constant(scale) => Policy::Constant(scale),
            LossScaling::Dynamic(settings) => Policy::Dynamic {
                state: DynamicState::new(&settings),
                settings,
            },
            LossScaling::Enhanced(settings) => Policy::Enhanced {
                state: EnhancedState::new(&settings),
                settings,
            },
            LossScaling::LogMax(settings) => Policy::LogMax {
                state: LogMaxState::new(&settings),
                settings,
            },
            LossScaling::UnderflowAware(settings) => Policy::UnderflowAware {
                state: UnderflowState::new(&settings),
                settings,
            },
        };
        Ok(Self {
            policy,
            skips_in_a_row: 0,
        })
    }

    /// The scaler that `plan` asks for.
    ///
    /// # Panics
    /// If somebody put settings into the plan, after it was made, that contradict each other.
    pub fn for_plan(plan: &Plan) -> Self {
        Self::new(&plan.loss_scaling).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The loss is not scaled. Non-finite gradients still skip the step.
    pub const fn none() -> Self {
        Self {
            policy: Policy::None,
            skips_in_a_row: 0,
        }
    }

    /// The same scale in every step (Micikevicius et al. 2018, section 3.2).
    ///
    /// # Panics
    /// If it is not finite and positive.
    pub fn constant(scale: f32) -> Self {
        Self::new(&LossScaling::Constant(scale)).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The settings.
    pub fn scaling(&self) -> LossScaling {
        match &self.policy {
            Policy::None => LossScaling::None,
            Policy::Constant(scale) => LossScaling::Constant(*scale),
            Policy::Dynamic { settings, .. } => LossScaling::Dynamic(*settings),
            Policy::Enhanced { settings, .. } => LossScaling::Enhanced(settings.clone()),
            Policy::LogMax { settings, .. } => LossScaling::LogMax(*settings),
            Policy::UnderflowAware { settings, .. } => LossScaling::UnderflowAware(*settings),
        }
    }

    /// The scale of the next loss.
    pub fn loss_scale(&self) -> f32 {
        match &self.policy {
            Policy::None => 1.0,
            Policy::Constant(scale) => *scale,
            Policy::Dynamic { state, .. } => state.scale,
            Policy::Enhanced { state, .. } => state.dynamic.scale,
            Policy::LogMax { state, .. } => state.scale,
            Policy::UnderflowAware { state, .. } => state.scale,
        }
    }

    /// The scale that the scaler does not go below after the next step; `None` if the scale never moves.
    pub fn min_scale(&self) -> Option<f32> {
        match &self.policy {
            Policy::None | Policy::Constant(_) => None,
            Policy::Dynamic { settings, .. } => Some(settings.min_scale),
            Policy::Enhanced { state, .. } => Some(state.floor),
            Policy::LogMax { settings, .. } => Some(settings.min_scale),
            Policy::UnderflowAware { settings, .. } => Some(settings.min_scale),
        }
    }

    /// Steps skipped since the last that was applied.
    pub fn skips_in_a_row(&self) -> u64 {
        self.skips_in_a_row
    }

    /// Whether the last step overflowed at the smallest scale of settings that end training there (`stop_at_min`).
    pub fn is_exhausted(&self) -> bool {
        match &self.policy {
            Policy::Dynamic { settings, state } => settings.stop_at_min && state.exhausted,
            _ => false,
        }
    }

    /// Whether [`observe`](Self::observe) wants the exponents of the gradients.
    pub fn wants_exponents(&self) -> bool {
        matches!(self.policy, Policy::UnderflowAware { .. })
    }

    /// Multiplies `loss` by the current scale.
    pub fn scale(&self, loss: Tensor<1>) -> ScaledLoss {
        let loss_scale = self.loss_scale();
        let unscaled = loss.clone().detach();
        let scaled = if loss_scale == 1.0 {
            loss
        } else {
            loss.mul_scalar(loss_scale)
        };
        ScaledLoss {
            scaled,
            unscaled,
            loss_scale,
        }
    }

    /// Moves the scale after a step.
    pub fn observe(&mut self, observed: &Observation) {
        match &mut self.policy {
            Policy::None | Policy::Constant(_) => {}
            Policy::Dynamic { settings, state } => {
                *state = state.after(settings, observed.overflowed);
            }
            Policy::Enhanced { settings, state } => *state = state.after(settings, observed),
            Policy::LogMax { settings, state } => *state = state.after(settings, observed),
            Policy::UnderflowAware { settings, state } => *state = state.after(settings, observed),
        }
        self.skips_in_a_row = if observed.overflowed {
            self.skips_in_a_row + 1
        } else {
            0
        };
    }

    /// Checks a scaler that was read from a file.
    ///
    /// # Errors
    /// If its settings contradict each other, or its scale lies outside their bounds.
    pub fn check(&self) -> Result<(), String> {
        let scaling = self.scaling();
        scaling.check().map_err(|error| error.to_string())?;
        let max_scale = match &scaling {
            LossScaling::None | LossScaling::Constant(_) => return Ok(()),
            LossScaling::Dynamic(settings) => settings.max_scale,
            LossScaling::Enhanced(settings) => settings.dynamic.max_scale,
            LossScaling::LogMax(settings) => settings.max_scale,
            LossScaling::UnderflowAware(settings) => settings.max_scale,
        };
        let (scale, min_scale) = (self.loss_scale(), self.min_scale().unwrap_or(0.0));
        if (min_scale..=max_scale).contains(&scale) {
            Ok(())
        } else {
            Err(format!(
                "the loss scale {scale} lies outside {min_scale} to {max_scale}"
            ))
        }
    }
}

thread_local! {
    /// What the gradients that flow on this thread are multiplied with.
    static IN_BACKWARD: Cell<f32> = const { Cell::new(1.0) };
}

/// The scale of the loss whose backward pass is under way, 1 where there is none.
pub(crate) fn loss_scale_in_backward() -> f32 {
    IN_BACKWARD.get()
}

struct Restore(f32);

impl Drop for Restore {
    fn drop(&mut self) {
        IN_BACKWARD.set(self.0);
    }
}

/// A loss times its scale.
#[derive(Debug)]
pub struct ScaledLoss {
    scaled: Tensor<1>,
    unscaled: Tensor<1>,
    loss_scale: f32,
}

impl ScaledLoss {
    /// The backward pass.
    pub fn backward(self) -> ScaledGradients {
        let before = IN_BACKWARD.replace(self.loss_scale);
        let _restore = Restore(before);
        ScaledGradients {
            gradients: self.scaled.backward(),
            loss: self.unscaled,
            loss_scale: self.loss_scale,
        }
    }
}

/// Gradients of a scaled loss, with the scale they carry.
pub struct ScaledGradients {
    pub(crate) gradients: Gradients,
    pub(crate) loss: Tensor<1>,
    pub(crate) loss_scale: f32,
}

impl ScaledGradients {
    /// The gradients of `model`'s parameters as Burn's training loops carry them; those that are stored in fewer bits
    /// widened, so that they can be added up.
    pub fn by_parameter<M: Module>(self, model: &M) -> ParameterGradients {
        ParameterGradients {
            gradients: crate::optimizer::by_parameter(self.gradients, model),
            loss: self.loss,
            loss_scale: self.loss_scale,
        }
    }
}

/// Gradients of a scaled loss, parameter by parameter, for training loops that carry Burn's [`GradientsParams`] and call
/// [`MasterOptimizer::step_by_parameter`](crate::MasterOptimizer::step_by_parameter).
pub struct ParameterGradients {
    /// The gradients, still scaled. Of several losses with the same scale they may be added up.
    pub gradients: GradientsParams,
    /// The unscaled loss, of one element.
    pub loss: Tensor<1>,
    /// The scale that the gradients carry.
    pub loss_scale: f32,
}
