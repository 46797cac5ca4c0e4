//! `mantissa demo`: measure, choose, train, compare.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mantissa::plan::{Plan, Policy, Profile, Recipe, Site, choose};
use mantissa::profiler::ProfilerConfig;
use serde::Serialize;
use serde_json::json;

use super::train::has_diverged;
use crate::error::Error;
use crate::report::{self, Report};
use crate::terminal;
use crate::training::trainer::open_source;
use crate::training::{Progress, RunConfig, RunFolder, Trainer};

/// Extra full-precision seeds; with the reference run they give the spread between seeds.
const EXTRA_SEEDS: u64 = 2;

/// The settings that a user who does not measure would try.
const NAIVE: [(&str, &str); 2] = [
    ("naive int8/tensor", "int8-tensor"),
    ("naive e5m2/unscaled", "e5m2-unscaled"),
];

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

/// One training run to do.
struct Job {
    name: String,
    plan: Plan,
    seed: u64,
}

/// One training run done.
#[derive(Clone)]
struct Outcome {
    name: String,
    seed: u64,
    losses: Vec<(u64, f64)>,
    loss_scale: Vec<(u64, f64)>,
    final_loss: f64,
    skipped_steps: u64,
    diverged: bool,
}

/// A line of the table, and of `--json`.
#[derive(Clone, Debug, Serialize)]
struct RunSummary {
    name: String,
    final_loss: Option<f64>,
    above_floor: Option<f64>,
    gap: Option<f64>,
    gap_sigma: Option<f64>,
    skipped_steps: u64,
    bytes_per_element: Option<f64>,
    diverged: bool,
}

/// The last line of `--json`.
#[derive(Debug, Serialize)]
struct Summary {
    event: &'static str,
    loss_floor: f64,
    unigram_loss: f64,
    steps: u64,
    seed: u64,
    seeds_spread: f64,
    profiling_overhead: f64,
    seconds: f64,
    runs: Vec<RunSummary>,
    out: PathBuf,
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

    let outcomes = train_all(&config, jobs(&plan, &sites, args.seed)?, &folder, &progress)?;
    let summary = summarize(
        &args,
        &outcomes,
        loss_floor,
        unigram_loss,
        overhead,
        &profile,
        &plan,
        &sites,
    )?;
    let summary = Summary {
        seconds: started.elapsed().as_secs_f64(),
        out: out.clone(),
        ..summary
    };
    folder.write_summary(&summary)?;
    folder.write_report(&report::render(&page(
        &summary, &outcomes, &profile, &plan, &config,
    )))?;
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

fn jobs(plan: &Plan, sites: &[Site], seed: u64) -> Result<VecDeque<Job>, Error> {
    let recipe = |name: &str| Ok::<_, Error>(Plan::from_recipe(&Recipe::preset(name)?, sites)?);
    let job = |name: &str, plan, seed| Job {
        name: name.to_owned(),
        plan,
        seed,
    };
    let mut jobs = VecDeque::from([
        job("full precision", recipe("fp32")?, seed),
        job("mantissa plan", plan.clone(), seed),
    ]);
    for (name, preset) in NAIVE {
        jobs.push_back(job(name, recipe(preset)?, seed));
    }
    for extra in 1..=EXTRA_SEEDS {
        let seed = seed.wrapping_add(extra);
        jobs.push_back(job(&format!("fp32, seed {seed}"), recipe("fp32")?, seed));
    }
    Ok(jobs)
}

/// Trains every job, one on each core: numbers do not depend on the number of threads, and small products scale
/// better across runs than across threads.
fn train_all(
    config: &RunConfig,
    jobs: VecDeque<Job>,
    folder: &RunFolder,
    progress: &Progress,
) -> Result<Vec<Outcome>, Error> {
    let order: Vec<String> = jobs.iter().map(|job| job.name.clone()).collect();
    let workers = rayon::current_num_threads().clamp(1, jobs.len());
    let threads = rayon::current_num_threads().div_ceil(workers);
    let queue = Mutex::new(jobs);
    let next = || {
        queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    };
    let work = || -> Result<Vec<Outcome>, Error> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| Error::Usage(format!("cannot start {threads} threads: {error}")))?;
        let mut outcomes = Vec::new();
        while let Some(job) = next() {
            outcomes.push(pool.install(|| train(config, job, folder, progress))?);
        }
        Ok(outcomes)
    };
    let mut outcomes = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_fold(Vec::new(), |mut all, worker| {
            match worker.join() {
                Ok(outcomes) => all.extend(outcomes?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
            Ok::<_, Error>(all)
        })
    })?;
    outcomes.sort_by_key(|outcome| order.iter().position(|name| *name == outcome.name));
    Ok(outcomes)
}

