//! Moments to the fourth in one pass, mergeable.

use serde::{Deserialize, Serialize};

/// Elements taken together: small enough to stay in the first-level cache between the two sweeps
/// over them.
const CHUNK: usize = 4096;

/// Independent accumulators of a sweep. Fixed, so that the order of the additions, and with it
/// every bit of the result, is the same on machines with narrow and with wide vectors.
const LANES: usize = 16;

/// Count, extremes and the first four moments of the finite elements of a tensor.
///
/// Elements are taken in chunks: a chunk's central sums are computed about the chunk's own mean,
/// then merged into the running ones with the pairwise update formulas of Chan, Golub and LeVeque
/// (1979), extended to the third and fourth order by Pébay (SAND2008-6212, 2008). The same formulas
/// merge the moments of two shards.
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
        let arch = pulp::Arch::new();
        for chunk in values.chunks(CHUNK) {
            self.merge(&arch.dispatch(Chunk(chunk)));
        }
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

/// At most [`CHUNK`] elements, to be summed by instructions chosen at run time. (A closure would be
/// compiled for the oldest machine: its call is not inlined into the code for newer ones.)
struct Chunk<'a>(&'a [f32]);

impl pulp::WithSimd for Chunk<'_> {
    type Output = Moments;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Moments {
        of_chunk(self.0)
    }
}

/// Moments of at most [`CHUNK`] elements, about their own mean.
#[inline(always)]
fn of_chunk(chunk: &[f32]) -> Moments {
    // Sums about a value of the chunk, not about zero: a constant chunk then has exactly its value
    // as the mean and exactly zero central sums.
    let shift = chunk.iter().copied().find(|&x| is_finite(x)).unwrap_or(0.0);
    let mut first = FirstSweep::default();
    let (blocks, rest) = chunk.as_chunks::<LANES>();
    for block in blocks {
        first.add(block, shift);
    }
    let mut padded = [f32::NAN; LANES];
    padded[..rest.len()].copy_from_slice(rest);
    first.add(&padded, shift);

    let finite: u32 = first.finite.iter().sum();
    let mut moments = Moments {
        count: u64::from(finite),
        zeros: u64::from(first.zeros.iter().sum::<u32>()),
        non_finite: chunk.len() as u64 - u64::from(finite),
        amax: first.amax.iter().fold(0.0, |a: f32, &b| a.max(b)),
        ..Moments::default()
    };
    if finite == 0 {
        return moments;
    }
    let smallest = first
        .min_nonzero
        .iter()
        .fold(f32::INFINITY, |a: f32, &b| a.min(b));
    moments.min_nonzero = (smallest < f32::INFINITY).then_some(smallest);

    let n = f64::from(finite);
    let mean = f64::from(shift) + first.sum.iter().sum::<f64>() / n;
    let mut second = SecondSweep::default();
    for block in blocks {
        second.add(block, mean);
    }
    second.add(&padded, mean);
    moments.mean = mean;
    moments.m2 = second.m2.iter().sum();
    moments.m3 = second.m3.iter().sum();
    moments.m4 = second.m4.iter().sum();
    moments
}

/// Whether an f32 is finite, as a comparison that vectorises.
#[inline(always)]
fn is_finite(x: f32) -> bool {
    x.abs() < f32::INFINITY
}

#[derive(Copy, Clone)]
struct FirstSweep {
    sum: [f64; LANES],
    amax: [f32; LANES],
    min_nonzero: [f32; LANES],
    finite: [u32; LANES],
    zeros: [u32; LANES],
}

impl Default for FirstSweep {
    fn default() -> Self {
        Self {
            sum: [0.0; LANES],
            amax: [0.0; LANES],
            min_nonzero: [f32::INFINITY; LANES],
            finite: [0; LANES],
            zeros: [0; LANES],
        }
    }
}

impl FirstSweep {
    #[inline(always)]
    fn add(&mut self, block: &[f32; LANES], shift: f32) {
        for (lane, &x) in block.iter().enumerate() {
            let finite = is_finite(x);
            // Selecting before the subtraction keeps the loop free of branches; shift - shift adds
            // nothing.
            self.sum[lane] += f64::from(if finite { x } else { shift }) - f64::from(shift);
            let magnitude = if finite { x.abs() } else { 0.0 };
            self.finite[lane] += u32::from(finite);
            self.zeros[lane] += u32::from(finite & (magnitude == 0.0));
            self.amax[lane] = if magnitude > self.amax[lane] {
                magnitude
            } else {
                self.amax[lane]
            };
            let smaller = magnitude > 0.0 && magnitude < self.min_nonzero[lane];
            self.min_nonzero[lane] = if smaller {
                magnitude
            } else {
                self.min_nonzero[lane]
            };
        }
    }
}

#[derive(Copy, Clone, Default)]
struct SecondSweep {
    m2: [f64; LANES],
    m3: [f64; LANES],
    m4: [f64; LANES],
}

impl SecondSweep {
    #[inline(always)]
    fn add(&mut self, block: &[f32; LANES], mean: f64) {
        for (lane, &x) in block.iter().enumerate() {
            let d = (if is_finite(x) { f64::from(x) } else { mean }) - mean;
            let d2 = d * d;
            self.m2[lane] += d2;
            self.m3[lane] += d2 * d;
            self.m4[lane] += d2 * d2;
        }
    }
}
