//! Learning rates that wait for skipped steps.

use burn::lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler};
use burn::lr_scheduler::{LrScheduler, LrSchedulerRecord};
use burn::optim::LearningRate;

use crate::training::Shared;

/// One of Burn's schedulers that advances only on steps that were applied: burn-train asks for a rate in every step, and after
/// a skipped one gets the same again.
#[derive(Clone)]
pub(crate) struct AppliedScheduler {
    scheduler: ModuleLrScheduler,
    training: Shared,
    /// Of the last step.
    rate: Option<ModuleLearningRate>,
    /// The scheduler's state before it gave that rate.
    before: LrSchedulerRecord,
}

impl AppliedScheduler {
    pub(crate) fn new(scheduler: ModuleLrScheduler, training: Shared) -> Self {
        Self {
            before: scheduler.to_record(),
            scheduler,
            training,
            rate: None,
        }
    }
}

impl LrScheduler for AppliedScheduler {
    fn step(&mut self) -> LearningRate {
        let mut training = self.training.lock();
        let rate = match self.rate.take() {
            Some(rate) if training.repeats_rate => rate,
            _ => {
                self.before = self.scheduler.to_record();
                self.scheduler.step()
            }
        };
        training.rate = Some(rate.clone());
        self.rate.insert(rate).base()
    }

    /// The state from which the next step's rate follows.
    fn to_record(&self) -> LrSchedulerRecord {
        if self.training.lock().repeats_rate {
            self.before.clone()
        } else {
            self.scheduler.to_record()
        }
    }

    fn load_record(&mut self, record: LrSchedulerRecord) {
        self.scheduler = self.scheduler.clone().load_record(record.clone());
        self.before = record;
        self.rate = None;
    }
}
