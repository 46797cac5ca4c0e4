//! The training runs of the demo.

use mantissa::plan::{Plan, Recipe, Site};

use crate::commands::train::has_diverged;
use crate::error::Error;
use crate::training::cores::do_all;
use crate::training::folder::folder_name;
use crate::training::trainer::open_source;
use crate::training::{Progress, RunConfig, RunFolder, Trainer};

/// Extra full-precision seeds; with the reference run they give the spread between seeds.
pub const EXTRA_SEEDS: u64 = 2;

/// The settings that a user who does not measure would try.
const NAIVE: [(&str, &str); 2] = [
    ("naive int8/tensor", "int8-tensor"),
    ("naive e5m2/unscaled", "e5m2-unscaled"),
];

/// One training run to do.
pub struct Job {
    pub name: String,
    pub plan: Plan,
    pub seed: u64,
}

/// One training run done.
#[derive(Clone)]
pub struct Outcome {
    pub plan: Plan,
    pub name: String,
    pub seed: u64,
    pub losses: Vec<(u64, f64)>,
    pub loss_scale: Vec<(u64, f64)>,
    pub final_loss: f64,
    pub skipped_steps: u64,
    pub diverged: bool,
}

/// What to train: full precision, the plan and the naive settings from one seed, then full precision from others.
pub fn jobs(plan: &Plan, sites: &[Site], seed: u64) -> Result<Vec<Job>, Error> {
    let recipe = |name: &str| Ok::<_, Error>(Plan::from_recipe(&Recipe::preset(name)?, sites)?);
    let job = |name: &str, plan, seed| Job {
        name: name.to_owned(),
        plan,
        seed,
    };
    let mut jobs = vec![
        job("full precision", recipe("fp32")?, seed),
        job("mantissa plan", plan.clone(), seed),
    ];
    for (name, preset) in NAIVE {
        jobs.push(job(name, recipe(preset)?, seed));
    }
    for extra in 1..=EXTRA_SEEDS {
        let seed = seed.wrapping_add(extra);
        jobs.push(job(&format!("fp32, seed {seed}"), recipe("fp32")?, seed));
    }
    Ok(jobs)
}

/// Trains every job.
pub fn train_all(
    config: &RunConfig,
    jobs: Vec<Job>,
    folder: &RunFolder,
    progress: &Progress,
) -> Result<Vec<Outcome>, Error> {
    do_all(jobs, usize::MAX, |job| train(config, job, folder, progress))
}

fn train(
    config: &RunConfig,
    job: Job,
    folder: &RunFolder,
    progress: &Progress,
) -> Result<Outcome, Error> {
    let mut config = config.clone();
    config.training.seed = job.seed;
    let mut trainer = Trainer::new(&config, open_source(&config, None)?, Some(job.plan.clone()))?;
    let mut log = folder.inner(&folder_name(&job.name))?.open_log(0)?;
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
        plan: job.plan,
    })
}

/// What a progress bar says of a loss.
pub fn loss_message(loss: Option<f32>) -> String {
    loss.map_or("loss not finite".to_owned(), |loss| {
        format!("loss {loss:.4}")
    })
}
