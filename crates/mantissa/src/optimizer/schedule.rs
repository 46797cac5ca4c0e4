//! Learning rates of applied steps.

use burn::lr_scheduler::LrSchedulerRecord;
use burn::lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler};

use super::step::Step;

/// One of Burn's learning-rate schedulers, which advances only on steps that were applied: a skipped step is tried again at the
/// same rate, and a warm-up has as many updates as it says.
///
/// ```
/// use burn::lr_scheduler::noam::NoamLrSchedulerConfig;
/// use mantissa::Step;
/// use mantissa::optimizer::AppliedSchedule;
///
/// let scheduler = NoamLrSchedulerConfig::new(0.1).with_warmup_steps(100).init()?;
/// let mut schedule = AppliedSchedule::new(scheduler);
/// let first = schedule.rate().base();
/// schedule.observe(&Step::Applied { loss: 2.0, loss_scale: 1.0, gradient_norm: 0.5 });
/// assert!(schedule.rate().base() > first);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone)]
pub struct AppliedSchedule {
    scheduler: ModuleLrScheduler,
    /// Of the next step.
    rate: ModuleLearningRate,
    /// The scheduler's state before it gave `rate`.
    before: LrSchedulerRecord,
}

impl AppliedSchedule {
    /// Starts with the scheduler's next rate.
    pub fn new(scheduler: impl Into<ModuleLrScheduler>) -> Self {
        let mut scheduler = scheduler.into();
        let before = scheduler.to_record();
        let rate = scheduler.step();
        Self {
            scheduler,
            rate,
            before,
        }
    }

    /// The learning rate of the next step, for [`MasterOptimizer::step`](super::MasterOptimizer::step).
    pub fn rate(&self) -> ModuleLearningRate {
        self.rate.clone()
    }

    /// Advances if `step` was applied.
    pub fn observe(&mut self, step: &Step) {
        if matches!(step, Step::Applied { .. }) {
            self.before = self.scheduler.to_record();
            self.rate = self.scheduler.step();
        }
    }

    /// The scheduler's state, from which a schedule continues with the present rate.
    pub fn into_record(self) -> LrSchedulerRecord {
        self.before
    }

    /// Continues from a saved state.
    pub fn load_record(self, record: LrSchedulerRecord) -> Self {
        Self::new(self.scheduler.load_record(record))
    }
}
