//! `mantissa profile`.

mod merge;
mod show;

use std::path::PathBuf;
use std::time::Instant;

use mantissa::World;
use mantissa::plan::Sampling;
use mantissa::profiler::ProfilerConfig;
use serde::Serialize;

use super::train::Configuration;
use crate::error::Error;
use crate::terminal;
use crate::training::trainer::open_source;
use crate::training::{Profiled, Progress, RunConfig, Trainer, profiling, ranks};

/// Arguments of `mantissa profile`.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
    after_help = "Without a command it trains and measures. The profile holds whole sampled rows of both operands of all three passes of every product, and the \
                  statistics of each; `mantissa plan` chooses from it. `mantissa train --profile` measures any run in flight.\n\nExamples:\n  \
                  mantissa profile --data text:book.txt -o profile.safetensors\n  \
                  mantissa profile --data text:book.txt --steps 400 --every 50 -o profile.safetensors\n  \
                  mantissa profile show profile.safetensors\n  \
                  mantissa plan profile.safetensors -o plan.toml"
)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// Profile file to write
    #[arg(short, long, value_name = "FILE", required = true)]
    out: Option<PathBuf>,
    /// Replace FILE if it exists
    #[arg(long)]
    force: bool,
    /// Measure every N-th step
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// Rows of each operand in a sample
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    rows: u16,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    configuration: Configuration,
}

/// What to do with profiles that there are.
#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Tell what was measured of every operand: tails, best fit, spread, drift
    Show(show::Args),
    /// Make one profile of several of the same model
    Merge(merge::Args),
}

/// What was measured.
#[derive(Serialize)]
struct Outcome {
    event: &'static str,
    #[serde(flatten)]
    profiled: Profiled,
}

/// Runs the command.
pub fn run(mut args: Args) -> Result<(), Error> {
    match args.action.take() {
        Some(Action::Show(args)) => return show::run(args),
        Some(Action::Merge(args)) => return merge::run(args),
        None => {}
    }
    let Some(out) = args.out.take() else {
        return Err(Error::Usage("--out FILE is missing".to_owned()));
    };
    let world = World::from_environment()?;
    ranks::together(&world, || measure(args, out, &world))
}

fn measure(args: Args, out: PathBuf, world: &World) -> Result<(), Error> {
    let mut config = match &args.config {
        Some(path) => RunConfig::load(path)?,
        None => RunConfig::default(),
    };
    if args.config.is_none() {
        config.training.steps = 200;
    }
    args.configuration.apply(&mut config);
    config.check()?;
    if !args.force && out.exists() {
        return Err(Error::Exists { path: out });
    }

    let mut trainer = Trainer::new(&config, open_source(&config, None)?, None)?;
    trainer.join(world, &config)?;
    let started = Instant::now();
    let measuring = ProfilerConfig {
        every: args.every,
        sampling: Sampling {
            rows: args.rows.into(),
            ..Sampling::default()
        },
    };
    let (steps, progress) = (config.training.steps, Progress::of(world));
    let profiler = profiling::profile(&mut trainer, steps, measuring, &progress);
    let elapsed = started.elapsed();
    let (spent, steps) = (profiler.spent(), profiler.steps());
    let profile = ranks::merged(world, profiler.into_profile())?;
    if !world.is_first() {
        return Ok(());
    }
    profile.save(&out)?;
    let profiled = Profiled::new(&profile, steps, spent, elapsed, &out);
    if args.json {
        let outcome = Outcome {
            event: "profile",
            profiled,
        };
        return terminal::print_json(&outcome, false);
    }
    terminal::print(&format!("{profiled}\n"))
}
