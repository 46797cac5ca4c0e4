//! A run that is watched: what its guard sees, and what becomes of it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use mantissa::checkpoint;
use mantissa::optimizer::Verdict as SkipVerdict;
use mantissa::plan::decision::Change;
use mantissa::plan::guard::{
    Divergence, Fault, Measurement, Outcome, Settings, Skip, State, Verdict,
};
use mantissa::plan::{Decision, Guard, Plan, Sampling};
use serde::{Deserialize, Serialize};

use super::config::RunConfig;
use super::folder::RunFolder;
use super::trainer::{StepRecord, Trainer};
use crate::error::Error;

/// The guard of a run, and the time that it takes.
#[derive(Debug)]
pub struct Guarding {
    guard: Guard,
    /// Evaluating samples; taking them is counted by the session.
    evaluating: Duration,
    measured_steps: u64,
}

/// What the guard makes of a step.
#[derive(Debug)]
pub struct Watched {
    /// What was measured, if the step was due.
    pub measurements: Vec<Measurement>,
    /// What was decided; it is in force already.
    pub decisions: Vec<Decision>,
    /// What has to happen to the run.
    pub verdict: Verdict,
}

/// What the guard did in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GuardSummary {
    /// Passes that got safer numerics.
    pub promotions: usize,
    /// Passes that got them back.
    pub demotions: usize,
    /// Times the run went back to a checkpoint.
    pub rollbacks: usize,
}

/// What the first rank measured and decided, for the others.
#[derive(Serialize, Deserialize)]
struct Told {
    state: State,
    decisions: Vec<Decision>,
    plan: String,
}

impl Guarding {
    /// With a guard that may remember something.
    pub fn new(guard: Guard) -> Self {
        Self {
            guard,
            evaluating: Duration::ZERO,
            measured_steps: 0,
        }
    }

    /// What is to be kept in a checkpoint.
    pub fn state(&self) -> &State {
        self.guard.state()
    }

    /// Whether the last steps were bad.
    pub fn is_in_trouble(&self) -> bool {
        self.guard.is_in_trouble()
    }

    /// When it acts.
    pub fn settings(&self) -> &Settings {
        self.guard.settings()
    }
}

impl GuardSummary {
    /// Of all decisions of a run.
    pub fn of(decisions: &[Decision]) -> Self {
        let mut summary = Self::default();
        for decision in decisions {
            match decision.change {
                Change::Promoted(_) => summary.promotions += 1,
                Change::Demoted(_) => summary.demotions += 1,
                Change::RolledBack { .. } => summary.rollbacks += 1,
                Change::PlanChanged { .. } => {}
            }
        }
        summary
    }
}

impl Trainer {
    /// Has the run watched from here on, or not any more. A guard that goes on keeps what it remembers.
    pub fn set_guard(&mut self, settings: Option<Settings>) {
        match settings {
            None => self.guarding = None,
            Some(settings) if self.guarding.is_none() => {
                self.guarding = Some(Guarding::new(Guard::new(settings)));
            }
            Some(_) => {}
        }
    }

    /// The guard, if the run is watched.
    pub fn guarding(&self) -> Option<&Guarding> {
        self.guarding.as_ref()
    }

    /// The time that the guard has taken, and the steps it has measured.
    pub fn guard_time(&self) -> (Duration, u64) {
        let guarding = self.guarding.as_ref();
        guarding.map_or((Duration::ZERO, 0), |guarding| {
            let spent = guarding.evaluating + self.session.sampling_time();
            (spent, guarding.measured_steps)
        })
    }

    /// Has the operands of `step` sampled if the guard wants to see them.
    pub(super) fn prepare_measurement(&mut self, step: u64) {
        if let Some(guarding) = &self.guarding
            && guarding.guard.is_due(step)
        {
            self.session.sample_step(step, Sampling::default());
        }
    }