fn train(
    config: &RunConfig,
    job: Job,
    folder: &RunFolder,
    progress: &Progress,
) -> Result<Outcome, Error> {
    let mut config = config.clone();
    config.training.seed = job.seed;
    let mut trainer = Trainer::new(&config, open_source(&config, None)?, Some(job.plan))?;
    let words = job.name.split(|c: char| !c.is_ascii_alphanumeric());
    let slug = words
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join("-");
    let mut log = folder.inner(&slug)?.open_log(0)?;
    let steps = config.training.steps;
    let bar = progress.steps(job.name.clone(), steps, 0);
    let (mut losses, mut loss_scale) = (Vec::new(), Vec::new());
    for step in 0..steps {
        let record = trainer.step();
        log.push(&record)?;
        if let Some(loss) = record.loss {
            losses.push((step, f64::from(loss)));
        }
        if record.loss_scale != 1.0 {
            loss_scale.push((step, f64::from(record.loss_scale)));
        }
        bar.set_message(loss_message(record.loss));
        bar.inc(1);
    }
    let final_loss = trainer.evaluate();
    bar.finish_and_clear();
    progress.line(&format!(
        "train   {:<20} evaluation loss {final_loss:.4}",
        job.name
    ));
    Ok(Outcome {
        seed: job.seed,
        losses,
        loss_scale,
        final_loss,
        skipped_steps: trainer.progress().skipped,
        diverged: has_diverged(final_loss, trainer.source().unigram_loss()),
        name: job.name,
    })
}

fn loss_message(loss: Option<f32>) -> String {
    loss.map_or("loss not finite".to_owned(), |loss| {
        format!("loss {loss:.4}")
    })
}

#[allow(clippy::too_many_arguments)]
fn summarize(
    args: &Args,
    outcomes: &[Outcome],
    loss_floor: f64,
    unigram_loss: f64,
    overhead: f64,
    profile: &Profile,
    plan: &Plan,
    sites: &[Site],
) -> Result<Summary, Error> {
    let (compared, seeds): (Vec<_>, Vec<_>) = outcomes
        .iter()
        .partition(|outcome| outcome.seed == args.seed);
    let reference = compared[0].final_loss;
    let full_precision: Vec<f64> = std::iter::once(reference)
        .chain(seeds.iter().map(|outcome| outcome.final_loss))
        .collect();
    let spread = standard_deviation(&full_precision);
    let plans = jobs(plan, sites, args.seed)?;
    let finite = |value: f64| Some(value).filter(|value| value.is_finite());
    let runs = compared
        .iter()
        .zip(&plans)
        .map(|(outcome, job)| {
            let gap = outcome.final_loss - reference;
            RunSummary {
                name: outcome.name.clone(),
                final_loss: finite(outcome.final_loss),
                above_floor: finite(outcome.final_loss - loss_floor),
                gap: finite(gap),
                gap_sigma: finite(gap / spread),
                skipped_steps: outcome.skipped_steps,
                bytes_per_element: report::bytes_per_element(profile, &job.plan),
                diverged: outcome.diverged,
            }
        })
        .collect();
    Ok(Summary {
        event: "summary",
        loss_floor,
        unigram_loss,
        steps: args.steps,
        seed: args.seed,
        seeds_spread: spread,
        profiling_overhead: overhead,
        seconds: 0.0,
        runs,
        out: PathBuf::new(),
    })
}

/// Of a sample: with n - 1 in the denominator.
fn standard_deviation(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let square: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (square / (values.len() - 1) as f64).sqrt()
}

fn result_table(summary: &Summary) -> String {
    let rows = summary
        .runs
        .iter()
        .map(|run| {
            vec![
                run.name.clone(),
                if run.diverged {
                    "diverged".to_owned()
                } else {
                    terminal::rounded(run.above_floor)
                },
                run.gap_sigma
                    .map_or("–".to_owned(), |gap| format!("{gap:+.1}")),
                run.skipped_steps.to_string(),
                run.bytes_per_element
                    .map_or("–".to_owned(), |bytes| format!("{bytes:.2}")),
            ]
        })
        .collect();
    let headings = [
        "run",
        "loss above floor",
        "gap in sigmas",
        "skipped steps",
        "bytes an operand element",
    ];
    terminal::table(&headings, 1, rows)
}

fn page(
    summary: &Summary,
    outcomes: &[Outcome],
    profile: &Profile,
    plan: &Plan,
    config: &RunConfig,
) -> Report {
    let runs = outcomes
        .iter()
        .map(|outcome| {
            let compared = summary.runs.iter().find(|run| run.name == outcome.name);
            report::Run {
                name: outcome.name.clone(),
                losses: outcome.losses.clone(),
                final_loss: Some(outcome.final_loss),
                above_floor: Some(outcome.final_loss - summary.loss_floor),
                gap: compared.and_then(|run| run.gap),
                gap_sigma: compared.and_then(|run| run.gap_sigma),
                skipped_steps: outcome.skipped_steps,
                diverged: outcome.diverged,
                bytes_per_element: compared.and_then(|run| run.bytes_per_element),
                loss_scale: outcome.loss_scale.clone(),
            }
        })
        .collect();
    let fact = |name: &str, value: String| (name.to_owned(), value);
    Report {
        title: "mantissa demo".to_owned(),
        created: String::new(),
        facts: vec![
            fact("model", "bert-tiny".to_owned()),
            fact("data", "hidden Markov source".to_owned()),
            fact("steps", summary.steps.to_string()),
            fact("batch size", config.training.batch_size.to_string()),
            fact("seed", summary.seed.to_string()),
            fact(
                "profiling",
                format!(
                    "{:.1} % of the training time",
                    100.0 * summary.profiling_overhead
                ),
            ),
        ],
        loss_floor: Some(summary.loss_floor),
        seeds_spread: Some(summary.seeds_spread),
        runs,
        windows: report::windows(),
        operands: report::operands(profile, plan),
        decisions: report::decisions(plan),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_the_sample_standard_deviation() {
        assert_eq!(standard_deviation(&[1.0, 2.0, 3.0]), 1.0);
    }
}
