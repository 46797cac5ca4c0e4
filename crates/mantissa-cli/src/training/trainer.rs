//! The training loop's state, and one step of it.

use burn::tensor::Device;
use mantissa::checkpoint::{self, Checkpoint, Decided, Progress, SetAside};
use mantissa::memory::ParameterMemory;
use mantissa::optimizer::{
    AdamWConfig, MasterOptimizer, ParameterGroups, Step, non_finite_weights,
};
use mantissa::parallel::Share;
use mantissa::plan::{Decision, Guard, Plan, PlanError, Profile, Recipe, Site};
use mantissa::profiler::{Profiler, ProfilerConfig};
use mantissa::{LossScaler, Session, World, storage};
use mantissa_zoo::{
    Bert, HiddenMarkovConfig, HiddenMarkovSource, MaskedSource, TextConfig, TextCorpus,
    Tokenization, Validation,
};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::config::{DataSource, NumericsConfig, RunConfig, TokenizerKind};
use super::folder::RunFolder;
use super::guard::Guarding;
use super::memory::{ExpectedMemory, Gauge, first_sequences};
use super::plan_change::PlanChange;
use super::ranks;
use super::rehearsal::Injection;
use super::schedule::Schedule;
use super::skip::SkipRecord;
use super::timing::Timing;
use crate::error::Error;

/// A run between two steps.
pub struct Trainer {
    model: Bert,
    pub(super) session: Session,
    pub(super) world: World,
    /// This rank's sequences of every batch.
    share: Share,
    optimizer: MasterOptimizer,
    scaler: LossScaler,
    pub(super) plan: Plan,
    /// Every decision about the plan so far.
    pub(super) decisions: Vec<Decision>,
    pub(super) guarding: Option<Guarding>,
    rehearsal: Vec<Injection>,
    schedule: Schedule,
    pub(super) source: Source,
    pub(super) progress: Progress,
    device: Device,
    drops: bool,
    pub(super) memory: Gauge,
    timing: Timing,
}

/// A run that goes on.
pub struct Resumed {
    /// The run.
    pub trainer: Trainer,
    /// Checkpoints newer than the one it goes on from, which are damaged.
    pub damaged: Vec<SetAside>,
    /// That its plan is another one from now on.
    pub plan_change: Option<PlanChange>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The same in parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<SkipRecord>,
}

/// The data of a run.
pub enum Source {
    /// Generated.
    HiddenMarkov(HiddenMarkovSource),
    /// Read.
    Text(Box<TextCorpus>),
}

impl Source {
    /// Token ids, the special ones included.
    pub fn vocab_size(&self) -> usize {
        self.masked().vocab_size()
    }

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
    let plan = match &numerics.plan {
        Some(path) => Plan::load(path)?,
        None => {
            let recipe = match &numerics.recipe {
                Some(name) => named_recipe(name)?,
                None if numerics.rules.is_empty() => Recipe::preset("fp32")?,
                None => Recipe::of_rules("rules", numerics.rules.clone()),
            };
            Plan::from_recipe(&recipe, &mantissa::sites(model))?
        }
    };
    Ok(overridden(plan, numerics))
}

/// The plan with what the configuration has in place of its own.
pub fn overridden(mut plan: Plan, numerics: &NumericsConfig) -> Plan {
    if let Some(loss_scaling) = &numerics.loss_scaling {
        plan.loss_scaling = loss_scaling.clone();
    }
    if let Some(storage) = &numerics.storage {
        plan.storage = storage.clone();
    }
    if let Some(states) = numerics.states {
        plan.states = states;
    }
    plan
}

/// The preset of this name, or the recipe in this file where the name ends in `.toml`.
pub fn named_recipe(name: &str) -> Result<Recipe, Error> {
    if !name.ends_with(".toml") {
        return Ok(Recipe::preset(name)?);
    }
    let text = std::fs::read_to_string(name).map_err(|source| Error::Read {
        path: name.into(),
        source,
    })?;
    Ok(Recipe::from_toml(&text)?)
}

