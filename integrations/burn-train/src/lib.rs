//! mantissa inside burn-train: [`MixedPrecision`] wraps a model so that
//! [`SupervisedTraining`](burn::train::SupervisedTraining) trains it under a [`Plan`](mantissa::Plan), with its dashboard, its
//! metrics, its gradient accumulation and its checkpoints.
//!
//! A model says what its loss is ([`Objective`]); the rest is the wrapper's: the autocast, the loss scale, the update by a
//! [`MasterOptimizer`](mantissa::MasterOptimizer), steps that are skipped, and learning rates that wait for them.
//!
//! ```no_run
//! # use burn::module::Module;
//! # use burn::tensor::{Device, Tensor};
//! # use burn::train::RegressionOutput;
//! use burn::train::{SupervisedTraining, metric::LossMetric};
//! use mantissa::optimizer::{AdamWConfig, MasterOptimizer};
//! use mantissa::plan::{Plan, Recipe};
//! use mantissa_burn_train::{MixedPrecision, Objective};
//! # use std::sync::Arc;
//! # use burn::data::dataloader::DataLoader;
//!
//! #[derive(Module, Debug)]
//! struct Model { layer: mantissa::nn::Linear }
//!
//! impl Objective for Model {
//!     type Input = (Tensor<2>, Tensor<2>);
//!     type Output = RegressionOutput;
//!
//!     fn forward_loss(&self, (input, target): Self::Input) -> (Tensor<1>, RegressionOutput) {
//!         let output = self.layer.forward(input);
//!         let loss = (output.clone() - target.clone()).powi_scalar(2).mean();
//!         (loss.clone(), RegressionOutput::new(loss, output, target))
//!     }
//! }
//!
//! # fn train(model: Model, batches: Arc<dyn DataLoader<(Tensor<2>, Tensor<2>)>>) -> Result<(), Box<dyn std::error::Error>> {
//! let plan = Plan::from_recipe(&Recipe::preset("fp8-hybrid")?, &mantissa::sites(&model))?;
//! let model = MixedPrecision::new(model, plan, MasterOptimizer::new(AdamWConfig::new()), 42)?;
//! let trained = SupervisedTraining::new("runs/fp8", batches.clone(), batches)
//!     .metrics((LossMetric::new(),))
//!     .metric_train_numeric(model.loss_scale_metric())
//!     .metric_train_numeric(model.skipped_steps_metric())
//!     .with_default_checkpointers()
//!     .num_epochs(4)
//!     .launch(model.into_learner(1e-3));
//! let model = trained.model.into_inner();
//! # Ok(())
//! # }
//! ```
//!
//! # What resumes
//!
//! The model's checkpoint of burn-train also carries what its others do not hold: the master optimizer's moments, the loss
//! scaler, the amaxes of delayed scaling, the plan, the step counts, and the weights that are stored in fewer bits. So
//! [`SupervisedTraining::checkpoint`](burn::train::SupervisedTraining::checkpoint) goes on with the same bits as a run that was
//! never interrupted. What burn-train itself does not save starts anew: the shuffling of its data loaders, the state of
//! the device's random numbers (dropout), and what metrics and early stopping have seen.
//!
//! # Limits
//!
//! Parameter groups of the optimizer ([`with_groups`](mantissa::MasterOptimizer::with_groups)) belong to parameter ids, which a
//! loaded record changes: a run with them does not resume. The groups of Burn's schedulers go by path or id, and those by path
//! do. Gradients are rounded to what the plan stores them as, and wait for the update in f32. One device: the strategies of
//! burn-train for several are refused. Burn's loop adds up the gradients of
//! [`grads_accumulation`](burn::train::SupervisedTraining::grads_accumulation) instead of averaging them. It also keeps the
//! model of the step before until the update is done, so that the weights are in memory twice for that moment.

mod metric;
mod mixed_precision;
mod module;
mod record;
mod schedule;
mod training;

pub use metric::StepMetric;
pub use mixed_precision::{MixedPrecision, MixedPrecisionError, Objective};
