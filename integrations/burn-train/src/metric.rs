//! What steps tell burn-train's metrics.
//!
//! burn-train processes a step's metrics on another thread, after the step and maybe after many others. So every batch leaves a
//! reading in a queue of each metric, which takes one out for each batch that it is shown.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use burn::tensor::TensorReadError;
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};

/// What is known of one batch.
struct Reading {
    loss_scale: f32,
    /// Counts the batch's own step too once that is over, which is before metrics see it.
    skipped: AtomicU64,
}

/// Readings of batches that a metric has not been shown yet.
type Queue = Mutex<VecDeque<Arc<Reading>>>;

fn lock(queue: &Queue) -> MutexGuard<'_, VecDeque<Arc<Reading>>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The queues of all metrics, and the readings of the step that is under way.
#[derive(Default)]
pub(crate) struct Readings {
    queues: Vec<Weak<Queue>>,
    unsettled: Vec<Arc<Reading>>,
}

impl Readings {
    /// A batch's loss was scaled by `loss_scale`, after `skipped` skipped steps.
    pub(crate) fn push(&mut self, loss_scale: f32, skipped: u64) {
        let reading = Arc::new(Reading {
            loss_scale,
            skipped: AtomicU64::new(skipped),
        });
        self.queues.retain(|queue| queue.strong_count() > 0);
        for queue in self.queues.iter().filter_map(Weak::upgrade) {
            lock(&queue).push_back(reading.clone());
        }
        self.unsettled.push(reading);
    }

    /// The step of the last batches is over, after `skipped` skipped steps.
    pub(crate) fn settle(&mut self, skipped: u64) {
        for reading in self.unsettled.drain(..) {
            reading.skipped.store(skipped, Ordering::Relaxed);
        }
    }
}

/// A number that each training step has: the loss scale, or the steps skipped so far. An epoch is summed up by its last value.
///
/// Register it for training only, with
/// [`metric_train_numeric`](burn::train::SupervisedTraining::metric_train_numeric), and before the first step.
#[derive(Clone)]
pub struct StepMetric {
    name: MetricName,
    description: &'static str,
    read: fn(&Reading) -> f64,
    queue: Arc<Queue>,
    last: Option<f64>,
}

impl StepMetric {
    pub(crate) fn loss_scale(readings: &mut Readings) -> Self {
        let description = "What the loss, and so every gradient, is multiplied by";
        Self::new("Loss Scale", description, readings, |reading| {
            f64::from(reading.loss_scale)
        })
    }

    pub(crate) fn skipped_steps(readings: &mut Readings) -> Self {
        let description = "Steps since the run began whose gradients were not finite";
        Self::new("Skipped Steps", description, readings, |reading| {
            reading.skipped.load(Ordering::Relaxed) as f64
        })
    }

    fn new(
        name: &str,
        description: &'static str,
        readings: &mut Readings,
        read: fn(&Reading) -> f64,
    ) -> Self {
        let queue = Arc::new(Queue::default());
        readings.queues.push(Arc::downgrade(&queue));
        Self {
            name: Arc::new(name.to_string()),
            description,
            read,
            queue,
            last: None,
        }
    }

    fn entry(&self, value: fn(f64) -> NumericEntry) -> SerializedEntry {
        match self.last {
            Some(last) => SerializedEntry::new(last.to_string(), value(last).serialize()),
            None => SerializedEntry::not_available(None),
        }
    }
}

impl Metric for StepMetric {
    type Input = ();

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn description(&self) -> Option<String> {
        Some(self.description.to_string())
    }

    fn attributes(&self) -> MetricAttributes {
        let attributes = NumericAttributes {
            unit: None,
            higher_is_better: false,
        };
        attributes.into()
    }

    fn update(&mut self, _: &(), _: &MetricMetadata) -> Result<SerializedEntry, TensorReadError> {
        if let Some(reading) = lock(&self.queue).pop_front() {
            self.last = Some((self.read)(&reading));
        }
        Ok(self.entry(NumericEntry::Value))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.entry(NumericEntry::Final))
    }

    fn clear(&mut self) {
        self.last = None;
    }
}

impl Numeric for StepMetric {
    fn value(&self) -> Option<NumericEntry> {
        self.last.map(NumericEntry::Value)
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.value()
    }

    fn final_value(&self) -> NumericEntry {
        NumericEntry::Final(self.last.unwrap_or(f64::NAN))
    }
}
