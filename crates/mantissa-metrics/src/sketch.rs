//! Quantiles of magnitudes with a bound on their relative error, in one pass and mergeable.

use serde::{Deserialize, Serialize};

/// Mantissa bits that tell bins apart: 32 bins an octave.
const BITS: u32 = 5;
/// Bins an octave.
const PER_OCTAVE: usize = 1 << BITS;
/// Explicit mantissa bits of an f32.
const MANTISSA_BITS: u32 = 23;
/// Exponent of the smallest f32 subnormal, 2^-149.
const LOWEST: i32 = -149;
/// Octaves from there to the largest finite f32.
const OCTAVES: usize = 277;
/// All bins.
const BINS: usize = OCTAVES * PER_OCTAVE;
/// So many elements are added faster by a table of all bins than each by itself.
const FEW: usize = 1024;
/// The first bin of the normal numbers, 2^-126.
const FIRST_NORMAL: usize = (-126 - LOWEST) as usize * PER_OCTAVE;

/// How many elements have which magnitude, in bins so narrow that every quantile is known to
/// [`MagnitudeSketch::RELATIVE_ERROR`].
///
/// A bin is the exponent and the first five mantissa bits of an f32: 32 bins of equal width an octave. This is
/// DDSketch (Masson, Rim and Lee, VLDB 2019) with the linearly interpolated mapping of its authors' libraries, where the
/// bits of the number are the mapping: no logarithm, and no bound on the number of bins other than the range of f32. Adding
/// and merging are therefore additions of counts: exact, and the same in any order.
///
/// ```
/// use mantissa_metrics::MagnitudeSketch;
///
/// let values: Vec<f32> = (1..=1000).map(|i| i as f32).collect();
/// let mut sketch = MagnitudeSketch::of(&values[..300]);
/// sketch.merge(&MagnitudeSketch::of(&values[300..]));
/// assert_eq!(sketch, MagnitudeSketch::of(&values));
/// let p99 = sketch.quantile(0.99).unwrap();
/// assert!((p99 / 990.0 - 1.0).abs() <= MagnitudeSketch::RELATIVE_ERROR);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct MagnitudeSketch {
    zeros: u64,
    non_finite: u64,
    /// The bin of `bins[0]`.
    first: usize,
    /// Counts from the first to the last bin that is not empty.
    bins: Vec<u64>,
}

impl MagnitudeSketch {
    /// The largest distance of a quantile from the exact one, as a share of the latter: half a bin at the lower end of an
    /// octave, 1/65.
    pub const RELATIVE_ERROR: f64 = 1.0 / (2 * PER_OCTAVE + 1) as f64;

    /// The sketch of one slice.
    pub fn of(values: &[f32]) -> Self {
        let mut sketch = Self::default();
        sketch.push(values);
        sketch
    }

    /// Adds the elements of a slice.
    pub fn push(&mut self, values: &[f32]) {
        // Counters of 32 bits cannot overflow in a part of this length.
        for part in values.chunks(1 << 30) {
            if part.len() < FEW {
                self.push_few(part);
            } else {
                self.push_many(part);
            }
        }
    }

    fn push_few(&mut self, values: &[f32]) {
        for x in values.iter().map(|x| x.abs()) {
            if x == 0.0 {
                self.zeros += 1;
            } else if x.is_finite() {
                let bin = bin_of(x);
                self.reserve(bin..bin + 1);
                self.bins[bin - self.first] += 1;
            } else {
                self.non_finite += 1;
            }
        }
    }

    fn push_many(&mut self, values: &[f32]) {
        const SHIFT: u32 = MANTISSA_BITS - BITS;
        let mut counts = [0u32; 256 * PER_OCTAVE];
        for x in values {
            counts[((x.to_bits() << 1) >> (SHIFT + 1)) as usize] += 1;
        }
        let counted = |counts: &[u32]| counts.iter().map(|&count| u64::from(count)).sum::<u64>();
        let (small, others) = counts.split_at(PER_OCTAVE);
        let (normal, non_finite) = others.split_at(254 * PER_OCTAVE);
        self.non_finite += counted(non_finite);
        if let Some(start) = normal.iter().position(|&count| count > 0) {
            let end = normal.iter().rposition(|&count| count > 0).unwrap_or(start);
            self.reserve(FIRST_NORMAL + start..FIRST_NORMAL + end + 1);
            let place = FIRST_NORMAL + start - self.first;
            for (bin, &count) in self.bins[place..].iter_mut().zip(&normal[start..=end]) {
                *bin += u64::from(count);
            }
        }
        // Zeros and subnormals share an exponent field.
        if counted(small) > 0 {
            let is_small = |x: &&f32| x.abs() < f32::MIN_POSITIVE;
            values
                .iter()
                .filter(is_small)
                .for_each(|&x| self.push_few(&[x]));
        }
    }

