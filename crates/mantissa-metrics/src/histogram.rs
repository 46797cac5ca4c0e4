//! How many elements have which power of two.

use std::ops::RangeInclusive;

use mantissa_formats::SimdLevel;
use serde::{Deserialize, Serialize};

use crate::chunk::{CHUNK, Chunk};
use crate::exponents;

/// Exponent of the smallest f32 subnormal, 2^-149.
const LOWEST: i32 = -149;
/// Exponent of the largest finite f32.
const HIGHEST: i32 = 127;
/// Number of exponents between the two.
const BINS: usize = (HIGHEST - LOWEST + 1) as usize;
/// Bin of the smallest normal f32, 2^-126.
const SMALLEST_NORMAL: usize = (-126 - LOWEST) as usize;
/// Explicit mantissa bits of an f32.
const MANTISSA_MASK: u32 = 0x007f_ffff;
/// Elements per exponent `floor(log2 |x|)`, from −149 (the smallest f32 subnormal) to 127.
///
/// The exponent is read from the bits: from the exponent field of a normal number, from the leading
/// zeros of a subnormal one; no logarithm, so powers of two always fall into their own bin.
///
/// ```
/// use mantissa_metrics::ExponentHistogram;
///
/// let histogram = ExponentHistogram::of(&[1.0, -1.5, 2.0, 1e-3, 0.0]);
/// assert_eq!(histogram.at(0), 2);
/// assert_eq!(histogram.zeros(), 1);
/// // E4M3's smallest normal is 2^-6: what share of the elements lies below it?
/// assert_eq!(histogram.share_below(-6), 0.2);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct ExponentHistogram {
    bins: Vec<u64>,
    zeros: u64,
    non_finite: u64,
}

impl Default for ExponentHistogram {
    fn default() -> Self {
        Self {
            bins: vec![0; BINS],
            zeros: 0,
            non_finite: 0,
        }
    }
}

impl ExponentHistogram {
    /// Histogram of one slice.
    pub fn of(values: &[f32]) -> Self {
        let mut histogram = Self::default();
        histogram.push(values);
        histogram
    }

    /// Adds the elements of a slice.
    pub fn push(&mut self, values: &[f32]) {
        for chunk in values.chunks(CHUNK) {
            self.push_chunk(&Chunk::read(SimdLevel::best(), chunk));
        }
    }

    /// Adds the elements of a chunk.
    pub(crate) fn push_chunk(&mut self, chunk: &Chunk) {
        let counts = exponents::count(chunk);
        let normal = &mut self.bins[SMALLEST_NORMAL..];
        for (bin, count) in normal.iter_mut().zip(&counts[1..255]) {
            *bin += u64::from(*count);
        }
        self.non_finite += u64::from(counts[255]);
        self.zeros += u64::from(chunk.zeros);
        if counts[0] > chunk.zeros {
            for x in chunk.values {
                let magnitude = x.to_bits() & !(1 << 31);
                if magnitude.wrapping_sub(1) < MANTISSA_MASK {
                    // The value is mantissa x 2^-149, so the bin is the position of the leading
                    // one.
                    self.bins[magnitude.ilog2() as usize] += 1;
                }
            }
        }
    }

    /// Adds the elements that `other` has seen.
    pub fn merge(&mut self, other: &ExponentHistogram) {
        for (bin, count) in self.bins.iter_mut().zip(&other.bins) {
            *bin = bin.saturating_add(*count);
        }
        self.zeros = self.zeros.saturating_add(other.zeros);
        self.non_finite = self.non_finite.saturating_add(other.non_finite);
    }

    /// Elements with this exponent; 0 outside −149..=127.
    pub fn at(&self, exponent: i32) -> u64 {
        if (LOWEST..=HIGHEST).contains(&exponent) {
            self.bins[(exponent - LOWEST) as usize]
        } else {
            0
        }
    }

    /// Elements equal to zero.
    pub fn zeros(&self) -> u64 {
        self.zeros
    }

    /// Infinities and NaNs.
    pub fn non_finite(&self) -> u64 {
        self.non_finite
    }

    /// All elements seen, zeros and non-finite ones included: the denominator of every share.
    pub fn total(&self) -> u64 {
        // A file may hold any counts; a sum that saturates is still a denominator.
        self.bins
            .iter()
            .fold(self.zeros.saturating_add(self.non_finite), |sum, &count| {
                sum.saturating_add(count)
            })
    }

    /// The exponents that occur with their counts, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (i32, u64)> + '_ {
        (LOWEST..)
            .zip(self.bins.iter().copied())
            .filter(|&(_, count)| count > 0)
    }

    /// Smallest and largest exponent that occur; `None` without non-zero finite elements.
    pub fn range(&self) -> Option<RangeInclusive<i32>> {
        let mut exponents = self.iter().map(|(exponent, _)| exponent);
        let low = exponents.next()?;
        Some(low..=exponents.last().unwrap_or(low))
    }

    /// Share of all elements that are not zero and smaller in magnitude than `2^exponent`; 0
    /// without elements.
    pub fn share_below(&self, exponent: i32) -> f64 {
        self.share(|e| e < exponent)
    }

    /// Share of all elements that are finite and at least `2^exponent` in magnitude; 0 without
    /// elements.
    pub fn share_from(&self, exponent: i32) -> f64 {
        self.share(|e| e >= exponent)
    }

    fn share(&self, inside: impl Fn(i32) -> bool) -> f64 {
        let total = self.total();
        let counts = self
            .iter()
            .filter(|&(exponent, _)| inside(exponent))
            .map(|(_, count)| count);
        let count = counts.fold(0, u64::saturating_add);
        if total == 0 {
            0.0
        } else {
            count as f64 / total as f64
        }
    }
}

/// The histogram as written to a file: the bins from the first to the last one that is not empty.
#[derive(Serialize, Deserialize)]
struct Stored {
    zeros: u64,
    non_finite: u64,
    first: i32,
    bins: Vec<u64>,
}

impl From<ExponentHistogram> for Stored {
    fn from(histogram: ExponentHistogram) -> Self {
        let range = histogram.range();
        let bins = match range.clone() {
            None => Vec::new(),
            Some(range) => histogram.bins
                [(range.start() - LOWEST) as usize..=(range.end() - LOWEST) as usize]
                .to_vec(),
        };
        Stored {
            zeros: histogram.zeros,
            non_finite: histogram.non_finite,
            first: range.map_or(0, |range| *range.start()),
            bins,
        }
    }
}

impl TryFrom<Stored> for ExponentHistogram {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Self, String> {
        let mut histogram = ExponentHistogram {
            zeros: stored.zeros,
            non_finite: stored.non_finite,
            ..Self::default()
        };
        let start = usize::try_from(i64::from(stored.first) - i64::from(LOWEST)).ok();
        let bins = start.and_then(|start| {
            histogram
                .bins
                .get_mut(start..start.checked_add(stored.bins.len())?)
        });
        match bins {
            Some(bins) => bins.copy_from_slice(&stored.bins),
            None => {
                return Err(format!(
                    "exponent histogram: {} bins from {} do not fit into {LOWEST}..={HIGHEST}",
                    stored.bins.len(),
                    stored.first
                ));
            }
        }
        Ok(histogram)
    }
}
