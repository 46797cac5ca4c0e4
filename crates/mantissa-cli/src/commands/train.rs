//! `mantissa train`.

use std::path::{Path, PathBuf};

use indicatif::BinaryBytes;
use mantissa::World;
use mantissa::optimizer::StateFormats;
use mantissa::parallel::Wire;
use mantissa::plan::guard::{Divergence, Verdict};
use mantissa::plan::{LossScaling, Plan};
use serde::Serialize;
use serde_json::json;

use crate::error::Error;
use crate::report;
use crate::terminal;
use crate::training::config::{DataSource, ModelPreset, TokenizerKind};
use crate::training::guard::GuardSummary;
use crate::training::memory::ExpectedMemory;
use crate::training::ranks;
use crate::training::rehearsal::Injection;
use crate::training::trainer::open_source;
use crate::training::watch::Watch;
use crate::training::{
    PlanChange, Profiled, Profiling, Progress, RunConfig, RunFolder, SkipRecord, StepRecord,
    Trainer,
};

/// Arguments of `mantissa train`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A run is its configuration: --config FILE, with the options of this command on top of it. The result \
                  is written to DIR/config.toml, so that the folder tells what was run and --resume needs nothing \
                  else. A resumed run continues bit for bit, from its newest checkpoint that is whole. --change-plan lets it \
                  go on under another recipe or plan: scales calibrate anew where the numerics differ, and DIR/decisions.jsonl says \
                  from which step on.\n\n\
                  --profile measures the operands of every product in flight, under any recipe; `mantissa profile show` tells what \
                  was seen, `mantissa plan` chooses from it.\n\n\
                  A plan is watched while it trains: every 50th step its operands are measured (DIR/measurements.jsonl), a \
                  pass that stays out of budget gets safer numerics, and a run that diverges goes back to a checkpoint from \
                  before, with a safer plan. Every change is in DIR/decisions.jsonl with its reason. After max_rollbacks the \
                  next divergence stops the run with exit code 4. [guard] in a configuration file has the settings. \
                  --inject rehearses it: scale:SITE:FACTOR@STEP multiplies a layer's weight, outlier:SITE:FACTOR@STEP one \
                  feature of its input (and divides what reads it), learning-rate:FACTOR@STEP+STEPS the learning rate.\n\n\
                  A step whose gradients are not finite is skipped, with its cause. After max_skips of them in a row training \
                  stops with exit code 3, a diagnosis and a checkpoint whose weights are finite.\n\n\
                  Built with --features mpi it trains on several ranks: each takes its share of every batch, and all come to \
                  the same weights. Rank 0 writes DIR, which all must see.\n\nExamples:\n  \
                  mantissa train --data text:book.txt --recipe bf16 --out runs/bf16\n  \
                  mantissa train --data text:book.txt --recipe fp8-hybrid --model bert-mini --steps 5000 --out runs/fp8\n  \
                  mantissa train --data text:book.txt --plan plan.toml --out runs/plan\n  \
                  mantissa train --plan plan.toml --inject outlier:head:1000@120 --out runs/rehearsal\n  \
                  mantissa train --data text:book.txt --recipe bf16 --profile --out runs/measured\n  \
                  mantissa train --resume --out runs/fp8\n  \
                  mantissa train --resume --out runs/fp8 --change-plan bf16\n  \
                  mpirun -n 2 mantissa train --data text:book.txt --recipe bf16 --wire bf16 --out runs/two\n  \
                  mantissa train --config run.toml --out runs/again --json | jq .loss"
)]
pub struct Args {
    /// Folder of the run: configuration, plan, tokenizer, log, checkpoints, summary
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Continue the run in DIR from its last checkpoint
    #[arg(long, conflicts_with_all = ["config", "configuration"])]
    resume: bool,
    /// Go on under another recipe (its name or file) or plan file
    #[arg(long, value_name = "RECIPE|PLAN.toml", requires = "resume")]
    change_plan: Option<String>,
    /// Print JSON events to stdout, one a line and nothing else: warning, plan_changed, memory, step, guard, decision, and at the
    /// end profile, peak_memory, guard_summary and summary, or stopped
    #[arg(long)]
    json: bool,
    /// Threads to compute with; the numbers do not depend on it [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Watch the numerics while training, and change them where they are out of budget; a plan's are watched anyway
    #[arg(long, conflicts_with_all = ["no_guard", "resume"])]
    guard: bool,
    /// Train under the plan as it is
    #[arg(long, conflicts_with = "resume")]
    no_guard: bool,
    /// Rehearse a fault: scale:SITE:FACTOR@STEP, outlier:SITE:FACTOR@STEP or learning-rate:FACTOR@STEP[+STEPS]; may be given
    /// several times
    #[arg(long, value_name = "FAULT", conflicts_with = "resume")]
    inject: Vec<Injection>,
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Measure the operands of every product on every N-th step [20 if N is left out], into DIR/profile.safetensors
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "20", value_parser = clap::value_parser!(u64).range(1..))]
    profile: Option<u64>,
    #[command(flatten)]
    configuration: Configuration,
}

