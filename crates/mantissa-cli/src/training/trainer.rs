//! The training loop's state, and one step of it.

use burn::tensor::Device;
use mantissa::checkpoint::{self, Progress};
use mantissa::optimizer::{AdamWConfig, MasterOptimizer, Step};
use mantissa::plan::{Plan, Recipe, Site};
use mantissa::profiler::{Profiler, ProfilerConfig};
use mantissa::{LossScaler, Session};
use mantissa_zoo::{
    Bert, HiddenMarkovConfig, HiddenMarkovSource, MaskedSource, TextConfig, TextCorpus,
    Tokenization, Validation,
};
use serde::{Deserialize, Serialize};
use std::path::Path;

use super::config::{DataSource, RunConfig, TokenizerKind};
use super::folder::RunFolder;
use super::schedule::Schedule;
use crate::error::Error;

/// A run between two steps.
pub struct Trainer {
    model: Bert,
    session: Session,
    optimizer: MasterOptimizer,
    scaler: LossScaler,
    plan: Plan,
    schedule: Schedule,
    source: Source,
    progress: Progress,
    device: Device,
    skips_in_a_row: u64,
}

/// What one step did: a line of the run's log, and of `--json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The step, from 0.
    pub step: u64,
    /// The unscaled training loss before the update; absent if it is not finite.
    pub loss: Option<f32>,
    /// The scale the loss had.
    pub loss_scale: f32,
    /// The learning rate of the update.
    pub learning_rate: f64,
    /// Whether the step was skipped.
    pub skipped: bool,
    /// Why it was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// The data of a run.
pub enum Source {
    /// Generated.
    HiddenMarkov(HiddenMarkovSource),
    /// Read.
    Text(Box<TextCorpus>),
}

impl Source {
    fn masked(&self) -> &dyn MaskedSource {
        match self {
            Self::HiddenMarkov(source) => source,
            Self::Text(source) => source.as_ref(),
        }
    }
}

/// Opens the data of a run; of a run that is resumed, with the tokenizer kept in `folder`.
pub fn open_source(config: &RunConfig, folder: Option<&RunFolder>) -> Result<Source, Error> {
    let (data, seed) = (&config.data, config.training.seed);
    let shape = config.batch_shape();
    match &data.source {
        DataSource::HiddenMarkov => {
            let language = HiddenMarkovConfig::default();
            let source = HiddenMarkovSource::new(&language, shape, data.evaluation_batches, seed)?;
            Ok(Source::HiddenMarkov(source))
        }
        DataSource::Text(path) => {
            let saved = folder.map(RunFolder::tokenizer);
            let tokenization = match (saved, data.tokenizer) {
                (Some(saved), _) => Tokenization::Saved(saved),
                (None, TokenizerKind::Bytes) => Tokenization::Bytes,
                (None, TokenizerKind::Bpe) => Tokenization::BytePair {
                    vocab_size: data.vocab_size,
                },
            };
            let corpus = TextCorpus::open(&TextConfig {
                validation: match &data.validation {
                    Some(path) => Validation::File(path.clone()),
                    None => Validation::LastTenth,
                },
                tokenization,
                evaluation_batches: data.evaluation_batches,
                seed,
                ..TextConfig::new(path, shape)
            })?;
            Ok(Source::Text(Box::new(corpus)))
        }
    }
}

/// The plan that the configuration names, for a model with these sites.
pub fn configured_plan(config: &RunConfig, model: &Bert) -> Result<Plan, Error> {
    let numerics = &config.numerics;
    if let Some(path) = &numerics.plan {
        return Ok(Plan::load(path)?);
    }
    let name = numerics.recipe.as_deref().unwrap_or("fp32");
    let recipe = if name.ends_with(".toml") {
        let text = std::fs::read_to_string(name).map_err(|source| Error::Read {
            path: name.into(),
            source,
        })?;
        Recipe::from_toml(&text)?
    } else {
        Recipe::preset(name)?
    };
    Ok(Plan::from_recipe(&recipe, &mantissa::sites(model))?)
}

impl Trainer {
    /// A run at its first step. Without `plan`, the one that the configuration names.
    pub fn new(config: &RunConfig, source: Source, plan: Option<Plan>) -> Result<Self, Error> {
        let device = Device::flex().autodiff();
        let model = config
            .bert(source.masked().vocab_size())
            .init(config.training.seed, &device)?;
        let plan = match plan {
            Some(plan) => plan,
            None => configured_plan(config, &model)?,
        };
        let session = Session::bind(&model, &plan, config.training.seed)?;
        Ok(Self {
            optimizer: optimizer(config).with_session(&session),
            scaler: LossScaler::for_plan(&plan),
            schedule: config.schedule(),
            progress: Progress {
                seed: config.training.seed,
                ..Progress::default()
            },
            model,
            session,
            plan,
            source,
            device,
            skips_in_a_row: 0,
        })
    }

