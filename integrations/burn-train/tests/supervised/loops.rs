//! The same training twice: by burn-train, and step by step.

use std::path::Path;

use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::optim::GradientsAccumulator;
use burn::tensor::{Device, Tensor};
use burn::train::SupervisedTraining;
use burn::train::checkpoint::KeepLastNCheckpoints;
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::renderer::CliMetricsRenderer;
use mantissa::checkpoint::Progress;
use mantissa::optimizer::AdamWConfig;
use mantissa::scaler::ParameterGradients;
use mantissa::{LossScaler, MasterOptimizer, Plan, Session, Step, storage};
use mantissa_burn_train::{MixedPrecision, Objective};

use crate::batches::Samples;
use crate::loader;
use crate::model::Classifier;

const SEED: u64 = 42;

fn optimizer() -> MasterOptimizer {
    MasterOptimizer::new(AdamWConfig::new()).with_max_norm(1.0)
}

pub fn wrapped(model: Classifier, plan: &Plan) -> MixedPrecision<Classifier> {
    MixedPrecision::new(model, plan.clone(), optimizer(), SEED).expect("the plan fits")
}

/// What the step-level loop came to.
pub struct OwnRun {
    pub model: Classifier,
    pub progress: Progress,
    pub losses: Vec<f32>,
    /// The loss scale of each batch.
    pub scales: Vec<f64>,
    /// The steps skipped up to each batch's own.
    pub skipped: Vec<f64>,
}

/// Trains for `epochs`, with updates after every `accumulated` batches and at the end of an epoch.
pub fn own_loop(
    model: Classifier,
    plan: &Plan,
    mut scheduler: ModuleLrScheduler,
    samples: &Samples,
    epochs: usize,
    accumulated: usize,
) -> OwnRun {
    let mut model = storage::store(model, plan).expect("it fits");
    let session = Session::bind(&model, plan, SEED).expect("it fits");
    let mut scaler = LossScaler::for_plan(plan);
    let mut optimizer = optimizer().with_session(&session);
    let mut progress = Progress {
        seed: SEED,
        ..Progress::default()
    };
    let (mut losses, mut scales, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    let mut rate = scheduler.step();
    let batches = samples.batches(&Device::flex().autodiff());
    for _ in 0..epochs {
        for step in batches.chunks(accumulated) {
            session.begin_step(progress.step);
            let mut accumulator = GradientsAccumulator::new();
            let mut step_losses = Vec::new();
            for batch in step {
                scales.push(f64::from(scaler.loss_scale()));
                let (loss, _) = session.autocast(|| model.forward_loss(batch.clone()));
                step_losses.push(loss.clone().detach());
                losses.push(loss.clone().into_scalar());
                let gradients = scaler.scale(loss).backward().by_parameter(&model);
                accumulator.accumulate(&model, gradients.gradients);
            }
            let gradients = ParameterGradients {
                gradients: accumulator.grads(),
                loss: Tensor::cat(step_losses, 0).mean(),
                loss_scale: scaler.loss_scale(),
            };
            match optimizer.step_by_parameter(rate.clone(), &mut model, gradients, &mut scaler) {
                Step::Applied { .. } => {
                    progress.applied += 1;
                    rate = scheduler.step();
                }
                Step::Skipped { .. } => progress.skipped += 1,
            }
            progress.step += 1;
            skipped.extend(step.iter().map(|_| progress.skipped as f64));
        }
    }
    OwnRun {
        model,
        progress,
        losses,
        scales,
        skipped,
    }
}

/// A training by burn-train, to be launched.
pub struct Supervised {
    model: MixedPrecision<Classifier>,
    training: SupervisedTraining<MixedPrecision<Classifier>>,
}

/// One epoch of `samples` in `folder`, which is saved.
pub fn supervised(folder: &Path, model: Classifier, plan: &Plan, samples: &Samples) -> Supervised {
    let model = wrapped(model, plan);
    let valid = Samples::new(16);
    let training = SupervisedTraining::new(folder, loader(samples), loader(&valid))
        .renderer(Box::new(CliMetricsRenderer::new()))
        .with_application_logger(None)
        .with_default_checkpointers()
        .with_checkpointing_strategy(KeepLastNCheckpoints::new(4))
        .metrics((LossMetric::new(), AccuracyMetric::new()))
        .metric_train_numeric(model.loss_scale_metric())
        .metric_train_numeric(model.skipped_steps_metric());
    Supervised { model, training }
}

impl Supervised {
    fn with(
        mut self,
        change: impl FnOnce(
            SupervisedTraining<MixedPrecision<Classifier>>,
        ) -> SupervisedTraining<MixedPrecision<Classifier>>,
    ) -> Self {
        self.training = change(self.training);
        self
    }

    pub fn epochs(self, epochs: usize) -> Self {
        self.with(|training| training.num_epochs(epochs))
    }

    pub fn accumulating(self, batches: usize) -> Self {
        self.with(|training| training.grads_accumulation(batches))
    }

    /// From the checkpoint of that epoch.
    pub fn resuming(self, epoch: usize) -> Self {
        self.with(|training| training.checkpoint(epoch))
    }

    pub fn stopping_after(mut self, skips: u64) -> Self {
        let interrupter = self.training.interrupter();
        self.model = self.model.stop_after(skips, interrupter);
        self
    }

    /// Trains to the last epoch.
    pub fn launch(self, scheduler: ModuleLrScheduler) -> MixedPrecision<Classifier> {
        let (model, interruption) = self.launch_to_end(scheduler);
        assert_eq!(interruption, None);
        model
    }

    /// Trains, and says why it was stopped if it was.
    pub fn launch_to_end(
        self,
        scheduler: ModuleLrScheduler,
    ) -> (MixedPrecision<Classifier>, Option<String>) {
        let result = self.training.launch(self.model.into_learner(scheduler));
        assert!(result.error.is_none(), "{:?}", result.error);
        let reason = result.interrupted.and_then(|stop| stop.reason);
        (result.model, reason)
    }
}

/// What burn-train logged of a metric of the training split's first epoch, batch by batch.
pub fn logged(folder: &Path, metric: &str) -> Vec<f64> {
    let file = format!("train/epoch-1/{}.log", metric.replace(' ', "_"));
    let text = std::fs::read_to_string(folder.join(file)).expect("the metric's log");
    let entries = text.lines().filter(|line| !line.ends_with("final"));
    entries
        .map(|line| line.parse().expect("a number"))
        .collect()
}
