//! Moments to the fourth in one pass, mergeable.

use mantissa_formats::{SimdLevel, prefetch_ahead};
use pulp::{Simd, WithSimd};
use serde::{Deserialize, Serialize};

use crate::chunk::{CHUNK, Chunk, INFINITY, LANES};

/// Count, extremes and the first four moments of the finite elements of a tensor.
///
/// Elements are taken in chunks. One sweep over a chunk adds the powers of its deviations from the mean
/// of a few of its elements, in f64; the sums about the chunk's own mean follow from those, and are
/// merged into the running ones with the pairwise update formulas of Chan, Golub and LeVeque (1979),
/// extended to the third and fourth order by Pébay (SAND2008-6212, 2008). The same formulas merge the
/// moments of two shards.
///
/// The error of `mean` is below 1e-12 times `amax`, and that of the sum of the `k`-th powers below
/// 1e-12 times `count * amax^k`; a mean far larger than the spread around it costs the latter nothing, for
/// deviations are then exact. Counts and extremes are exact.
///
/// All moments are of the population (divided by the count, not by the count less one).
///
/// ```
/// use mantissa_metrics::Moments;
///
/// let moments = Moments::of(&[1.0, -1.0, 0.0, f32::NAN]);
/// assert_eq!((moments.count, moments.zeros, moments.non_finite), (3, 1, 1));
/// assert_eq!(moments.amax, 1.0);
/// assert!((moments.variance().unwrap() - 2.0 / 3.0).abs() < 1e-15);
/// ```
#[derive(Copy, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// Finite elements; everything below except `non_finite` is about them.
    pub count: u64,
    /// Elements equal to zero, of either sign.
    pub zeros: u64,
    /// Infinities and NaNs, excluded from everything else.
    pub non_finite: u64,
    /// Largest magnitude; 0 without elements.
    pub amax: f32,
    /// Smallest magnitude other than zero.
    pub min_nonzero: Option<f32>,
    /// Arithmetic mean; 0 without elements.
    pub mean: f64,
    /// Sum of the squared deviations from the mean.
    pub m2: f64,
    /// Sum of the cubed deviations from the mean.
    pub m3: f64,
    /// Sum of the fourth powers of the deviations from the mean.
    pub m4: f64,
}

impl Moments {
    /// Moments of one slice.
    pub fn of(values: &[f32]) -> Self {
        let mut moments = Self::default();
        moments.push(values);
        moments
    }

    /// Adds the elements of a slice.
    pub fn push(&mut self, values: &[f32]) {
        for chunk in values.chunks(CHUNK) {
            self.push_chunk(&Chunk::read(SimdLevel::best(), chunk));
        }
    }

    /// Adds the elements of a chunk.
    pub(crate) fn push_chunk(&mut self, chunk: &Chunk) {
        self.merge(&of_chunk(chunk));
    }

    /// Adds the elements that `other` has seen.
    pub fn merge(&mut self, other: &Moments) {
        self.zeros += other.zeros;
        self.non_finite += other.non_finite;
        self.amax = self.amax.max(other.amax);
        self.min_nonzero = match (self.min_nonzero, other.min_nonzero) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            (self.count, self.mean) = (other.count, other.mean);
            (self.m2, self.m3, self.m4) = (other.m2, other.m3, other.m4);
            return;
        }
        let (na, nb) = (self.count as f64, other.count as f64);
        let n = na + nb;
        let delta = other.mean - self.mean;
        // Shares instead of counts keep every factor near one, so nothing overflows for long
        // streams of large values.
        let (pa, pb) = (na / n, nb / n);
        let between = delta * delta * pa * nb;
        let m4 = self.m4
            + other.m4
            + between * delta * delta * (pa * pa - pa * pb + pb * pb)
            + 6.0 * delta * delta * (pa * pa * other.m2 + pb * pb * self.m2)
            + 4.0 * delta * (pa * other.m3 - pb * self.m3);
        let m3 = self.m3
            + other.m3
            + between * delta * (pa - pb)
            + 3.0 * delta * (pa * other.m2 - pb * self.m2);
        self.count += other.count;
        self.mean += delta * pb;
        self.m2 += other.m2 + between;
        self.m3 = m3;
        self.m4 = m4;
    }

    /// All elements seen, finite or not: the denominator of every share.
    pub fn total(&self) -> u64 {
        self.count + self.non_finite
    }

    /// Population variance, `m2 / count`; undefined without elements.
    pub fn variance(&self) -> Option<f64> {
        (self.count > 0).then(|| self.m2 / self.count as f64)
    }

    /// Root mean square about zero; undefined without elements.
    pub fn rms(&self) -> Option<f64> {
        self.variance().map(|v| (v + self.mean * self.mean).sqrt())
    }

    /// Population skewness, `(m3/n) / (m2/n)^1.5`; undefined where the variance is zero.
    pub fn skewness(&self) -> Option<f64> {
        let variance = self.variance().filter(|&v| v > 0.0)?;
        Some(self.m3 / self.count as f64 / (variance * variance.sqrt()))
            .filter(|skewness| skewness.is_finite())
    }

    /// Population kurtosis, `(m4/n) / (m2/n)^2`, 3 for a normal; undefined where the variance is
    /// zero.
    pub fn kurtosis(&self) -> Option<f64> {
        let variance = self.variance().filter(|&v| v > 0.0)?;
        Some(self.m4 / self.count as f64 / (variance * variance))
            .filter(|kurtosis| kurtosis.is_finite())
    }
}