/// Options that are also keys of the configuration file.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(id = "configuration", multiple = true)]
pub struct Configuration {
    /// What to learn from: text:FILE (UTF-8), or hidden-markov, the synthetic source of the demo
    #[arg(long, value_name = "SOURCE")]
    pub data: Option<DataSource>,
    /// Text file to evaluate on, instead of the last tenth of the data
    #[arg(long, value_name = "FILE")]
    pub validation: Option<PathBuf>,
    /// What a token of a text is
    #[arg(long)]
    pub tokenizer: Option<TokenizerKind>,
    /// Size of a byte-pair vocabulary
    #[arg(long, value_name = "N")]
    pub vocab_size: Option<usize>,
    /// Sizes of the network; a configuration file takes any
    #[arg(long)]
    pub model: Option<ModelPreset>,
    /// Recipe: one that `mantissa recipes` lists, such as bf16 or fp8-hybrid, or a recipe file ending in .toml
    #[arg(long, value_name = "NAME", conflicts_with = "plan")]
    pub recipe: Option<String>,
    /// Plan file, as `mantissa plan` writes it
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// Loss scaling in place of the recipe's or plan's: one that `mantissa recipes` lists, or a constant; a configuration
    /// file takes any settings
    #[arg(long, value_name = "NAME")]
    pub loss_scaling: Option<LossScaling>,
    /// Formats of the optimizer's moments, such as dynamic8 or e4m3/tensor,fp16/tensor, in place of the recipe's or plan's:
    /// `mantissa formats --states` lists them; a configuration file has them by parameter, in [[parameters.groups]]
    #[arg(long, value_name = "FORMAT[,FORMAT]")]
    pub states: Option<StateFormats>,
    /// Training steps
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,
    /// Skipped steps in a row after which training stops [default: 100]
    #[arg(long, value_name = "N")]
    pub max_skips: Option<u64>,
    /// Sequences a step
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Peak learning rate
    #[arg(long, value_name = "RATE")]
    pub learning_rate: Option<f64>,
    /// Seed of weights, data order and stochastic rounding
    #[arg(long)]
    pub seed: Option<u64>,
    /// Format in which gradients travel between the ranks of `mpirun`: f32, bf16 or e4m3
    #[arg(long, value_name = "FORMAT")]
    pub wire: Option<Wire>,
    /// Steps between checkpoints
    #[arg(long, value_name = "N")]
    pub checkpoint_every: Option<u64>,
}

impl Configuration {
    /// Puts what was given on the command line on top of `config`.
    pub fn apply(self, config: &mut RunConfig) {
        fn set<T>(value: &mut T, given: Option<T>) {
            if let Some(given) = given {
                *value = given;
            }
        }
        set(&mut config.data.source, self.data);
        set(&mut config.data.tokenizer, self.tokenizer);
        set(&mut config.data.vocab_size, self.vocab_size);
        set(&mut config.model.preset, self.model);
        set(&mut config.training.steps, self.steps);
        set(&mut config.training.batch_size, self.batch_size);
        set(&mut config.training.learning_rate, self.learning_rate);
        set(&mut config.training.seed, self.seed);
        set(&mut config.training.max_skips, self.max_skips);
        set(&mut config.training.wire, self.wire);
        set(&mut config.checkpoints.every, self.checkpoint_every);
        if self.validation.is_some() {
            config.data.validation = self.validation;
        }
        if self.recipe.is_some() || self.plan.is_some() {
            config.numerics.recipe = self.recipe;
            config.numerics.plan = self.plan;
            config.numerics.rules.clear();
        }
        if self.loss_scaling.is_some() {
            config.numerics.loss_scaling = self.loss_scaling;
        }
        if self.states.is_some() {
            config.numerics.states = self.states;
        }
    }
}