    /// Lets the guard see the step that `record` is of, and puts in force what it decides. Without a guard, the run goes on.
    pub fn watch(&mut self, record: &StepRecord) -> Result<Watched, Error> {
        let mut watched = Watched {
            measurements: Vec::new(),
            decisions: Vec::new(),
            verdict: Verdict::GoOn,
        };
        let Some(guarding) = &mut self.guarding else {
            return Ok(watched);
        };
        let started = Instant::now();
        watched.verdict = guarding.guard.see_step(record.step, outcome(record));
        let samples = self.session.take_samples();
        // Operands of a skipped step hold infinities.
        if !samples.is_empty() && !record.skipped {
            guarding.measured_steps += 1;
            let seed = self.progress.seed;
            if self.world.is_first() {
                let measured = guarding.guard.measure(&mut self.plan, &samples, seed);
                (watched.measurements, watched.decisions) = measured;
            }
            if self.world.size() > 1 {
                // Each rank saw its own rows; the first one's decide.
                let told = Told {
                    state: guarding.guard.state().clone(),
                    decisions: watched.decisions.clone(),
                    plan: self.plan.to_toml()?,
                };
                let told = serde_json::to_vec(&told).expect("it has no map with odd keys");
                let heard = self.world.gather(&told);
                if !self.world.is_first() {
                    let first: Told = serde_json::from_slice(&heard[0])
                        .expect("the first rank says what this one understands");
                    let settings = guarding.guard.settings().clone();
                    guarding.guard = Guard::from_state(settings, first.state);
                    self.plan = Plan::from_toml(&first.plan)?;
                    watched.decisions = first.decisions;
                }
            }
            if !watched.decisions.is_empty() {
                self.session.change_numerics(&self.plan)?;
                self.decisions.extend(watched.decisions.iter().cloned());
            }
        }
        guarding.evaluating += started.elapsed();
        Ok(watched)
    }

    /// The run again from a checkpoint of before it diverged, under a safer plan, and what was decided.
    pub fn roll_back(
        self,
        config: &RunConfig,
        folder: &RunFolder,
        divergence: &Divergence,
    ) -> Result<(Self, Vec<Decision>), Error> {
        let Self {
            source,
            world,
            mut plan,
            mut decisions,
            guarding,
            memory,
            session,
            ..
        } = self;
        let mut guarding = guarding.expect("only a watched run diverges");
        guarding.evaluating += session.sampling_time();
        let mut before = guarding.guard.go_back_before(divergence).max(1);
        let checkpoints = folder.checkpoints();
        let steps = checkpoint::steps(&checkpoints)?;
        if !steps.iter().any(|&step| step < before) {
            before = divergence.since.max(1);
        }
        let mut made = Vec::new();
        let resumed = Self::go_on(config, source, folder, before, |_, saved| {
            let to_step = saved.map_or(0, |saved| saved.progress.step);
            let remembered = saved.and_then(|saved| saved.guard.as_ref());
            made = guarding
                .guard
                .roll_back(&mut plan, divergence, to_step, remembered);
            Ok(Some(plan))
        })?;
        let mut trainer = resumed.trainer;
        trainer.session.take_profiling(&session);
        trainer.guarding = Some(guarding);
        trainer.memory = memory;
        decisions.extend(made.iter().cloned());
        trainer.decisions = decisions;
        // All have read before anything is deleted.
        world.wait();
        if world.is_first() {
            checkpoint::remove_from(&checkpoints, before)?;
        }
        world.wait();
        trainer.join(&world, config)?;
        Ok((trainer, made))
    }

    /// What is left of a run that has been rolled back as often as it may: its last checkpoint of before it diverged.
    pub fn give_up(
        &self,
        folder: &RunFolder,
        divergence: &Divergence,
    ) -> Result<Option<PathBuf>, Error> {
        let checkpoints = folder.checkpoints();
        self.world.wait();
        if self.world.is_first() {
            checkpoint::remove_from(&checkpoints, divergence.since.max(1))?;
        }
        Ok(checkpoint::list(&checkpoints)?.pop())
    }
}

/// A step as the guard sees it.
fn outcome(record: &StepRecord) -> Outcome {
    let Some(skip) = &record.skip else {
        let loss = record.loss.map_or(f64::NAN, f64::from);
        return Outcome::Applied { loss };
    };
    let kind = match skip.verdict {
        SkipVerdict::BrokenWeights => Skip::Weights,
        _ if skip.exhausted => Skip::Exhausted,
        SkipVerdict::BrokenForward => Skip::Forward,
        SkipVerdict::Lowered | SkipVerdict::Kept | SkipVerdict::AtMinimum => Skip::Backward,
    };
    let fault = skip.first.as_ref().map(|first| Fault {
        site: first.site.clone(),
        pass: first.pass,
        operand: first.operand,
        count: first.count,
    });
    Outcome::Skipped { kind, fault }
}
