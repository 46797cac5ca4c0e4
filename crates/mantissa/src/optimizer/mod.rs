//! From scaled gradients to an update of the master weights, or a skipped step.
//!
//! A step reads each gradient once to know whether all are finite and how large they are together, and then each
//! parameter once, with its gradient and moments, to unscale, clip and update in place. The results have the same bits
//! on every number of threads and width of SIMD, and do not depend on the loss scale as long as that is a power of two.

mod accumulator;
mod config;
mod gradients;
mod groups;
mod in_place;
mod over_ranks;
mod rule;
mod schedule;
mod state;
mod step;

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};

use crate::parameters::parameters;
use crate::scaler::{LossScaler, Observation, ParameterGradients, ScaledGradients};
use crate::session::Session;
use gradients::ScannedGradients;
use groups::Members;
use rule::Rule;
use state::{Mismatch, States};

pub use accumulator::GradientAccumulator;
pub use burn::optim::decay::WeightDecayConfig;
pub use burn::optim::momentum::MomentumConfig;
pub use config::{AdafactorConfig, AdamConfig, AdamWConfig, LambConfig, SgdConfig};
pub(crate) use gradients::by_parameter;
pub use gradients::non_finite_weights;
pub use groups::{ParameterGroup, ParameterGroups, ParameterGroupsError};
pub use mantissa_kernels::state::{StateFormat, StateFormatError, StateFormats};
pub use schedule::AppliedSchedule;
pub use state::{OptimizerRecord, OptimizerRecordError};
pub use step::{NonFinite, SkipCause, Step, Verdict};

/// An optimizer over the model's parameters, the master weights. Updates are computed in f32; they are rounded only where
/// [`storage::store`](crate::storage::store) has given a parameter fewer bits, as its storage says.
///
/// ```
/// use mantissa::MasterOptimizer;
/// use mantissa::optimizer::AdamWConfig;
///
/// let optimizer = MasterOptimizer::new(AdamWConfig::new().with_weight_decay(0.01)).with_max_norm(1.0);
/// ```
#[derive(Clone)]
pub struct MasterOptimizer {
    update: Update,
    session: Option<Session>,
    seed: u64,
    max_norm: Option<f64>,
}

/// What updates the parameters: made of the configuration of one of this crate's rules ([`AdamWConfig`],
/// [`AdamConfig`], [`SgdConfig`], [`LambConfig`], [`AdafactorConfig`]), or of any of Burn's optimizers, which is slower.
#[derive(Clone)]
pub struct Update(Kind);

#[derive(Clone)]
enum Kind {
    /// In place and in one pass.
    Fused {
        rule: Rule,
        members: Members,
        states: States,
    },
    /// As Burn does it.
    Burn(ModuleOptimizer),
}

impl Update {
    fn fused(rule: Rule) -> Self {
        rule.check();
        Self(Kind::Fused {
            rule,
            members: Members::default(),
            states: States::new(),
        })
    }
}

impl From<AdamWConfig> for Update {
    fn from(config: AdamWConfig) -> Self {
        Self::fused(Rule::AdamW(config))
    }
}

impl From<AdamConfig> for Update {
    fn from(config: AdamConfig) -> Self {
        Self::fused(Rule::Adam(config))
    }
}

impl From<SgdConfig> for Update {
    fn from(config: SgdConfig) -> Self {
        Self::fused(Rule::Sgd(config))
    }
}

impl From<LambConfig> for Update {
    fn from(config: LambConfig) -> Self {
        Self::fused(Rule::Lamb(config))
    }
}

impl From<AdafactorConfig> for Update {
    fn from(config: AdafactorConfig) -> Self {
        Self::fused(Rule::Adafactor(config))
    }
}

impl From<ModuleOptimizer> for Update {
    fn from(optimizer: ModuleOptimizer) -> Self {
        Self(Kind::Burn(optimizer))
    }
}

impl MasterOptimizer {
    /// An optimizer that updates by `update`: the configuration of one of this crate's rules, or one of Burn's
    /// optimizers. Gradient clipping belongs to [`with_max_norm`](Self::with_max_norm): Burn's own would clip tensor by
    /// tensor.
    ///
    /// # Panics
    /// If a beta is outside `0.0..1.0` or an epsilon is not positive, when the configuration is converted.
    pub fn new(update: impl Into<Update>) -> Self {
        Self {
            update: update.into(),
            session: None,
            seed: 0,
            max_norm: None,
        }
    }

