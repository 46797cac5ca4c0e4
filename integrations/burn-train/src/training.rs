//! What a run remembers between its steps.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::train::Interrupter;
use mantissa::checkpoint::Progress;
use mantissa::optimizer::SgdConfig;
use mantissa::scaler::ParameterGradients;
use mantissa::{LossScaler, MasterOptimizer, Plan, Session, Step};

use crate::metric::Readings;
use crate::mixed_precision::MixedPrecisionError;

/// The state of one run, of which all clones of its model have a share.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Training>>);

impl Shared {
    pub(crate) fn new(training: Training) -> Self {
        Self(Arc::new(Mutex::new(training)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Training> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.lock().progress)
    }
}

pub(crate) struct Training {
    pub(crate) plan: Plan,
    pub(crate) plan_may_change: bool,
    pub(crate) optimizer: MasterOptimizer,
    pub(crate) scaler: LossScaler,
    pub(crate) progress: Progress,
    /// Of the step that is under way, group by group: burn-train carries only the first group's from a scheduler that is not
    /// its own.
    pub(crate) rate: Option<ModuleLearningRate>,
    /// Whether the last step was skipped, so that its learning rate is the next one's too.
    pub(crate) repeats_rate: bool,
    pub(crate) stop: Option<(u64, Interrupter)>,
    pub(crate) readings: Readings,
    session: Session,
    /// The parameters that the session is bound to.
    bound: Vec<ParamId>,
    /// The losses of the micro-batches whose gradients are not applied yet.
    losses: Vec<Tensor<1>>,
}

impl Training {
    pub(crate) fn new<M: Module>(
        model: &M,
        plan: Plan,
        optimizer: MasterOptimizer,
        seed: u64,
    ) -> Result<Self, MixedPrecisionError> {
        let session = Session::bind(model, &plan, seed)?;
        Ok(Self {
            scaler: LossScaler::new(&plan.loss_scaling)?,
            optimizer: optimizer.with_session(&session),
            progress: Progress {
                seed,
                ..Progress::default()
            },
            rate: None,
            repeats_rate: false,
            stop: None,
            readings: Readings::default(),
            bound: parameters(model),
            session,
            plan,
            plan_may_change: false,
            losses: Vec::new(),
        })
    }

    /// The session bound to `model`, whose parameters have other ids once a record was loaded.
    pub(crate) fn session<M: Module>(&mut self, model: &M) -> Session {
        let parameters = parameters(model);
        if parameters != self.bound {
            let session = Session::bind(model, &self.plan, self.progress.seed)
                .unwrap_or_else(|error| panic!("the model was changed while it trained: {error}"));
            session.restore_amaxes(self.session.amaxes());
            self.session = session;
            self.bound = parameters;
            let idle = MasterOptimizer::new(SgdConfig::new());
            let optimizer = std::mem::replace(&mut self.optimizer, idle);
            self.optimizer = optimizer.with_session(&self.session);
        }
        self.session.clone()
    }

    /// Starts a step, unless this is another micro-batch of the one that is under way: all of them are one step to random bits
    /// and delayed scaling.
    pub(crate) fn begin<M: Module>(&mut self, model: &M) -> Session {
        let session = self.session(model);
        if self.losses.is_empty() {
            session.begin_step(self.progress.step);
        }
        session
    }

    /// A micro-batch had this loss, and its gradients are on their way.
    pub(crate) fn push(&mut self, loss: Tensor<1>, loss_scale: f32) {
        self.losses.push(loss);
        self.readings.push(loss_scale, self.progress.skipped);
    }

    /// Ends the step: updates `model`, or leaves it as it is.
    ///
    /// # Panics
    /// If no batch went before.
    pub(crate) fn update<M: Module>(
        &mut self,
        model: &mut M,
        learning_rate: ModuleLearningRate,
        gradients: GradientsParams,
    ) {
        let mut losses = std::mem::take(&mut self.losses);
        let loss = match losses.len() {
            0 => panic!("gradients of no batch: the model's `step` comes before its `optimize`"),
            1 => losses.remove(0),
            _ => Tensor::cat(losses, 0).mean(),
        };
        // The scale moves in updates only, so that all micro-batches of a step had this one.
        let gradients = ParameterGradients {
            gradients,
            loss,
            loss_scale: self.scaler.loss_scale(),
        };
        let step = self.optimizer.step_by_parameter(
            self.rate.take().unwrap_or(learning_rate),
            model,
            gradients,
            &mut self.scaler,
        );
        match step {
            Step::Applied { .. } => {
                self.progress.applied += 1;
                self.repeats_rate = false;
            }
            Step::Skipped { cause } => {
                log::warn!("step {} skipped: {cause}", self.progress.step);
                self.progress.skipped += 1;
                self.repeats_rate = true;
                if let Some((skips, interrupter)) = &self.stop
                    && (cause.skips_in_a_row >= *skips || cause.is_exhausted)
                {
                    let (rows, remedy) = (cause.skips_in_a_row, cause.remedy());
                    let reason =
                        format!("{rows} steps skipped in a row, the last: {cause}. {remedy}");
                    interrupter.stop(Some(&reason));
                }
            }
        }
        self.progress.step += 1;
        self.readings.settle(self.progress.skipped);
    }

    /// Goes on from a saved state, for a `model` whose parameters were loaded.
    pub(crate) fn restore<M: Module>(
        &mut self,
        model: &M,
        progress: Progress,
        amaxes: mantissa::AmaxHistories,
    ) {
        // The seed is the saved run's, which a session keeps for life.
        self.progress = progress;
        self.repeats_rate = false;
        self.losses.clear();
        self.bound.clear();
        self.session(model).restore_amaxes(amaxes);
    }

    pub(crate) fn amaxes(&self) -> mantissa::AmaxHistories {
        self.session.amaxes()
    }
}

/// The ids of all parameters of `model` that may be weights of sites.
fn parameters<M: Module>(model: &M) -> Vec<ParamId> {
    struct Ids(Vec<ParamId>);
    impl ModuleVisitor for Ids {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.id);
        }
    }
    let mut ids = Ids(Vec::new());
    model.visit(&mut ids);
    ids.0
}