/// One line of `--json`.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    Warning {
        message: String,
    },
    PlanChanged {
        #[serde(flatten)]
        change: &'a PlanChange,
    },
    Memory {
        #[serde(flatten)]
        expected: &'a ExpectedMemory,
    },
    PeakMemory {
        /// The most that was allocated between the parts of a step, since the model was made or the run was resumed.
        bytes: usize,
    },
    Step {
        #[serde(flatten)]
        record: &'a StepRecord,
    },
    Profile {
        #[serde(flatten)]
        profiled: &'a Profiled,
    },
    Summary {
        #[serde(flatten)]
        summary: &'a Summary,
    },
    Stopped {
        /// The step that would have come next.
        step: u64,
        cause: &'a str,
        /// Of a run that skipped one step after the other.
        #[serde(flatten)]
        skip: Option<&'a SkipRecord>,
        /// The last checkpoint, if there is any.
        checkpoint: Option<&'a Path>,
    },
}

/// What a finished run came to: `summary.json` in its folder.
#[derive(Debug, Serialize)]
pub struct Summary {
    steps: u64,
    final_loss: Option<f64>,
    loss_floor: Option<f64>,
    unigram_loss: f64,
    skipped_steps: u64,
    /// What the guard did, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<GuardSummary>,
    loss_scale: f32,
    diverged: bool,
    out: PathBuf,
}