    /// Lets a skipped step name the operands of `session` that overflowed, takes the session's seed for stochastic
    /// rounding, and lets every step add up the gradients of all ranks that the session [joined](Session::join).
    pub fn with_session(mut self, session: &Session) -> Self {
        self.seed = session.seed();
        self.session = Some(session.clone());
        self
    }

    /// The seed of stochastic rounding, 0 if nothing is said. The bits of an element are a function of the seed, the steps
    /// that its parameter has taken, the parameter's path in the model, and the element's index.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Updates the parameters of `model` as `groups` say: state formats, learning rates and weight decay by path. The
    /// model that is trained must have the same parameter ids; parameters of none are updated as if nothing was said.
    ///
    /// # Errors
    /// If a glob matches nothing or is none, if a number makes no sense, if the optimizer has taken steps, or if it is one
    /// of Burn's.
    pub fn with_groups<M: Module>(
        mut self,
        groups: &ParameterGroups,
        model: &M,
    ) -> Result<Self, ParameterGroupsError> {
        match &mut self.update.0 {
            Kind::Burn(_) => return Err(ParameterGroupsError::Burn),
            Kind::Fused { states, .. } if !states.is_empty() => {
                return Err(ParameterGroupsError::TooLate);
            }
            Kind::Fused { members, .. } => *members = Members::resolve(groups, model)?,
        }
        Ok(self)
    }

    /// Bytes that the states of all parameters take now: none for those that have not taken a step. `None` for Burn's
    /// optimizers, which do not tell.
    pub fn state_bytes(&self) -> Option<usize> {
        let Kind::Fused { states, .. } = &self.update.0 else {
            return None;
        };
        let buffers = states.values().flat_map(|state| &state.buffers);
        Some(buffers.map(|buffer| buffer.bytes()).sum())
    }

    /// Bytes that each buffer of the states, such as `first_moment`, takes once all parameters of `model` have taken a step.
    /// Empty for Burn's optimizers, which do not tell.
    pub fn expected_states<M: Module>(&self, model: &M) -> Vec<(&'static str, usize)> {
        let Kind::Fused { rule, members, .. } = &self.update.0 else {
            return Vec::new();
        };
        let mut bytes: Vec<(&str, usize)> = Vec::new();
        for parameter in parameters(model) {
            let states = members.get(parameter.id).states;
            for buffer in rule.buffers(&parameter.shape) {
                let more = buffer.format(states).bytes(buffer.len(&parameter.shape));
                match bytes.iter_mut().find(|(name, _)| *name == buffer.name) {
                    Some((_, bytes)) => *bytes += more,
                    None => bytes.push((buffer.name, more)),
                }
            }
        }
        bytes
    }

    /// Scales unscaled gradients down to a global L2 norm of at most `max_norm`.
    pub fn with_max_norm(mut self, max_norm: f64) -> Self {
        self.max_norm = Some(max_norm);
        self
    }

    /// Unscales `gradients` by the scale of their own loss and updates `model`; or leaves both model and optimizer
    /// as they are if a gradient is not finite. Then moves `scaler`. Parameters without a gradient stay as they are. The learning
    /// rate is a number, or what Burn's schedulers say, group by group.
    ///
    /// In a [world](crate::parallel) of several ranks all of them call this, and all do the same, with the gradients and
    /// the loss of the whole batch; it does not return if a rank is lost.
    ///
    /// # Panics
    /// If a parameter with a gradient is of another size than when the optimizer's record was saved; the model is then as
    /// it was. If a parameter is of a half-precision type that [`storage::store`](crate::storage::store) did not give it,
    /// or stored at all and the optimizer is one of Burn's.
    pub fn step<M: Module>(
        &mut self,
        learning_rate: impl Into<ModuleLearningRate>,
        model: &mut M,
        gradients: ScaledGradients,
        scaler: &mut LossScaler,
    ) -> Step {
        let ScaledGradients {
            gradients,
            loss,
            loss_scale,
        } = gradients;
        let gradients = ParameterGradients {
            gradients: GradientsParams::from_grads(gradients, model),
            loss,
            loss_scale,
        };
        self.step_by_parameter(learning_rate, model, gradients, scaler)
    }