/// Moments of a chunk.
fn of_chunk(chunk: &Chunk) -> Moments {
    let count = chunk.values.len() as u64 - u64::from(chunk.non_finite);
    let mut moments = Moments {
        count,
        zeros: u64::from(chunk.zeros),
        non_finite: u64::from(chunk.non_finite),
        amax: f32::from_bits(chunk.amax),
        min_nonzero: (chunk.least_less_one < u32::MAX)
            .then(|| f32::from_bits(chunk.least_less_one + 1)),
        ..Moments::default()
    };
    if count == 0 {
        return moments;
    }
    let (n, shift) = (count as f64, typical(chunk.values));
    let values = chunk.values;
    let [s1, s2, s3, s4] = if chunk.is_finite() {
        chunk.level.dispatch(Powers::<false> { values, shift })
    } else {
        chunk.level.dispatch(Powers::<true> { values, shift })
    };
    // From powers of deviations from the shift to those of deviations from the mean.
    let delta = s1 / n;
    let delta2 = delta * delta;
    moments.mean = f64::from(shift) + delta;
    moments.m2 = (s2 - s1 * delta).max(0.0);
    moments.m3 = s3 - 3.0 * delta * s2 + 2.0 * delta2 * s1;
    moments.m4 = (s4 - 4.0 * delta * s3 + 6.0 * delta2 * s2 - 3.0 * delta2 * delta * s1).max(0.0);
    moments
}

/// The mean of some finite elements from all over a chunk, so that deviations from it are not much larger than from the mean. For
/// a constant chunk it is exactly its value.
#[inline(always)]
fn typical(values: &[f32]) -> f32 {
    let mut finite = values
        .iter()
        .step_by(values.len().div_ceil(2 * LANES).max(1))
        .filter(|x| x.is_finite())
        .map(|&x| f64::from(x));
    let Some(first) = finite.next() else {
        return 0.0;
    };
    let (mut sum, mut count) = (0.0, 1.0);
    for x in finite {
        sum += x - first;
        count += 1.0;
    }
    (first + sum / count) as f32
}

/// Sums of the first four powers of the deviations of a chunk from a shift; with `MASKED` of its finite elements.
struct Powers<'a, const MASKED: bool> {
    values: &'a [f32],
    shift: f32,
}

impl<const MASKED: bool> WithSimd for Powers<'_, MASKED> {
    type Output = [f64; 4];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> [f64; 4] {
        let shift = f64::from(self.shift);
        let mut sums = PowerSums::default();
        let (blocks, rest) = self.values.as_chunks();
        for (i, block) in blocks.iter().enumerate() {
            prefetch_ahead(blocks, i, 1);
            sums.add::<MASKED>(block, shift);
        }
        // What deviates by nothing adds nothing.
        let mut padded = [self.shift; LANES];
        padded[..rest.len()].copy_from_slice(rest);
        sums.add::<MASKED>(&padded, shift);
        [
            sums.first.iter().sum(),
            sums.second.iter().sum(),
            sums.third.iter().sum(),
            sums.fourth.iter().sum(),
        ]
    }
}

/// A sum of each power for each lane.
#[derive(Copy, Clone, Default)]
struct PowerSums {
    first: [f64; LANES],
    second: [f64; LANES],
    third: [f64; LANES],
    fourth: [f64; LANES],
}

impl PowerSums {
    #[inline(always)]
    fn add<const MASKED: bool>(&mut self, block: &[f32; LANES], shift: f64) {
        for (lane, &x) in block.iter().enumerate() {
            let d = if MASKED && x.to_bits() & !(1 << 31) >= INFINITY {
                0.0
            } else {
                f64::from(x) - shift
            };
            let d2 = d * d;
            self.first[lane] += d;
            self.second[lane] += d2;
            self.third[lane] = d2.mul_add(d, self.third[lane]);
            self.fourth[lane] = d2.mul_add(d2, self.fourth[lane]);
        }
    }
}
