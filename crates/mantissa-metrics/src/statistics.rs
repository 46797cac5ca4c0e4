//! Everything that is asked of every tensor, in one read of it.

use mantissa_formats::SimdLevel;
use serde::{Deserialize, Serialize};

use crate::chunk::{CHUNK, Chunk};
use crate::histogram::ExponentHistogram;
use crate::moments::Moments;

/// Moments, extremes and the histogram of exponents of a tensor, in one read of it: the same as [`Moments`] and
/// [`ExponentHistogram`] each on their own, bit for bit.
///
/// ```
/// use mantissa_metrics::{ExponentHistogram, Moments, TensorStatistics};
///
/// let values = [1.0, -1.5, 2.0, 1e-3, 0.0, f32::NAN];
/// let statistics = TensorStatistics::of(&values);
/// assert_eq!(statistics.moments, Moments::of(&values));
/// assert_eq!(statistics.exponents, ExponentHistogram::of(&values));
/// assert_eq!(statistics.moments.amax, 2.0);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TensorStatistics {
    /// Count, extremes and the first four moments.
    pub moments: Moments,
    /// Elements per power of two.
    pub exponents: ExponentHistogram,
}

impl TensorStatistics {
    /// Statistics of one slice.
    pub fn of(values: &[f32]) -> Self {
        let mut statistics = Self::default();
        statistics.push(values);
        statistics
    }

    /// Adds the elements of a slice.
    pub fn push(&mut self, values: &[f32]) {
        self.push_on(SimdLevel::best(), values);
    }

    /// [`push`](Self::push) on other vector instructions, with the same result.
    pub fn push_on(&mut self, level: SimdLevel, values: &[f32]) {
        for chunk in values.chunks(CHUNK) {
            let chunk = Chunk::read(level, chunk);
            self.moments.push_chunk(&chunk);
            self.exponents.push_chunk(&chunk);
        }
    }

    /// Adds the elements that `other` has seen.
    pub fn merge(&mut self, other: &TensorStatistics) {
        self.moments.merge(&other.moments);
        self.exponents.merge(&other.exponents);
    }
}