    /// [`step`](Self::step) for a loop that carries its gradients parameter by parameter.
    ///
    /// # Panics
    /// As `step` does.
    pub fn step_by_parameter<M: Module>(
        &mut self,
        learning_rate: impl Into<ModuleLearningRate>,
        model: &mut M,
        gradients: ParameterGradients,
        scaler: &mut LossScaler,
    ) -> Step {
        let ParameterGradients {
            gradients,
            loss,
            loss_scale,
        } = gradients;
        let mut gradients = ScannedGradients::take(gradients, model);
        let mut loss: f32 = loss.into_scalar();
        if let Some(session) = &self.session {
            over_ranks::reduce(session, model, &mut gradients, &mut loss);
        }
        let overflowed = !gradients.are_finite();
        let exponents = scaler.wants_exponents().then(|| gradients.exponents());
        scaler.observe(&Observation {
            overflowed,
            loss,
            loss_scale,
            amax: gradients.amax(),
            exponents: exponents.as_ref(),
        });
        if overflowed {
            let faults = self.session.as_ref().map(Session::faults);
            return Step::Skipped {
                cause: SkipCause {
                    loss,
                    loss_scale,
                    next_loss_scale: scaler.loss_scale(),
                    min_loss_scale: scaler.min_scale(),
                    parameters: gradients.non_finite(model),
                    weights: non_finite_weights(model),
                    faults: faults.unwrap_or_default(),
                    skips_in_a_row: scaler.skips_in_a_row(),
                    is_exhausted: scaler.is_exhausted(),
                },
            };
        }

        let unscale = f64::from(loss_scale).recip();
        let gradient_norm = gradients.norm() * unscale;
        let clip = match self.max_norm {
            Some(max_norm) if gradient_norm > max_norm => (max_norm / gradient_norm) as f32,
            _ => 1.0,
        };
        // One rounding for the scale and one for the clip: a power of two among them changes no bit of the other.
        let factor = clip * unscale as f32;
        match &mut self.update.0 {
            Kind::Fused {
                rule,
                members,
                states,
            } => {
                let shared = in_place::Shared {
                    rule,
                    members,
                    learning_rate: &learning_rate.into(),
                    gradient_factor: factor,
                    seed: self.seed,
                };
                in_place::update(&shared, states, model, gradients);
            }
            Kind::Burn(optimizer) => {
                if let Some(stored) = crate::storage::stored(model).first() {
                    panic!(
                        "parameter {} is stored as {}, which Burn's optimizers cannot update; use one of \
                         mantissa::optimizer",
                        stored.path, stored.storage
                    );
                }
                let gradients = gradients.into_params(model, factor);
                *model = optimizer.step(learning_rate, model.clone(), gradients);
            }
        }
        Step::Applied {
            loss,
            loss_scale,
            gradient_norm,
        }
    }

    /// The optimizer's state, keyed by parameter id.
    pub fn to_record(&self) -> OptimizerRecord {
        match &self.update.0 {
            Kind::Fused { rule, states, .. } => {
                OptimizerRecord::Fused(state::serialize(rule, states))
            }
            Kind::Burn(optimizer) => OptimizerRecord::Burn(optimizer.to_record()),
        }
    }

    /// Continues from a saved state, for a model whose record was loaded too.
    ///
    /// # Errors
    /// If the record is damaged, of another kind of optimizer, or has moments in other formats than
    /// [`with_groups`](Self::with_groups) said: [`convert_record`](Self::convert_record) rounds them.
    pub fn load_record(self, record: OptimizerRecord) -> Result<Self, OptimizerRecordError> {
        self.continued(record, Mismatch::Refuse)
    }

    /// Continues from a saved state as [`load_record`](Self::load_record) does, but decodes moments in other formats than
    /// the configured ones and codes them again, which rounds them once.
    ///
    /// # Errors
    /// If the record is damaged or of another kind of optimizer.
    pub fn convert_record(self, record: OptimizerRecord) -> Result<Self, OptimizerRecordError> {
        self.continued(record, Mismatch::Convert)
    }

    fn continued(
        mut self,
        record: OptimizerRecord,
        mismatch: Mismatch,
    ) -> Result<Self, OptimizerRecordError> {
        self.update = Update(match self.update.0 {
            Kind::Fused { rule, members, .. } => Kind::Fused {
                states: state::load(&rule, &members, record, mismatch)?,
                rule,
                members,
            },
            Kind::Burn(optimizer) => Kind::Burn(state::load_burn(optimizer, record)?),
        });
        Ok(self)
    }
}
