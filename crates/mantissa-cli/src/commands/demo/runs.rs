//! The training runs of the demo.

use std::path::{Path, PathBuf};

use mantissa::plan::{Plan, Recipe, Site};

use crate::commands::train::{Summary, has_diverged};
use crate::error::Error;
use crate::report::folders::StudyRun;
use crate::training::config::NumericsConfig;
use crate::training::cores::do_all;
use crate::training::folder::folder_name;
use crate::training::trainer::open_source;
use crate::training::{Progress, RunConfig, RunFolder, Trainer};

/// Extra full-precision seeds; with the reference run they give the spread between seeds.
pub const EXTRA_SEEDS: u64 = 2;

/// The name of what the others are compared with.
const FULL_PRECISION: &str = "full precision";

/// The settings that a user who does not measure would try.
const NAIVE: [(&str, &str); 2] = [
    ("naive int8/tensor", "int8-tensor"),
    ("naive e5m2/unscaled", "e5m2-unscaled"),
];

/// One training run to do.
pub struct Job {
    pub name: String,
    pub plan: Plan,
    /// What the configuration says of the plan.
    pub numerics: NumericsConfig,
    pub seed: u64,
}

/// One training run done.
#[derive(Clone)]
pub struct Outcome {
    pub plan: Plan,
    pub name: String,
    pub seed: u64,
    pub final_loss: f64,
    pub skipped_steps: u64,
    pub diverged: bool,
}

/// What to train: full precision, the plan and the naive settings from one seed, then full precision from others.
pub fn jobs(plan: &Plan, folder: &RunFolder, sites: &[Site], seed: u64) -> Result<Vec<Job>, Error> {
    let recipe = |name: &str, preset: &str, seed| {
        Ok::<_, Error>(Job {
            name: name.to_owned(),
            plan: Plan::from_recipe(&Recipe::preset(preset)?, sites)?,
            numerics: NumericsConfig {
                recipe: Some(preset.to_owned()),
                ..NumericsConfig::default()
            },
            seed,
        })
    };
    let mut jobs = vec![
        recipe(FULL_PRECISION, "fp32", seed)?,
        Job {
            name: "mantissa plan".to_owned(),
            plan: plan.clone(),
            numerics: NumericsConfig {
                plan: Some(folder.plan()),
                ..NumericsConfig::default()
            },
            seed,
        },
    ];
    for (name, preset) in NAIVE {
        jobs.push(recipe(name, preset, seed)?);
    }
    for extra in 1..=EXTRA_SEEDS {
        jobs.push(recipe(FULL_PRECISION, "fp32", seed.wrapping_add(extra))?);
    }
    Ok(jobs)
}

impl Job {
    /// Where its run lies in the folder of the demo.
    fn folder(&self) -> PathBuf {
        Path::new(&folder_name(&self.name)).join(format!("seed-{}", self.seed))
    }
}

/// Trains every job.
pub fn train_all(
    config: &RunConfig,
    jobs: Vec<Job>,
    folder: &RunFolder,
    progress: &Progress,
) -> Result<Vec<Outcome>, Error> {
    folder.write_study_index(jobs.iter().map(|job| StudyRun {
        predicted_quality_loss: None,
        name: job.name.clone(),
        folder: job.folder(),
    }))?;
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
    config.numerics = job.numerics.clone();
    config.resolve_paths(Path::new(""))?;
    let mut trainer = Trainer::new(&config, open_source(&config, None)?, Some(job.plan.clone()))?;
    let name = match job.name.as_str() {
        FULL_PRECISION => format!("{FULL_PRECISION} {}", job.seed),
        name => name.to_owned(),
    };
    let folder = RunFolder::create(&folder.path().join(job.folder()))?;
    trainer.plan().save(folder.plan())?;
    folder.write_config(&config)?;
    let mut log = folder.open_log(0)?;
    let steps = config.training.steps;
    let bar = progress.steps(name.clone(), steps, 0);
    for _ in 0..steps {
        let record = trainer.step();
        log.push(&record)?;
        bar.set_message(loss_message(record.loss));
        bar.inc(1);
    }
    let final_loss = trainer.evaluate();
    bar.finish_and_clear();
    progress.line(&format!(
        "train   {name:<20} evaluation loss {final_loss:.4}"
    ));
    folder.write_summary(&Summary::of(&trainer, final_loss, &folder))?;
    folder.write_json("timing.json", trainer.timing())?;
    Ok(Outcome {
        seed: job.seed,
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
