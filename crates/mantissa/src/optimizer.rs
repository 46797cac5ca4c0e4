//! From scaled gradients to an update of the FP32 master weights, or a skipped step.

use std::fmt;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{GradientsParams, LearningRate, ModuleOptimizer, OptimizerRecord};
use burn::tensor::Tensor;

use crate::product::scan;
use crate::scaler::{LossScaler, ScaledGradients};
use crate::session::{Fault, Session};

/// What became of a training step.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "schedules and averages must not advance on a skipped step"]
pub enum Step {
    /// The weights were updated.
    Applied {
        /// The scale the loss had.
        loss_scale: f32,
        /// The global L2 norm of the unscaled gradients before clipping, where clipping is on.
        gradient_norm: Option<f64>,
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

/// A Burn optimizer over the model's FP32 parameters, the master weights: products quantize them anew in each pass,
/// updates never do.
#[derive(Clone)]
pub struct MasterOptimizer {
    optimizer: ModuleOptimizer,
    session: Option<Session>,
    max_norm: Option<f64>,
}

impl MasterOptimizer {
    /// Wraps an optimizer. Gradient clipping belongs to [`with_max_norm`](Self::with_max_norm): Burn's own would
    /// clip tensor by tensor.
    pub fn new(optimizer: impl Into<ModuleOptimizer>) -> Self {
        Self {
            optimizer: optimizer.into(),
            session: None,
            max_norm: None,
        }
    }

    /// Lets a skipped step name the operands of `session` that overflowed.
    pub fn with_session(mut self, session: &Session) -> Self {
        self.session = Some(session.clone());
        self
    }

    /// Scales unscaled gradients down to a global L2 norm of at most `max_norm`.
    pub fn with_max_norm(mut self, max_norm: f64) -> Self {
        self.max_norm = Some(max_norm);
        self
    }

    /// Unscales `gradients` by the scale of their own loss and updates `model`; or leaves both model and optimizer
    /// as they are if a gradient is not finite. Then moves `scaler`.
    pub fn step<M: Module>(
        &mut self,
        learning_rate: LearningRate,
        model: &mut M,
        gradients: ScaledGradients,
        scaler: &mut LossScaler,
    ) -> Step {
        let ScaledGradients {
            gradients,
            loss,
            loss_scale,
        } = gradients;
        let mut unscaler = Unscaler {
            gradients: GradientsParams::from_grads(gradients, model),
            inverse: (1.0 / f64::from(loss_scale)) as f32,
            square_norm: self.max_norm.map(|_| 0.0),
            path: Vec::new(),
            non_finite: Vec::new(),
        };
        model.visit(&mut unscaler);
        let overflowed = !unscaler.non_finite.is_empty();
        scaler.update(overflowed);
        if overflowed {
            return Step::Skipped {
                cause: SkipCause {
                    loss: loss.into_scalar(),
                    loss_scale,
                    next_loss_scale: scaler.loss_scale(),
                    parameters: unscaler.non_finite,
                    faults: self
                        .session
                        .as_ref()
                        .map(Session::faults)
                        .unwrap_or_default(),
                },
            };
        }

        let gradient_norm = unscaler.square_norm.map(f64::sqrt);
        let mut gradients = unscaler.gradients;
        if let (Some(norm), Some(max_norm)) = (gradient_norm, self.max_norm)
            && norm > max_norm
        {
            let mut clipper = Scaler {
                gradients,
                factor: (max_norm / norm) as f32,
            };
            model.visit(&mut clipper);
            gradients = clipper.gradients;
        }
        *model = self.optimizer.step(learning_rate, model.clone(), gradients);
        Step::Applied {
            loss_scale,
            gradient_norm,
        }
    }

    /// The optimizer's state, keyed by parameter id.
    pub fn to_record(&self) -> OptimizerRecord {
        self.optimizer.to_record()
    }

    /// Continues from a saved state, for a model whose record was loaded too.
    pub fn load_record(mut self, record: OptimizerRecord) -> Self {
        self.optimizer = self.optimizer.load_record(record);
        self
    }
}

/// Checks and unscales every gradient in one visit of the model.
struct Unscaler {
    gradients: GradientsParams,
    inverse: f32,
    square_norm: Option<f64>,
    path: Vec<String>,
    non_finite: Vec<NonFiniteGradient>,
}

impl ModuleVisitor for Unscaler {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = self.gradients.remove::<D>(param.id) else {
            return;
        };
        let (count, amax) = scan(gradient.clone());
        if count > 0 {
            self.non_finite.push(NonFiniteGradient {
                parameter: self.path.join("."),
                count,
                amax,
            });
        }
        let gradient = if self.inverse == 1.0 {
            gradient
        } else {
            gradient.mul_scalar(self.inverse)
        };
        if let Some(sum) = &mut self.square_norm {
            let square: f32 = gradient.clone().powi_scalar(2).sum().into_scalar();
            *sum += f64::from(square);
        }
        self.gradients.register(param.id, gradient);
    }
}

struct Scaler {
    gradients: GradientsParams,
    factor: f32,
}

impl ModuleVisitor for Scaler {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            let clipped = gradient.mul_scalar(self.factor);
            self.gradients.register(param.id, clipped);
        }
    }
}