impl Trainer {
    /// A run at its first step. Without `plan`, the one that the configuration names.
    pub fn new(config: &RunConfig, source: Source, plan: Option<Plan>) -> Result<Self, Error> {
        let memory = Gauge::start();
        let device = Device::flex().autodiff();
        let model = config
            .bert(source.masked().vocab_size())
            .init(config.training.seed, &device)?;
        let plan = match plan {
            Some(plan) => plan,
            None => configured_plan(config, &model)?,
        };
        let model = storage::store(model, &plan).map_err(PlanError::from)?;
        let session = Session::bind(&model, &plan, config.training.seed)?;
        Ok(Self {
            optimizer: optimizer(config, &plan, &model)?.with_session(&session),
            scaler: LossScaler::for_plan(&plan),
            schedule: config.schedule(),
            progress: Progress {
                seed: config.training.seed,
                ..Progress::default()
            },
            world: World::alone(),
            share: session.share(config.training.batch_size)?,
            model,
            session,
            rehearsal: rehearsal(config, &plan)?,
            plan,
            decisions: Vec::new(),
            guarding: None,
            source,
            device,
            drops: config.model.dropout > 0.0,
            memory,
            timing: Timing::default(),
        })
    }

    /// A run that goes on from its newest whole checkpoint, or from its first step if it has none; under the plan that
    /// the configuration names now if `changes_plan`, else under its own.
    pub fn resume(
        config: &RunConfig,
        source: Source,
        folder: &RunFolder,
        changes_plan: bool,
    ) -> Result<Resumed, Error> {
        Self::go_on(config, source, folder, u64::MAX, |model, _| {
            let configured = changes_plan.then(|| configured_plan(config, model));
            configured.transpose()
        })
    }

    /// A run that goes on from its newest whole checkpoint of a step before `before`, or from its first step if it has none;
    /// under the plan that `replan` makes of what was saved, else under its own.
    pub(super) fn go_on(
        config: &RunConfig,
        source: Source,
        folder: &RunFolder,
        before: u64,
        replan: impl FnOnce(&Bert, Option<&Checkpoint<Bert>>) -> Result<Option<Plan>, Error>,
    ) -> Result<Resumed, Error> {
        let memory = Gauge::start();
        let device = Device::flex().autodiff();
        let model = config
            .bert(source.masked().vocab_size())
            .init(config.training.seed, &device)?;
        let checkpoints = folder.checkpoints();
        let Some(latest) = checkpoint::load_latest_before(&checkpoints, before, &model)? else {
            let saved = Plan::load(folder.plan())?;
            let replanned = replan(&model, None)?;
            let plan_change = replanned
                .as_ref()
                .and_then(|plan| PlanChange::between(&saved, plan, 0));
            let mut trainer = Self::new(config, source, Some(replanned.unwrap_or(saved)))?;
            trainer.decisions.extend(plan_change.iter().map(Into::into));
            return Ok(Resumed {
                trainer,
                damaged: Vec::new(),
                plan_change,
            });
        };
        let mut saved = latest.checkpoint;
        tracing::info!(checkpoint = %latest.path.display(), step = saved.progress.step, "resumed");
        let replanned = replan(&model, Some(&saved))?;
        let plan_change = replanned
            .as_ref()
            .and_then(|plan| PlanChange::between(&saved.plan, plan, saved.progress.step));
        let plan = replanned.unwrap_or_else(|| saved.plan.clone());
        let model = storage::store(saved.model, &plan).map_err(PlanError::from)?;
        let session = Session::bind(&model, &plan, saved.progress.seed)?;
        // Under other numerics the amaxes calibrate anew, and a loss scale found under another loss scaling says little.
        session.restore_amaxes(saved.amaxes.carried_over(&saved.plan, &plan));
        let scaler = if plan.loss_scaling == saved.plan.loss_scaling {
            saved.scaler
        } else {
            LossScaler::for_plan(&plan)
        };
        let optimizer = optimizer(config, &plan, &model)?.with_session(&session);
        let optimizer = if plan.states == saved.plan.states {
            optimizer.load_record(saved.optimizer)?
        } else {
            optimizer.convert_record(saved.optimizer)?
        };
        let guarding = saved.guard.map(|state| {
            let mut guard = Guard::from_state(config.guard.clone(), state);
            guard.plan_changed(&saved.plan, &plan);
            Guarding::new(guard)
        });
        saved.decisions.extend(plan_change.iter().map(Into::into));
        let trainer = Self {
            optimizer,
            scaler,
            schedule: config.schedule(),
            progress: saved.progress,
            model,
            world: World::alone(),
            share: session.share(config.training.batch_size)?,
            session,
            rehearsal: rehearsal(config, &plan)?,
            plan,
            decisions: saved.decisions,
            guarding,
            source,
            device,
            drops: config.model.dropout > 0.0,
            memory,
            timing: Timing::default(),
        };
        Ok(Resumed {
            trainer,
            damaged: latest.damaged,
            plan_change,
        })
    }

