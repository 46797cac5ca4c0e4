//! `mantissa profile`.

use std::path::PathBuf;
use std::time::Instant;

use mantissa::World;
use mantissa::profiler::ProfilerConfig;
use serde::Serialize;

use super::train::Configuration;
use crate::error::Error;
use crate::terminal;
use crate::training::ranks;
use crate::training::trainer::open_source;
use crate::training::{Progress, RunConfig, Trainer};

/// Arguments of `mantissa profile`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The profile holds whole sampled rows of both operands of all three passes of every product, and the \
                  statistics of each; `mantissa plan` chooses from it.\n\nExamples:\n  \
                  mantissa profile --data text:book.txt -o profile.safetensors\n  \
                  mantissa profile --data text:book.txt --steps 400 --every 50 -o profile.safetensors\n  \
                  mantissa plan profile.safetensors -o plan.toml"
)]
pub struct Args {
    /// Profile file to write
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
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

/// What was measured.
#[derive(Serialize)]
struct Outcome {
    event: &'static str,
    sites: usize,
    steps: Vec<u64>,
    overhead: f64,
    out: PathBuf,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Error> {
    let world = World::from_environment()?;
    ranks::together(&world, || profile(args, &world))
}

fn profile(args: Args, world: &World) -> Result<(), Error> {
    let mut config = match &args.config {
        Some(path) => RunConfig::load(path)?,
        None => RunConfig::default(),
    };
    if args.config.is_none() {
        config.training.steps = 200;
    }
    args.configuration.apply(&mut config);
    config.check()?;
    if !args.force && args.out.exists() {
        return Err(Error::Exists { path: args.out });
    }

    let mut trainer = Trainer::new(&config, open_source(&config, None)?, None)?;
    trainer.join(world, &config)?;
    let started = Instant::now();
    trainer.start_profiling(ProfilerConfig {
        every: args.every,
        rows: args.rows.into(),
        ..ProfilerConfig::default()
    });
    let bar = Progress::of(world).steps("profiling", config.training.steps, 0);
    for _ in 0..config.training.steps {
        let record = trainer.step();
        bar.set_message(record.loss.map_or("loss not finite".to_owned(), |loss| {
            format!("loss {loss:.4}")
        }));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let elapsed = started.elapsed();
    let Some(profiler) = trainer.finish_profiling() else {
        unreachable!("profiling was started above");
    };
    let measuring = profiler.spent();
    let profile = ranks::merged(world, profiler.into_profile())?;
    if !world.is_first() {
        return Ok(());
    }
    profile.save(&args.out)?;

    let outcome = Outcome {
        event: "profile",
        sites: profile.sites.len(),
        steps: profile.steps(),
        overhead: measuring.as_secs_f64() / (elapsed - measuring).as_secs_f64(),
        out: args.out,
    };
    if args.json {
        return terminal::print_json(&outcome, false);
    }
    terminal::print(&format!(
        "measured {} sites on {} of {} steps, at {:.1} % of the training time, into {}\n",
        outcome.sites,
        outcome.steps.len(),
        config.training.steps,
        100.0 * outcome.overhead,
        outcome.out.display()
    ))
}