    /// Adds the elements that `other` has seen.
    pub fn merge(&mut self, other: &MagnitudeSketch) {
        self.zeros = self.zeros.saturating_add(other.zeros);
        self.non_finite = self.non_finite.saturating_add(other.non_finite);
        if other.bins.is_empty() {
            return;
        }
        self.reserve(other.first..other.first + other.bins.len());
        let place = other.first - self.first;
        for (bin, count) in self.bins[place..].iter_mut().zip(&other.bins) {
            *bin = bin.saturating_add(*count);
        }
    }

    /// Makes room for the bins of a range.
    fn reserve(&mut self, range: std::ops::Range<usize>) {
        if self.bins.is_empty() {
            self.first = range.start;
        }
        if range.start < self.first {
            let missing = self.first - range.start;
            self.bins.splice(..0, std::iter::repeat_n(0, missing));
            self.first = range.start;
        }
        let len = self.bins.len().max(range.end - self.first);
        self.bins.resize(len, 0);
    }

    /// Finite elements, zeros included: what quantiles are about.
    pub fn count(&self) -> u64 {
        // A file may hold any counts; a sum that saturates is still a denominator.
        self.bins
            .iter()
            .fold(self.zeros, |sum, &count| sum.saturating_add(count))
    }

    /// Elements equal to zero.
    pub fn zeros(&self) -> u64 {
        self.zeros
    }

    /// Infinities and NaNs.
    pub fn non_finite(&self) -> u64 {
        self.non_finite
    }

    /// The smallest magnitude that at least this share of the finite elements does not exceed, within
    /// [`RELATIVE_ERROR`](Self::RELATIVE_ERROR); zeros are exact. `None` without finite elements, or if `share` is not from
    /// 0 to 1.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 || !(0.0..=1.0).contains(&share) {
            return None;
        }
        let rank = ((share * count as f64).ceil() as u64).clamp(1, count);
        let mut seen = self.zeros;
        if seen >= rank {
            return Some(0.0);
        }
        let bin = self.bins.iter().position(|&count| {
            seen = seen.saturating_add(count);
            seen >= rank
        });
        bin.map(|bin| representative(self.first + bin))
    }

    /// The bins that are not empty, ascending: the magnitude that stands for each, and its count.
    pub fn iter(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let counted = (self.first..).zip(self.bins.iter().copied());
        counted
            .filter(|&(_, count)| count > 0)
            .map(|(bin, count)| (representative(bin), count))
    }
}

/// The bin of a finite magnitude above zero. Every f32 is a normal f64, whose bits say it.
fn bin_of(magnitude: f32) -> usize {
    let bits = f64::from(magnitude).to_bits() >> (52 - BITS);
    bits as usize - ((1023 + LOWEST) as usize) * PER_OCTAVE
}

/// The magnitude whose relative distance to both ends of a bin is the same: their harmonic mean.
fn representative(bin: usize) -> f64 {
    let octave = 2f64.powi(LOWEST + (bin / PER_OCTAVE) as i32);
    let low = octave * (1.0 + (bin % PER_OCTAVE) as f64 / PER_OCTAVE as f64);
    let high = low + octave / PER_OCTAVE as f64;
    2.0 * low / (low + high) * high
}

/// The sketch as written to a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    zeros: u64,
    non_finite: u64,
    first: usize,
    bins: Vec<u64>,
}

impl From<MagnitudeSketch> for Stored {
    fn from(sketch: MagnitudeSketch) -> Self {
        Stored {
            zeros: sketch.zeros,
            non_finite: sketch.non_finite,
            first: sketch.first,
            bins: sketch.bins,
        }
    }
}

impl TryFrom<Stored> for MagnitudeSketch {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Self, String> {
        let Stored {
            zeros,
            non_finite,
            first,
            bins,
        } = stored;
        let fits = first.checked_add(bins.len()).is_some_and(|end| end <= BINS);
        if !fits || (bins.is_empty() && first != 0) {
            return Err(format!(
                "magnitude sketch: {} bins from {first} do not fit into {BINS}",
                bins.len()
            ));
        }
        if bins.first() == Some(&0) || bins.last() == Some(&0) {
            return Err("magnitude sketch: the first and the last bin must not be empty".into());
        }
        Ok(MagnitudeSketch {
            zeros,
            non_finite,
            first,
            bins,
        })
    }
}