impl Summary {
    /// Of a run at its end, whose evaluation loss is `final_loss`.
    pub fn of(trainer: &Trainer, final_loss: f64, folder: &RunFolder) -> Self {
        let unigram_loss = trainer.source().unigram_loss();
        Self {
            steps: trainer.progress().step,
            final_loss: Some(final_loss).filter(|loss| loss.is_finite()),
            loss_floor: trainer.source().floor(),
            unigram_loss,
            skipped_steps: trainer.progress().skipped,
            guard: trainer
                .guarding()
                .map(|_| GuardSummary::of(trainer.decisions())),
            loss_scale: trainer.loss_scale(),
            diverged: has_diverged(final_loss, unigram_loss),
            out: folder.path().to_owned(),
        }
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Error> {
    let world = World::from_environment()?;
    let threads = args.threads;
    let train = || ranks::together(&world, || train(args, &world));
    match threads {
        None => train(),
        Some(threads) => {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads.into())
                .build()
                .map_err(|error| {
                    Error::Usage(format!("cannot start {threads} threads: {error}"))
                })?;
            pool.install(train)
        }
    }
}

fn train(args: Args, world: &World) -> Result<(), Error> {
    let progress = Progress::of(world);
    let as_json = args.json && world.is_first();
    let (folder, config, mut trainer) = if args.resume {
        resume(&args, world, &progress)?
    } else {
        let mut config = match &args.config {
            Some(path) => RunConfig::load(path)?,
            None => RunConfig::default(),
        };
        args.configuration.apply(&mut config);
        if args.guard || args.no_guard {
            config.numerics.guard = Some(args.guard);
        }
        config.training.inject.extend(args.inject);
        config.profile.every = args.profile.or(config.profile.every);
        config.check()?;
        config.resolve_paths(Path::new(""))?;
        // The folder appears only once data, model and plan are known to be good; its configuration is written last,
        // since that is what makes it a run.
        let mut trainer = Trainer::new(&config, open_source(&config, None)?, None)?;
        trainer.join(world, &config)?;
        let folder = if world.is_first() {
            let folder = RunFolder::create(&args.out)?;
            trainer.plan().save(folder.plan())?;
            trainer.save_tokenizer(&folder.tokenizer())?;
            folder.write_config(&config)?;
            folder
        } else {
            RunFolder::at(&args.out)
        };
        (folder, config, trainer)
    };

    for warning in trainer.plan().warnings() {
        let message = warning.to_string();
        progress.line(&format!("warning: {message}"));
        if as_json {
            terminal::print_json(&Event::Warning { message }, false)?;
        }
    }
    let expected = trainer.expected_memory()?;
    progress.line(&format!("memory  {expected}"));
    if as_json {
        let expected = &expected;
        terminal::print_json(&Event::Memory { expected }, false)?;
    }
    if world.is_first() {
        folder.write_json("memory.json", &json!({ "expected": expected }))?;
    }
    trainer.set_guard(config.is_guarded().then(|| config.guard.clone()));
    let mut watch = Watch::start(&folder, &trainer, &progress, as_json)?;
    // A watched run can always go back to its beginning.
    if trainer.guarding().is_some() && trainer.progress().step == 0 {
        trainer.save(&folder, config.checkpoints.keep)?;
    }
    let mut log = match world.is_first() {
        true => Some(folder.open_log(trainer.progress().step)?),
        false => None,
    };
    let mut profiling = Profiling::start(&config, &trainer, &folder)?;
    let steps = config.training.steps;
    let bar = progress.steps("training", steps, trainer.progress().step);
    let report_every = (steps / 20).max(1);
    while trainer.progress().step < steps {
        let record = trainer.step();
        if let Some(log) = &mut log {
            log.push(&record)?;
        }
        if as_json {
            terminal::print_json(&Event::Step { record: &record }, false)?;
        }
        if let Some(cause) = &record.cause {
            progress.line(&format!("step {} skipped: {cause}", record.step));
        }
        let loss = record
            .loss
            .map_or("not finite".to_owned(), |loss| format!("{loss:.4}"));
        bar.set_message(format!("loss {loss}"));
        bar.inc(1);
        if bar.is_hidden() && !as_json && record.step.is_multiple_of(report_every) {
            progress.line(&format!("step {:>6}/{steps}  loss {loss}", record.step));
        }

        match watch.follow(&mut trainer, &record)? {
            Verdict::GoOn => {}
            Verdict::Diverged(divergence) => {
                trainer = watch.roll_back(trainer, &config, &divergence)?;
                if log.is_some() {
                    log = Some(folder.open_log(trainer.progress().step)?);
                }
                bar.set_position(trainer.progress().step);
                continue;
            }
            Verdict::GiveUp(divergence) => {
                bar.finish_and_clear();
                return Err(diverged(as_json, &trainer, &folder, &divergence)?);
            }
        }
        let step = trainer.progress().step;
        let keep = config.checkpoints.keep;
        let due = step.is_multiple_of(config.checkpoints.every) || step == steps;
        if due && let Some(profiling) = &mut profiling {
            profiling.save(&trainer)?;
        }
        if due && world.is_first() {
            folder.write_json("timing.json", trainer.timing())?;
        }
        if due && trainer.save(&folder, keep)?.is_none() {
            progress.line(&format!(
                "warning: no checkpoint at step {step}: the weights are not finite"
            ));
        }
        if let (Some(cause), Some(skip)) = (&record.cause, &record.skip)
            && (skip.exhausted || skip.skips_in_a_row >= config.training.max_skips)
        {
            bar.finish_and_clear();
            if let Some(profiling) = &mut profiling {
                profiling.save(&trainer)?;
            }
            let saved = trainer.save(&folder, keep)?;
            if world.is_first() {
                report::leave_page(&folder);
            }
            return Err(stopped(as_json, &folder, step, cause, skip, saved)?);
        }
    }
    bar.finish_and_clear();
    if let Some(profiled) = profiling.and_then(|profiling| profiling.finish(&trainer)) {
        progress.line(&profiled.to_string());
        if as_json {
            let profiled = &profiled;
            terminal::print_json(&Event::Profile { profiled }, false)?;
        }
    }
    for site in trainer.idle_sites() {
        progress.line(&format!(
            "warning: site {site} of the plan was never computed"
        ));
    }

    if !world.is_first() {
        return Ok(());
    }
    watch.finish(&trainer)?;
    let final_loss = trainer.evaluate();
    let summary = Summary::of(&trainer, final_loss, &folder);
    folder.write_summary(&summary)?;
    let memory = json!({ "expected": expected, "peak": trainer.peak_memory() });
    folder.write_json("memory.json", &memory)?;
    progress.line(&report::leave_page(&folder));
    if as_json {
        let bytes = trainer.peak_memory();
        terminal::print_json(&Event::PeakMemory { bytes }, false)?;
        terminal::print_json(&Event::Summary { summary: &summary }, false)
    } else {
        let floor = summary
            .loss_floor
            .map_or(String::new(), |floor| format!(", floor {floor:.4}"));
        terminal::print(&format!(
            "evaluation loss {final_loss:.4} after {steps} steps (token frequencies alone: {:.4}{floor}), {} \
             skipped, {} of memory at most; the run is in {}\n",
            summary.unigram_loss,
            summary.skipped_steps,
            BinaryBytes(trainer.peak_memory() as u64),
            folder.path().display()
        ))
    }
}

/// Opens a run that was started before, under its own plan or the one to change to.
fn resume(
    args: &Args,
    world: &World,
    progress: &Progress,
) -> Result<(RunFolder, RunConfig, Trainer), Error> {
    let as_json = args.json && world.is_first();
    let folder = RunFolder::open(&args.out)?;
    let mut config = RunConfig::load(&folder.config())?;
    if let Some(name) = &args.change_plan {
        let is_plan = name.ends_with(".toml") && Plan::load(name).is_ok();
        config.numerics.plan = is_plan.then(|| name.into());
        config.numerics.recipe = (!is_plan).then(|| name.clone());
        config.numerics.rules.clear();
        config.resolve_paths(Path::new(""))?;
    }
    if args
        .profile
        .is_some_and(|every| config.profile.every != Some(every))
    {
        config.profile.every = args.profile;
        if world.is_first() {
            folder.write_config(&config)?;
        }
    }
    let source = open_source(&config, Some(&folder))?;
    let checkpoints = mantissa::checkpoint::list(&folder.checkpoints())?;
    let newest = checkpoints
        .last()
        .and_then(|path| path.file_name()?.to_str());
    ranks::agree_on_checkpoint(world, newest)?;
    // The first rank sets damaged checkpoints aside before the others look for a whole one, and none is written before
    // all have read it.
    if !world.is_first() {
        world.wait();
    }
    let resumed = Trainer::resume(&config, source, &folder, args.change_plan.is_some())?;
    if world.is_first() {
        world.wait();
    }
    let mut trainer = resumed.trainer;
    trainer.join(world, &config)?;
    for damaged in resumed.damaged {
        let message = format!(
            "{}; it is now {}, and the run goes on from step {}",
            damaged.error,
            damaged.path.display(),
            trainer.progress().step
        );
        progress.line(&format!("warning: {message}"));
        if as_json {
            terminal::print_json(&Event::Warning { message }, false)?;
        }
    }
    if let Some(change) = &resumed.plan_change {
        progress.line(&change.to_string());
        if as_json {
            terminal::print_json(&Event::PlanChanged { change }, false)?;
        }
        // The checkpoint first: a run that is killed in between goes on as it was, and can be changed again.
        trainer.save(&folder, config.checkpoints.keep)?;
        if world.is_first() {
            trainer.plan().save(folder.plan())?;
            folder.write_config(&config)?;
        }
    }
    Ok((folder, config, trainer))
}

/// Tells why training stopped, and what is left of it.
fn stopped(
    as_json: bool,
    folder: &RunFolder,
    step: u64,
    cause: &str,
    skip: &SkipRecord,
    saved: Option<PathBuf>,
) -> Result<Error, Error> {
    let (is_saved, checkpoint) = match saved {
        Some(checkpoint) => (true, Some(checkpoint)),
        None => (
            false,
            mantissa::checkpoint::list(&folder.checkpoints())?.pop(),
        ),
    };
    if as_json {
        let event = Event::Stopped {
            step,
            cause,
            skip: Some(skip),
            checkpoint: checkpoint.as_deref(),
        };
        terminal::print_json(&event, false)?;
    }
    let saved = match &checkpoint {
        None => "no checkpoint was written, since the weights were never finite at one".to_owned(),
        Some(path) if is_saved => format!("the state is saved in {}", path.display()),
        Some(path) => format!(
            "the last checkpoint with finite weights is {}",
            path.display()
        ),
    };
    Ok(Error::Skips {
        step,
        skips: match skip.skips_in_a_row {
            1 => "1 step".to_owned(),
            count => format!("{count} steps"),
        },
        cause: cause.to_owned(),
        remedy: skip.remedy.clone(),
        saved,
    })
}

/// Tells that a run diverged once too often, and what is left of it.
fn diverged(
    as_json: bool,
    trainer: &Trainer,
    folder: &RunFolder,
    divergence: &Divergence,
) -> Result<Error, Error> {
    let checkpoint = trainer.give_up(folder, divergence)?;
    let step = trainer.progress().step;
    if as_json {
        let event = Event::Stopped {
            step,
            cause: &divergence.reason,
            skip: None,
            checkpoint: checkpoint.as_deref(),
        };
        terminal::print_json(&event, false)?;
    }
    Ok(Error::Diverged {
        step,
        cause: divergence.reason.clone(),
        rollbacks: GuardSummary::of(trainer.decisions()).rollbacks,
        decisions: folder.decisions(),
        saved: match checkpoint {
            Some(path) => format!("the last checkpoint from before is {}", path.display()),
            None => "there is no checkpoint from before".to_owned(),
        },
    })
}

/// Whether a run has learnt nothing: its loss is not finite, or no better than knowing how frequent each token is.
pub fn has_diverged(final_loss: f64, unigram_loss: f64) -> bool {
    final_loss.is_nan() || final_loss >= unigram_loss
}