    /// A run that goes on from the checkpoint at `path`.
    pub fn resume(config: &RunConfig, source: Source, path: &Path) -> Result<Self, Error> {
        let device = Device::flex().autodiff();
        let model = config
            .bert(source.masked().vocab_size())
            .init(config.training.seed, &device)?;
        let saved = checkpoint::load(path, model)?;
        tracing::info!(checkpoint = %path.display(), step = saved.progress.step, "resumed");
        let session = Session::bind(&saved.model, &saved.plan, saved.progress.seed)?;
        Ok(Self {
            optimizer: optimizer(config)
                .with_session(&session)
                .load_record(saved.optimizer)?,
            scaler: saved.scaler,
            schedule: config.schedule(),
            progress: saved.progress,
            model: saved.model,
            session,
            plan: saved.plan,
            source,
            device,
            skips_in_a_row: 0,
        })
    }

    /// Takes one step.
    pub fn step(&mut self) -> StepRecord {
        let step = self.progress.step;
        // Dropout draws from the device's generator; seeding it anew makes each step a function of its number.
        self.device.seed(self.progress.seed ^ step.rotate_left(32));
        self.session.begin_step(step);
        let batch = self.source.masked().batch(step);
        let loss = self.session.autocast(|| self.model.forward_loss(&batch));
        let loss_value: f32 = loss.clone().into_scalar();
        let learning_rate = self.schedule.learning_rate(self.progress.applied);
        let loss_scale = self.scaler.loss_scale();
        let gradients = self.scaler.scale(loss).backward();
        let outcome =
            self.optimizer
                .step(learning_rate, &mut self.model, gradients, &mut self.scaler);

        self.progress.step += 1;
        let cause = match outcome {
            Step::Applied { .. } => {
                self.progress.applied += 1;
                self.skips_in_a_row = 0;
                None
            }
            Step::Skipped { cause } => {
                self.progress.skipped += 1;
                self.skips_in_a_row += 1;
                Some(cause.to_string())
            }
        };
        StepRecord {
            step,
            loss: Some(loss_value).filter(|loss| loss.is_finite()),
            loss_scale,
            learning_rate,
            skipped: cause.is_some(),
            cause,
        }
    }

    /// Mean loss on the evaluation set, computed in the plan's numerics.
    pub fn evaluate(&self) -> f64 {
        self.session.begin_step(self.progress.step);
        self.session
            .autocast(|| self.model.evaluate(self.source.masked().evaluation()))
    }

    /// Writes a checkpoint, and removes those that are too old.
    pub fn save(&self, folder: &RunFolder, keep: usize) -> Result<(), Error> {
        let checkpoints = folder.checkpoints();
        let saved = checkpoint::save(
            &checkpoints,
            &self.model,
            &self.optimizer,
            &self.scaler,
            &self.plan,
            self.progress,
        )?;
        tracing::info!(checkpoint = %saved.display(), "saved");
        checkpoint::prune(&checkpoints, keep)?;
        Ok(())
    }

    /// Writes the tokenizer of a text, without which its run cannot be resumed.
    pub fn save_tokenizer(&self, path: &Path) -> Result<(), Error> {
        if let Source::Text(corpus) = &self.source {
            corpus.save_tokenizer(path)?;
        }
        Ok(())
    }

    /// The scale of the next loss.
    pub fn loss_scale(&self) -> f32 {
        self.scaler.loss_scale()
    }

    /// Starts measuring operands.
    pub fn start_profiling(&self, config: ProfilerConfig) {
        self.session.start_profiling(config);
    }

    /// Ends measuring.
    pub fn finish_profiling(&self) -> Option<Profiler> {
        self.session.finish_profiling()
    }

    /// How far the run has come.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Steps skipped since the last that was applied.
    pub fn skips_in_a_row(&self) -> u64 {
        self.skips_in_a_row
    }

    /// The plan in force.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The products of the model.
    pub fn sites(&self) -> Vec<Site> {
        mantissa::sites(&self.model)
    }

    /// The data.
    pub fn source(&self) -> &dyn MaskedSource {
        self.source.masked()
    }

    /// Sites whose product was never computed.
    pub fn idle_sites(&self) -> Vec<String> {
        self.session.idle_sites()
    }
}

fn optimizer(config: &RunConfig) -> MasterOptimizer {
    let training = &config.training;
    let optimizer = AdamWConfig::new().with_weight_decay(training.weight_decay);
    let optimizer = MasterOptimizer::new(optimizer);
    match training.max_norm {
        Some(max_norm) => optimizer.with_max_norm(max_norm),
        None => optimizer,
    }
}
