//! The loss against its recent trend.

use serde::{Deserialize, Serialize};

/// Losses before a trend says what a spike is.
const WARM_UP: u64 = 10;
/// The share of the newest loss in the averages.
const NEWEST: f64 = 1.0 / 16.0;
/// Of a normal distribution, the standard deviation over the mean absolute difference of two draws: sqrt(pi) / 2.
const DEVIATIONS: f64 = 0.886_226_925_452_758;
/// The smallest deviation, as a share of the mean: what a loss that hardly moves may still move by.
const SMALLEST: f64 = 0.01;

/// Exponential averages of the loss and of how much it differs from one step to the next, which a falling loss hardly
/// adds to. A spike counts no more than the largest loss that is none, so that it does not hide the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trend {
    losses: u64,
    last: f64,
    mean: f64,
    difference: f64,
}

impl Trend {
    /// The largest loss within so many deviations of the trend; `None` while there are too few losses.
    pub fn limit(&self, deviations: f64) -> Option<f64> {
        let deviation = (DEVIATIONS * self.difference).max(SMALLEST * self.mean.abs());
        (self.losses >= WARM_UP).then_some(self.mean + deviations * deviation)
    }

    /// Takes in a finite loss.
    pub fn push(&mut self, loss: f64, deviations: f64) {
        let loss = self.limit(deviations).map_or(loss, |limit| loss.min(limit));
        let share = NEWEST.max(1.0 / (self.losses + 1) as f64);
        if self.losses > 0 {
            let difference = (loss - self.last).abs();
            self.difference += share * (difference - self.difference);
        }
        self.last = loss;
        self.mean += share * (loss - self.mean);
        self.losses += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(losses: impl IntoIterator<Item = f64>) -> Trend {
        let mut trend = Trend::default();
        losses.into_iter().for_each(|loss| trend.push(loss, 6.0));
        trend
    }

    fn noise(i: u64) -> f64 {
        (i as f64 * 12.9898).sin() * 0.1
    }

    #[test]
    fn a_falling_noisy_loss_is_no_spike_and_a_jump_is() {
        let loss = |i: u64| 5.0 * (-(i as f64) / 60.0).exp() + 2.0 + noise(i);
        let mut trend = Trend::default();
        for i in 0..300 {
            if let Some(limit) = trend.limit(6.0) {
                assert!(loss(i) < limit, "step {i}: {} of {limit}", loss(i));
                // While it falls, the average is above it.
                assert!(loss(i) + 2.5 > limit, "step {i}: {limit}");
            }
            trend.push(loss(i), 6.0);
        }
    }

    #[test]
    fn spikes_do_not_hide_the_next() {
        let calm = after((0..100).map(|i| 2.0 + noise(i)));
        let mut spiked = calm;
        (0..4).for_each(|_| spiked.push(1e30, 6.0));
        assert!(spiked.limit(6.0) < Some(2.0 * calm.limit(6.0).unwrap()));
    }

    #[test]
    fn a_constant_loss_may_move_a_little() {
        let trend = after([2.0; 50]);
        assert_eq!(trend.limit(6.0), Some(2.0 + 6.0 * 0.02));
        assert_eq!(after([2.0; 9]).limit(6.0), None);
    }
}