    /// Goes on as one of the ranks of `world`, which must all have come to here alike.
    pub fn join(&mut self, world: &World, config: &RunConfig) -> Result<(), Error> {
        let batch = self.source.masked().batch(self.progress.step);
        let (plan, model) = (&self.plan, &self.model);
        ranks::agree_on_run(world, config, plan, self.progress, &batch, model)?;
        self.world = world.clone();
        self.session.join(world, config.training.wire);
        self.share = self.session.share(config.training.batch_size)?;
        Ok(())
    }

    /// Takes one step.
    pub fn step(&mut self) -> StepRecord {
        let step = self.progress.step;
        // Dropout draws from the device's generator; seeding it anew makes each step a function of its number. Without dropout
        // the generator, from which another run may be drawing its weights, is left alone.
        if self.drops {
            self.device.seed(self.progress.seed ^ step.rotate_left(32));
        }
        self.rehearse(step);
        self.prepare_measurement(step);
        self.session.begin_step(step);
        let began = Instant::now();
        let batch = self.source.masked().rows(step, self.share.rows());
        let drawn = Instant::now();
        let loss = self.session.autocast(|| self.model.forward_loss(&batch));
        let loss = self.share.part(loss);
        self.memory.sample();
        let forward = Instant::now();
        let injected = self.rehearsal.iter();
        let factor: f64 = injected
            .map(|injection| injection.learning_rate_factor(step, &self.decisions))
            .product();
        let learning_rate = factor * self.schedule.learning_rate(self.progress.applied);
        let loss_scale = self.scaler.loss_scale();
        let gradients = self.scaler.scale(loss).backward();
        self.memory.sample();
        let backward = Instant::now();
        let outcome =
            self.optimizer
                .step(learning_rate, &mut self.model, gradients, &mut self.scaler);

        self.memory.sample();
        let moments = [began, drawn, forward, backward, Instant::now()];
        self.timing.add(moments);

        self.progress.step += 1;
        let (loss, cause) = match outcome {
            Step::Applied { loss, .. } => {
                self.progress.applied += 1;
                (loss, None)
            }
            Step::Skipped { cause } => {
                self.progress.skipped += 1;
                (cause.loss, Some(cause))
            }
        };
        StepRecord {
            step,
            loss: Some(loss).filter(|loss| loss.is_finite()),
            loss_scale,
            learning_rate,
            skipped: cause.is_some(),
            skip: cause.as_ref().map(SkipRecord::of),
            cause: cause.map(|cause| cause.to_string()),
        }
    }

    /// Does what is to be rehearsed at the beginning of `step`.
    fn rehearse(&mut self, step: u64) {
        self.rehearse_lasting(step);
        for injection in &self.rehearsal {
            let model = self.model.clone();
            let model = injection.strike(step, &self.decisions, &self.plan, model);
            self.model = model.expect("injections were checked with the plan");
        }
    }

    /// Of what is to be rehearsed, that which lasts and is there at `step`.
    fn rehearse_lasting(&self, step: u64) {
        for injection in &self.rehearsal {
            let done = injection.last(step, &self.session);
            done.expect("injections were checked with the plan");
        }
    }

    /// What the run is expected to take of memory. Computes the gradients of parts of the next batch, which leaves no trace.
    pub fn expected_memory(&self) -> Result<ExpectedMemory, Error> {
        let parameters = ParameterMemory::expected(&self.model, &self.plan, &self.optimizer)?;
        let step = self.progress.step;
        let batch = self.source.masked().rows(step, self.share.rows());
        // Of its own: what is tried neither counts for the run's amaxes nor waits for other ranks.
        let session = Session::bind(&self.model, &self.plan, self.progress.seed)?;
        // Memory that is kept for the next step is given back after a step that does not use it.
        let give_back = || (0..2).for_each(|_| session.begin_step(step));
        give_back();
        let gauge = Gauge::start();
        let activations = |sequences: usize| {
            give_back();
            let batch = first_sequences(&batch, sequences);
            let loss = session.autocast(|| self.model.forward_loss(&batch));
            let forward = gauge.now();
            let gradients = loss.backward();
            let backward = gauge.now().saturating_sub(parameters.gradients);
            drop(gradients);
            forward.max(backward)
        };
        let expected = ExpectedMemory::new(&parameters, batch.shape.batch_size, activations);
        give_back();
        Ok(expected)
    }

