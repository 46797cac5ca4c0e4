//! Measuring operands while a run trains.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mantissa::plan::Profile;
use mantissa::profiler::{Profiler, ProfilerConfig};
use serde::Serialize;

use super::config::RunConfig;
use super::folder::RunFolder;
use super::progress::Progress;
use super::trainer::Trainer;
use crate::error::Error;

/// Measuring in progress, into the profile of a run's folder.
pub struct Profiling {
    path: PathBuf,
    started: Instant,
    writing: Duration,
}

/// What was measured, and what that cost.
#[derive(Debug, Serialize)]
pub struct Profiled {
    /// The products of the model.
    pub sites: usize,
    /// How many steps were measured.
    pub measured_steps: u64,
    /// The steps whose rows are in the profile.
    pub steps: Vec<u64>,
    /// The time that it took, as a share of the time of training without it.
    pub overhead: f64,
    /// The profile.
    pub out: PathBuf,
}

/// Trains a new run to its last step, measuring.
pub fn profile(
    trainer: &mut Trainer,
    steps: u64,
    config: ProfilerConfig,
    progress: &Progress,
) -> Profiler {
    trainer.start_profiling(config);
    let bar = progress.steps("profiling", steps, 0);
    for _ in 0..steps {
        let record = trainer.step();
        bar.set_message(record.loss.map_or("loss not finite".to_owned(), |loss| {
            format!("loss {loss:.4}")
        }));
        bar.inc(1);
    }
    bar.finish_and_clear();
    trainer
        .finish_profiling()
        .expect("profiling was started above")
}

impl Profiling {
    /// Starts measuring if the configuration says so, or goes on with what the folder holds.
    pub fn start(
        config: &RunConfig,
        trainer: &Trainer,
        folder: &RunFolder,
    ) -> Result<Option<Self>, Error> {
        let Some(every) = config.profile.every else {
            return Ok(None);
        };
        let profiler = ProfilerConfig {
            every,
            ..ProfilerConfig::default()
        };
        let path = folder.profile();
        if path.exists() {
            trainer.resume_profiling(profiler, &Profile::load(&path)?)?;
        } else {
            trainer.start_profiling(profiler);
        }
        Ok(Some(Profiling {
            path,
            started: Instant::now(),
            writing: Duration::ZERO,
        }))
    }

    /// Writes what all ranks have measured. Written before a checkpoint, so that a run that goes on from it finds every step
    /// that it does not take again.
    pub fn save(&mut self, trainer: &Trainer) -> Result<(), Error> {
        let started = Instant::now();
        // Every rank has its part in this.
        let profile = trainer.profile()?;
        if let Some(profile) = profile.filter(|_| trainer.is_first()) {
            profile.save(&self.path)?;
        }
        self.writing += started.elapsed();
        Ok(())
    }

    /// Ends measuring.
    pub fn finish(self, trainer: &Trainer) -> Option<Profiled> {
        let elapsed = self.started.elapsed();
        let profiler = trainer.finish_profiling()?;
        let spent = profiler.spent() + self.writing;
        Some(Profiled::new(
            profiler.profile(),
            profiler.steps(),
            spent,
            elapsed,
            &self.path,
        ))
    }
}

impl Profiled {
    /// What `spent` of `elapsed` was spent on.
    pub fn new(
        profile: &Profile,
        measured_steps: u64,
        spent: Duration,
        elapsed: Duration,
        out: &Path,
    ) -> Self {
        let others = elapsed.saturating_sub(spent).as_secs_f64();
        Profiled {
            sites: profile.sites.len(),
            measured_steps,
            steps: profile.steps(),
            overhead: spent.as_secs_f64() / others.max(f64::MIN_POSITIVE),
            out: out.to_owned(),
        }
    }
}

impl fmt::Display for Profiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "measured {} sites on {} steps, at {:.1} % of the training time, into {}",
            self.sites,
            self.measured_steps,
            100.0 * self.overhead,
            self.out.display()
        )
    }
}
