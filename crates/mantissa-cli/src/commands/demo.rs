//! `mantissa demo`: measure, choose, train, compare.

mod comparison;
mod runs;

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mantissa::plan::{Plan, Policy, Profile, choose};
use mantissa::profiler::ProfilerConfig;
use serde_json::json;

use self::comparison::{Summary, compare, result_table};
use self::runs::{EXTRA_SEEDS, jobs, loss_message, train_all};
use crate::error::Error;
use crate::report;
use crate::terminal;
use crate::training::trainer::open_source;
use crate::training::{Progress, RunConfig, RunFolder, Trainer};

/// Arguments of `mantissa demo`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The data come from a hidden Markov source whose best reachable loss is known exactly: the floor. A \
                  small BERT is profiled in a short full-precision run, a plan is chosen from the profile, and the same \
                  network is trained in full precision, under the plan and under two naive settings, from the same \
                  seed on the same data. Further full-precision seeds give the spread that gaps are measured in.\n\n\
                  Examples:\n  \
                  mantissa demo\n  \
                  mantissa demo --steps 200 --seed 7 --out runs/quick\n  \
                  mantissa demo --json > demo.jsonl"
)]
pub struct Args {
    /// Training steps of each run
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u64).range(20..))]
    steps: u64,
    /// Seed of weights, data order and stochastic rounding
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for everything the demo makes [default: runs/demo-TIME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print JSON objects to stdout, the last one a summary, and nothing else
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Error> {
    let started = Instant::now();
    let progress = Progress::default();
    let out = args.out.clone().unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        PathBuf::from(format!(
            "runs/demo-{}",
            now.unwrap_or(Duration::ZERO).as_secs()
        ))
    });
    let folder = RunFolder::create(&out)?;
    let mut config = RunConfig::default();
    config.training.steps = args.steps;
    config.training.seed = args.seed;
    folder.write_config(&config)?;
    let say = |text: &str| progress.line(text);

    let reference = Trainer::new(&config, open_source(&config, None)?, None)?;
    let sites = reference.sites();
    let unigram_loss = reference.source().unigram_loss();
    let loss_floor = reference.source().floor().unwrap_or(0.0);
    say(&format!(
        "data    hidden Markov source, floor {loss_floor:.4} nats a masked token (token frequencies alone: {unigram_loss:.4})"
    ));

    let (profile, overhead) = measure(&config, reference, &progress)?;
    profile.save(folder.profile())?;
    let event = |value: serde_json::Value| match args.json {
        true => terminal::print_json(&value, false),
        false => Ok(()),
    };
    event(json!({
        "event": "profile",
        "sites": profile.sites.len(),
        "steps": profile.steps(),
        "overhead": overhead,
    }))?;
    say(&format!(
        "measure {} products on {} steps of full-precision training, for {:.1} % of its time",
        profile
            .sites
            .iter()
            .filter(|site| site.site.kind.is_product())
            .count(),
        profile.steps().len(),
        100.0 * overhead
    ));

    let spinner = progress.spinner("choosing the numerics of every product");
    let plan = choose(&profile, &Policy::default())?;
    plan.save(folder.plan())?;
    spinner.finish_and_clear();
    event(json!({ "event": "plan", "out": folder.plan() }))?;
    say(&format!("choose  {}", chosen(&plan)));

    let jobs = jobs(&plan, &folder, &sites, args.seed)?;
    let outcomes = train_all(&config, jobs, &folder, &progress)?;
    let (runs, seeds_spread) = compare(&outcomes, args.seed, loss_floor, &profile);
    let summary = Summary {
        event: "summary",
        loss_floor,
        unigram_loss,
        steps: args.steps,
        seed: args.seed,
        seeds_spread,
        profiling_overhead: overhead,
        seconds: started.elapsed().as_secs_f64(),
        runs,
        out,
    };
    folder.write_summary(&summary)?;
    say(&report::leave_page(&folder));
    if args.json {
        return terminal::print_json(&summary, false);
    }
    terminal::print(&format!(
        "\n{}\n{}\n",
        result_table(&summary),
        format_args!(
            "floor {loss_floor:.4}; gaps in units of {:.4}, the standard deviation of {} full-precision seeds; {:.0} s\n\
             the evidence is in {}",
            summary.seeds_spread,
            EXTRA_SEEDS + 1,
            summary.seconds,
            folder.report().display()
        )
    ))
}

/// A short full-precision run, profiled; and what profiling cost as a share of the training time.
fn measure(
    config: &RunConfig,
    mut trainer: Trainer,
    progress: &Progress,
) -> Result<(Profile, f64), Error> {
    let steps = (config.training.steps / 5).max(10);
    let started = Instant::now();
    trainer.start_profiling(ProfilerConfig {
        every: (steps / 6).max(1),
        ..ProfilerConfig::default()
    });
    let bar = progress.steps("measure", steps, 0);
    for _ in 0..steps {
        let record = trainer.step();
        bar.set_message(loss_message(record.loss));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let elapsed = started.elapsed();
    let Some(profiler) = trainer.finish_profiling() else {
        unreachable!("profiling was started above");
    };
    let spent = profiler.spent();
    Ok((
        profiler.into_profile(),
        spent.as_secs_f64() / (elapsed - spent).as_secs_f64(),
    ))
}

/// How often the plan gives each numerics to an operand.
fn chosen(plan: &Plan) -> String {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for site in plan.sites.iter().filter(|site| site.kind.is_product()) {
        for (_, _, numerics) in site.numerics.operands() {
            let name = numerics.to_string();
            match counts.iter_mut().find(|(known, _)| *known == name) {
                Some((_, count)) => *count += 1,
                None => counts.push((name, 1)),
            }
        }
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let list: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{count} x {name}"))
        .collect();
    format!(
        "for {} operands: {}",
        counts.iter().map(|(_, count)| count).sum::<usize>(),
        list.join(", ")
    )
}
