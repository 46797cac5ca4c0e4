//! The wrapper, and what burn-train asks of a model.

use burn::lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler};
use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams, SgdConfig};
use burn::tensor::Tensor;
use burn::train::{InferenceStep, Interrupter, ItemLazy, Learner, TrainOutput, TrainStep};
use mantissa::checkpoint::Progress;
use mantissa::plan::{LossScalingError, PlanError, StorageError};
use mantissa::{MasterOptimizer, Plan, Session, storage};

use crate::metric::StepMetric;
use crate::schedule::AppliedScheduler;
use crate::training::{Shared, Training};

/// What a model is trained for: the loss of a batch.
pub trait Objective: Module {
    /// A batch, as the data loader gives it.
    type Input: Send + 'static;
    /// What metrics are computed from, such as burn-train's
    /// [`ClassificationOutput`](burn::train::ClassificationOutput).
    type Output: ItemLazy + 'static;

    /// The forward pass of a batch: its loss, of one element, and what metrics are computed from. Validation takes the latter
    /// only.
    fn forward_loss(&self, input: Self::Input) -> (Tensor<1>, Self::Output);
}

/// A model that burn-train trains under a plan.
///
/// Its parameters and their paths are the model's. Clones are one run: they share the optimizer, the loss scaler and the
/// step counts, as burn-train clones the model in every step; only one of them may be trained.
#[derive(Clone, Debug)]
pub struct MixedPrecision<M> {
    pub(crate) model: M,
    pub(crate) training: Shared,
}

/// A plan that cannot be put in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MixedPrecisionError {
    /// The plan is of another model.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Its storage table does not fit the model.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The settings of its loss scaling contradict each other.
    #[error(transparent)]
    LossScaling(#[from] LossScalingError),
}

impl<M: Module> MixedPrecision<M> {
    /// Wraps `model`: its forward and backward passes run under `plan`, its weights are stored as the plan says, its loss is
    /// scaled as the plan says, and `optimizer` updates it. All stochastic rounding derives from `seed`.
    ///
    /// # Errors
    /// If the plan does not name exactly the sites of the model, or contradicts itself.
    pub fn new(
        model: M,
        plan: Plan,
        optimizer: MasterOptimizer,
        seed: u64,
    ) -> Result<Self, MixedPrecisionError> {
        let model = storage::store(model, &plan)?;
        let training = Training::new(&model, plan, optimizer, seed)?;
        Ok(Self {
            model,
            training: Shared::new(training),
        })
    }

    /// Stops the training that `interrupter` belongs to, with a diagnosis, after so many skipped steps in a row, or when the
    /// settings of the loss scaling end it. Without this a run whose every step is skipped goes on to its last epoch.
    pub fn stop_after(self, skips_in_a_row: u64, interrupter: Interrupter) -> Self {
        self.training.lock().stop = Some((skips_in_a_row, interrupter));
        self
    }

    /// Loads checkpoints of another plan too: amaxes are measured anew and the loss scaler starts as this plan says, while
    /// weights, moments and step counts go on. Otherwise such a checkpoint is refused.
    pub fn allow_plan_change(self) -> Self {
        self.training.lock().plan_may_change = true;
        self
    }

    /// The learner for [`SupervisedTraining::launch`](burn::train::SupervisedTraining::launch). `scheduler`, a rate or one of
    /// Burn's schedulers, does not advance on skipped steps. The learner's own optimizer is never asked.
    pub fn into_learner(self, scheduler: impl Into<ModuleLrScheduler>) -> Learner<Self>
    where
        Self: TrainStep + InferenceStep + std::fmt::Display + 'static,
    {
        let scheduler = AppliedScheduler::new(scheduler.into(), self.training.clone());
        Learner::new(self, SgdConfig::new().init(), scheduler)
    }

    /// A metric of the training split: the loss scale of each batch.
    pub fn loss_scale_metric(&self) -> StepMetric {
        StepMetric::loss_scale(&mut self.training.lock().readings)
    }

    /// A metric of the training split: the steps skipped since the run began.
    pub fn skipped_steps_metric(&self) -> StepMetric {
        StepMetric::skipped_steps(&mut self.training.lock().readings)
    }

    /// How many steps were taken, applied and skipped.
    pub fn progress(&self) -> Progress {
        self.training.lock().progress
    }

    /// The session in force, for profiling or for looking at faults. Loading a record binds another.
    pub fn session(&self) -> Session {
        self.training.lock().session(&self.model)
    }

    /// The wrapped model.
    pub fn inner(&self) -> &M {
        &self.model
    }

    /// The wrapped model.
    pub fn into_inner(self) -> M {
        self.model
    }
}

impl<M: Objective> TrainStep for MixedPrecision<M> {
    type Input = M::Input;
    type Output = M::Output;

    fn step(&self, item: M::Input) -> TrainOutput<M::Output> {
        let session = self.training.lock().begin(&self.model);
        let (loss, item) = session.autocast(|| self.model.forward_loss(item));
        let scaled = self.training.lock().scaler.scale(loss);
        let gradients = scaled.backward().by_parameter(&self.model);
        self.training
            .lock()
            .push(gradients.loss, gradients.loss_scale);
        TrainOutput {
            grads: gradients.gradients,
            item,
        }
    }

    fn optimize(
        mut self,
        _: &mut ModuleOptimizer,
        learning_rate: ModuleLearningRate,
        gradients: GradientsParams,
    ) -> Self {
        let mut training = self.training.lock();
        training.update(&mut self.model, learning_rate, gradients);
        drop(training);
        self
    }

    /// # Panics
    /// Always: steps of several devices cannot share one loss scale.
    fn optimize_multi(
        self,
        _: &mut ModuleOptimizer,
        _: ModuleLearningRate,
        _: MultiGradientsParams,
    ) -> Self {
        panic!("MixedPrecision trains on one device: use the default training strategy");
    }
}

impl<M: Objective> InferenceStep for MixedPrecision<M> {
    type Input = M::Input;
    type Output = M::Output;

    fn step(&self, item: M::Input) -> M::Output {
        let session = self.training.lock().session(&self.model);
        session.autocast(|| self.model.forward_loss(item)).1
    }
}
