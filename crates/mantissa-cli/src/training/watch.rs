//! What a watched run tells while it happens: the files of its folder, lines on the terminal, events.

use std::time::Instant;

use mantissa::plan::guard::{Divergence, Measurement, Verdict};
use mantissa::plan::{Decision, Pass};
use serde::Serialize;

use super::config::RunConfig;
use super::folder::{Log, RunFolder};
use super::guard::GuardSummary;
use super::progress::Progress;
use super::trainer::{StepRecord, Trainer};
use crate::error::Error;
use crate::terminal;

/// The share of the training time that measuring should stay below.
const MOST_OVERHEAD: f64 = 0.05;
/// Decisions of one step that are printed one by one.
const MOST_LINES: usize = 6;

/// The files and the voice of a watched run.
pub struct Watch {
    folder: RunFolder,
    progress: Progress,
    as_json: bool,
    started: Instant,
    /// On the first rank; measurements only if the run is watched.
    measurements: Option<Log>,
    decisions: Option<Log>,
}

/// A line of `--json`.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    Guard {
        step: u64,
        /// Passes that were measured.
        passes: usize,
        /// Those whose backward error may be beyond its bound.
        beyond: usize,
        /// The pass that uses up most of its bound.
        worst: Option<Worst<'a>>,
    },
    Decision {
        #[serde(flatten)]
        decision: &'a Decision,
    },
    GuardSummary {
        #[serde(flatten)]
        summary: GuardSummary,
        measured_steps: u64,
        /// The time that measuring took, as a share of the rest.
        overhead: f64,
    },
}

#[derive(Serialize)]
struct Worst<'a> {
    site: &'a str,
    pass: Pass,
    backward_error_high: f64,
    backward_error_bound: f64,
}

impl Watch {
    /// Opens the files of a run at its next step.
    pub fn start(
        folder: &RunFolder,
        trainer: &Trainer,
        progress: &Progress,
        as_json: bool,
    ) -> Result<Self, Error> {
        let mut watch = Self {
            folder: folder.clone(),
            progress: progress.clone(),
            as_json,
            started: Instant::now(),
            measurements: None,
            decisions: None,
        };
        if let Some(guarding) = trainer.guarding() {
            let settings = guarding.settings();
            progress.line(&format!(
                "guard   measures every {} steps; promotes what is out of budget, at most {} rollbacks",
                settings.every, settings.max_rollbacks
            ));
        }
        if trainer.is_first() {
            watch.open(trainer)?;
        }
        Ok(watch)
    }

    /// Files as of the trainer's step, of what there is something to say about.
    fn open(&mut self, trainer: &Trainer) -> Result<(), Error> {
        let folder = &self.folder;
        let is_guarded = trainer.guarding().is_some();
        if is_guarded || folder.measurements().is_file() {
            self.measurements = Some(folder.open_measurements(trainer.progress().step)?);
        }
        if is_guarded || !trainer.decisions().is_empty() || folder.decisions().is_file() {
            self.decisions = Some(folder.open_decisions(trainer.decisions())?);
        }
        trainer.plan().save(folder.plan())?;
        Ok(())
    }

    /// Lets the guard see a step, and tells what it saw and decided.
    pub fn follow(&mut self, trainer: &mut Trainer, record: &StepRecord) -> Result<Verdict, Error> {
        let watched = trainer.watch(record)?;
        if let Some(log) = &mut self.measurements {
            log.extend(&watched.measurements)?;
        }
        if self.as_json && !watched.measurements.is_empty() {
            terminal::print_json(&measured(&watched.measurements), false)?;
        }
        self.tell(trainer, &watched.decisions)?;
        Ok(watched.verdict)
    }

    /// Has a run that diverged go on from before, and tells it.
    pub fn roll_back(
        &mut self,
        trainer: Trainer,
        config: &RunConfig,
        divergence: &Divergence,
    ) -> Result<Trainer, Error> {
        let (trainer, made) = trainer.roll_back(config, &self.folder, divergence)?;
        self.tell(&trainer, &made)?;
        if trainer.is_first() {
            self.open(&trainer)?;
        }
        Ok(trainer)
    }

    fn tell(&mut self, trainer: &Trainer, made: &[Decision]) -> Result<(), Error> {
        if made.is_empty() {
            return Ok(());
        }
        if let Some(log) = &mut self.decisions {
            log.extend(made)?;
        }
        if trainer.is_first() {
            trainer.plan().save(self.folder.plan())?;
        }
        for decision in made.iter().take(MOST_LINES) {
            self.progress.line(&format!("guard   {decision}"));
        }
        if made.len() > MOST_LINES {
            self.progress.line(&format!(
                "guard   and {} more, in {}",
                made.len() - MOST_LINES,
                self.folder.decisions().display()
            ));
        }
        if self.as_json {
            for decision in made {
                terminal::print_json(&Event::Decision { decision }, false)?;
            }
        }
        Ok(())
    }

    /// Tells what the guard did and what it cost.
    pub fn finish(&self, trainer: &Trainer) -> Result<(), Error> {
        let Some(guarding) = trainer.guarding() else {
            return Ok(());
        };
        let (spent, measured_steps) = trainer.guard_time();
        let rest = self.started.elapsed().saturating_sub(spent);
        let overhead = spent.as_secs_f64() / rest.as_secs_f64().max(1e-9);
        let summary = GuardSummary::of(trainer.decisions());
        self.progress.line(&format!(
            "guard   {} promotions, {} demotions, {} rollbacks; {measured_steps} steps measured, at {:.1} % of the training time",
            summary.promotions,
            summary.demotions,
            summary.rollbacks,
            100.0 * overhead
        ));
        if overhead > MOST_OVERHEAD {
            let every = guarding.settings().every;
            let enough = (every as f64 * overhead / MOST_OVERHEAD).ceil();
            self.progress.line(&format!(
                "warning: measuring every {every} steps took more than {:.0} % of the training time; [guard] every = {enough} \
                 would stay below",
                100.0 * MOST_OVERHEAD
            ));
        }
        if self.as_json {
            let event = Event::GuardSummary {
                summary,
                measured_steps,
                overhead,
            };
            terminal::print_json(&event, false)?;
        }
        Ok(())
    }
}

/// A step's measurements in short.
fn measured(measurements: &[Measurement]) -> Event<'_> {
    let used = |measurement: &Measurement| -> Option<f64> {
        Some(measurement.backward_error_high? / measurement.backward_error_bound?)
    };
    let worst = measurements
        .iter()
        .filter_map(|measurement| Some((used(measurement)?, measurement)))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    Event::Guard {
        step: measurements.first().map_or(0, |first| first.step),
        passes: measurements.len(),
        beyond: measurements
            .iter()
            .filter(|measurement| used(measurement).is_some_and(|used| used > 1.0))
            .count(),
        worst: worst.and_then(|(_, measurement)| {
            Some(Worst {
                site: &measurement.site,
                pass: measurement.pass,
                backward_error_high: measurement.backward_error_high?,
                backward_error_bound: measurement.backward_error_bound?,
            })
        }),
    }
}
