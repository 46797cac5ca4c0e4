//! The learning rate as a function of how many steps were applied.

use serde::{Deserialize, Serialize};

/// Linear warm-up to a peak, then a cosine down to a tenth of it.
///
/// It counts *applied* steps, so a skipped step does not advance it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The peak learning rate.
    pub peak: f64,
    /// Applied steps until the peak.
    pub warmup_steps: u64,
    /// Applied steps until the end of the cosine.
    pub total_steps: u64,
}

impl Schedule {
    /// The learning rate of the step that follows `applied` applied steps.
    pub fn learning_rate(&self, applied: u64) -> f64 {
        if applied < self.warmup_steps {
            return self.peak * (applied + 1) as f64 / self.warmup_steps as f64;
        }
        let length = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let done = ((applied - self.warmup_steps) as f64 / length as f64).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
        self.peak * (0.1 + 0.9 * cosine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_to_the_peak_and_falls_to_a_tenth() {
        let schedule = Schedule {
            peak: 1.0,
            warmup_steps: 4,
            total_steps: 104,
        };
        let rates: Vec<f64> = (0..5).map(|n| schedule.learning_rate(n)).collect();
        assert_eq!(rates, [0.25, 0.5, 0.75, 1.0, 1.0]);
        assert!((schedule.learning_rate(54) - 0.55).abs() < 1e-12);
        assert!((schedule.learning_rate(104) - 0.1).abs() < 1e-12);
        assert_eq!(schedule.learning_rate(1000), schedule.learning_rate(104));
    }

    #[test]
    fn needs_no_warmup() {
        let schedule = Schedule {
            peak: 2.0,
            warmup_steps: 0,
            total_steps: 0,
        };
        assert_eq!(schedule.learning_rate(0), 2.0);
    }
}