    /// The most bytes that were allocated since the model was made, between the parts of any step.
    pub fn peak_memory(&self) -> usize {
        self.memory.peak()
    }

    /// Where the time of the steps went.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// Mean loss on the evaluation set, computed in the plan's numerics.
    pub fn evaluate(&self) -> f64 {
        self.rehearse_lasting(self.progress.step);
        self.session.begin_step(self.progress.step);
        self.session
            .autocast(|| self.model.evaluate(self.source.masked().evaluation()))
    }

    /// Writes a checkpoint, removes those that are too old, and returns its path; or does neither if weights are not
    /// finite, since no run can go on from there. Only the first rank writes; all that a later step depends on is the same
    /// on every rank, and here they make sure of the weights.
    pub fn save(&self, folder: &RunFolder, keep: usize) -> Result<Option<PathBuf>, Error> {
        ranks::agree_on_weights(&self.world, self.progress.step, &self.model)?;
        if !self.world.is_first() || !non_finite_weights(&self.model).is_empty() {
            return Ok(None);
        }
        let checkpoints = folder.checkpoints();
        let saved = checkpoint::save(
            &checkpoints,
            &self.model,
            &self.session,
            &self.optimizer,
            &self.scaler,
            Decided {
                plan: &self.plan,
                decisions: &self.decisions,
                guard: self.guarding.as_ref().map(Guarding::state),
            },
            self.progress,
        )?;
        tracing::info!(checkpoint = %saved.display(), "saved");
        let guarding = self.guarding.as_ref();
        // A run in trouble may have to go back to before all that it saves now.
        if !guarding.is_some_and(Guarding::is_in_trouble) {
            let at_least = if guarding.is_some() { 2 } else { 1 };
            checkpoint::prune(&checkpoints, keep.max(at_least))?;
        }
        Ok(Some(saved))
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

    /// Goes on measuring into the profile that the run had when it stopped; the first rank keeps what all had measured.
    pub fn resume_profiling(&self, config: ProfilerConfig, earlier: &Profile) -> Result<(), Error> {
        let measured = earlier.last_step();
        let sites: Vec<Site> = earlier.sites.iter().map(|site| site.site.clone()).collect();
        let others = Profile::new(&sites);
        let mine = if self.world.is_first() {
            earlier
        } else {
            &others
        };
        Ok(self.session.resume_profiling(config, mine, measured)?)
    }

    /// What all ranks have measured so far, on the first.
    pub fn profile(&self) -> Result<Option<Profile>, Error> {
        let profile = self.session.profile();
        profile
            .map(|profile| ranks::merged(&self.world, profile))
            .transpose()
    }

    /// Ends measuring.
    pub fn finish_profiling(&self) -> Option<Profiler> {
        self.session.finish_profiling()
    }

    /// How far the run has come.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// The plan in force.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Every decision about it so far.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// The products of the model.
    pub fn sites(&self) -> Vec<Site> {
        mantissa::sites(&self.model)
    }

    /// Whether this is the rank that writes.
    pub fn is_first(&self) -> bool {
        self.world.is_first()
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

/// The faults to inject, which the plan's sites must know.
fn rehearsal(config: &RunConfig, plan: &Plan) -> Result<Vec<Injection>, Error> {
    let injections = config.training.inject.clone();
    injections
        .iter()
        .try_for_each(|injection| injection.check(plan))?;
    Ok(injections)
}

fn optimizer(config: &RunConfig, plan: &Plan, model: &Bert) -> Result<MasterOptimizer, Error> {
    let training = &config.training;
    let optimizer = AdamWConfig::new().with_weight_decay(training.weight_decay);
    let groups = ParameterGroups {
        states: plan.states,
        exempt_below: config.parameters.exempt_below,
        groups: config.parameters.groups.clone(),
    };
    let optimizer = MasterOptimizer::new(optimizer).with_groups(&groups, model)?;
    Ok(match training.max_norm {
        Some(max_norm) => optimizer.with_max_norm(max_norm),
        None => optimizer,
    })
}
