//! What a numerics does to the elements of one operand.

use mantissa_formats::RandomBits;
use mantissa_quant::{Numerics, Operand, Quantized, quantize};
use serde::{Deserialize, Serialize};

use crate::row::row;

/// How far quantized elements lie from their originals: x is an element, q its quantized value,
/// scale included.
///
/// Formulas as in TransformerEngine and torchao's float8, with what those leave out: zeros that
/// were zero before are not underflow, the maximum that every amax-scaled group contains is not
/// saturation, and the mean error keeps its sign.
#[derive(Copy, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuantizationError {
    /// Finite elements, over which the errors are taken.
    pub count: u64,
    /// Infinities and NaNs among the originals: left out of the errors, part of the denominator of
    /// the shares.
    pub non_finite: u64,
    /// Mean of x².
    pub signal: f64,
    /// Mean of |x|.
    pub magnitude: f64,
    /// Mean squared error, the mean of (q − x)²; infinite if a finite element became infinite or
    /// NaN.
    #[serde(with = "crate::serial::unbounded")]
    pub mse: f64,
    /// Signal to quantization-noise ratio in decibels, `10 log10(signal / mse)`; undefined where
    /// there is no noise and where the noise is infinite.
    pub sqnr_db: Option<f64>,
    /// Signed mean error, the mean of q − x over the elements that stayed finite.
    pub bias: f64,
    /// Cosine of the angle between the vectors of x and q; undefined if either is zero, or if an
    /// element became infinite or NaN.
    pub cosine: Option<f64>,
    /// Share of all elements that were not zero and became zero.
    pub underflow: f64,
    /// Share of all elements that lie past the edge at which the format's largest finite value is
    /// no longer the nearest (for E4M3 beyond 464 times the scale, for E5M2 from 61440 times the
    /// scale).
    pub saturation: f64,
    /// Share of the squared error that lies in those saturated elements: what clipping costs, the
    /// rest being what rounding costs. 0 where there is no error, 1 where an element became
    /// infinite.
    pub clipping: f64,
}

impl QuantizationError {
    /// `bias / sqrt(signal)`, the bias in units of the operand's root mean square; 0 for an operand
    /// of zeros.
    pub fn relative_bias(&self) -> f64 {
        if self.signal > 0.0 {
            self.bias / self.signal.sqrt()
        } else {
            0.0
        }
    }
}

/// Quantizes an operand and compares it with itself.
///
/// `random` is read only by numerics that round stochastically.
///
/// ```
/// use mantissa_formats::RandomBits;
/// use mantissa_metrics::quantization_error;
/// use mantissa_quant::{Numerics, Operand};
///
/// let operand = Operand::matrix(&[-1.0, 0.25, 0.7, 127.0, 0.1, 0.0], 2, 3)?;
/// let numerics: Numerics = "int8/tensor".parse()?;
/// let error = quantization_error(&operand, &numerics, RandomBits::new(0, 0));
/// // The scale is 1, so 0.25 and 0.1 become zero; 0.0 was zero before, 127 is the legitimate maximum.
/// assert_eq!((error.underflow, error.saturation), (2.0 / 6.0, 0.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
/// If the operand reaches outside its data.
pub fn quantization_error(
    operand: &Operand,
    numerics: &Numerics,
    random: RandomBits,
) -> QuantizationError {
    let quantized = quantize(operand, numerics, random);
    let sums = compare(operand, &quantized, numerics, usize::MAX);
    sums.first().copied().unwrap_or_default().finish()
}

/// The error of every row of an operand, one matrix after another, once it is quantized in these
/// numerics: rows are what a sample consists of, so confidence intervals need them one by one.
///
/// `quantized` may be of an operand with more rows than this one; the first ones are compared.
///
/// ```
/// use mantissa_formats::RandomBits;
/// use mantissa_metrics::{ErrorSums, quantization_error, row_errors};
/// use mantissa_quant::{Numerics, Operand, quantize};
///
/// let operand = Operand::matrix(&[-1.0, 0.25, 0.7, 127.0, 0.1, 0.0], 2, 3)?;
/// let numerics: Numerics = "int8/tensor".parse()?;
/// let rows = row_errors(&operand, &quantize(&operand, &numerics, RandomBits::NONE), &numerics);
/// assert_eq!((rows[0].underflowed, rows[1].underflowed), (1, 1));
///
/// let mut all = ErrorSums::default();
/// rows.iter().for_each(|row| all.merge(row));
/// let error = quantization_error(&operand, &numerics, RandomBits::NONE);
/// assert_eq!(all.finish().underflow, error.underflow);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
/// If the operand reaches outside its data, or has another depth or more rows than `quantized`.
pub fn row_errors(operand: &Operand, quantized: &Quantized, numerics: &Numerics) -> Vec<ErrorSums> {
    assert_eq!(operand.depth, quantized.depth, "the depth of the operand");
    assert!(
        operand.outer <= quantized.outer && operand.batch() <= quantized.batch,
        "the operand has more rows than its quantized form"
    );
    compare(operand, quantized, numerics, 1)
}

/// Sums over every so many rows of an operand.
fn compare(
    operand: &Operand,
    quantized: &Quantized,
    numerics: &Numerics,
    rows_together: usize,
) -> Vec<ErrorSums> {
    pulp::Arch::new().dispatch(Groups {
        operand,
        quantized,
        edge: numerics.format.overflow_threshold(),
        rows_together,
    })
}

/// Cosine of the angle between two vectors, accumulated in f64; `None` if either is zero or has an
/// element that is not finite.
///
/// ```
/// use mantissa_metrics::cosine;
///
/// assert_eq!(cosine(&[3.0, 4.0], &[4.0, 3.0]), Some(0.96));
/// assert_eq!(cosine(&[3.0, 4.0], &[0.0, 0.0]), None);
/// ```
///
/// # Panics
/// If the vectors differ in length.
pub fn cosine(a: &[f32], b: &[f32]) -> Option<f64> {
    assert_eq!(a.len(), b.len(), "the vectors of a cosine");
    let (mut dot, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (&a, &b) in a.iter().zip(b) {
        let (a, b) = (f64::from(a), f64::from(b));
        dot += a * b;
        aa += a * a;
        bb += b * b;
    }
    cosine_of(dot, aa, bb)
}

pub(crate) fn cosine_of(dot: f64, aa: f64, bb: f64) -> Option<f64> {
    let cosine = dot / (aa * bb).sqrt();
    // Rounding must not carry a cosine of parallel vectors beyond one; zero vectors give NaN.
    cosine.is_finite().then(|| cosine.clamp(-1.0, 1.0))
}

/// An operand and its quantized form, to be compared by instructions chosen at run time.
struct Groups<'a> {
    operand: &'a Operand<'a>,
    quantized: &'a Quantized,
    edge: f32,
    rows_together: usize,
}

impl pulp::WithSimd for Groups<'_> {
    type Output = Vec<ErrorSums>;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Vec<ErrorSums> {
        let Self {
            operand,
            quantized,
            edge,
            rows_together,
        } = self;
        let layout = quantized.layout;
        let mut finished = Vec::new();
        let mut sums = Lanes::default();
        let mut rows = 0;
        let mut buffer = Vec::new();
        for matrix in 0..operand.batch() {
            for outer in 0..operand.outer {
                let first = (matrix * quantized.outer + outer) * quantized.depth;
                let values = &quantized.values[first..first + quantized.depth];
                let xs = row(operand, matrix, outer, &mut buffer);
                let stretch = layout.depth_group.min(STRETCH);
                for (start, (xs, values)) in (0..)
                    .step_by(stretch)
                    .zip(xs.chunks(stretch).zip(values.chunks(stretch)))
                {
                    let scale = quantized.scales[layout.index(matrix, outer, start)];
                    sums.add(xs, values, scale, edge);
                }
                rows += 1;
                if rows == rows_together {
                    finished.push(std::mem::take(&mut sums).sum());
                    rows = 0;
                }
            }
        }
        if rows > 0 {
            finished.push(sums.sum());
        }
        finished
    }
}

/// Elements that are compared in one go.
const STRETCH: usize = 1 << 16;
/// Independent accumulators; fixed, so that every machine adds in the same order.
const LANES: usize = 8;

/// What a [`QuantizationError`] is made of: counts and sums over elements, which add up over rows.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct ErrorSums {
    /// Elements.
    pub total: u64,
    /// Finite elements.
    pub count: u64,
    /// Finite elements that became infinite or NaN.
    pub overflowed: u64,
    /// Elements that were not zero and became zero.
    pub underflowed: u64,
    /// Elements past the edge of the format's range.
    pub saturated: u64,
    /// Of x².
    pub signal: f64,
    /// Of |x|.
    pub magnitude: f64,
    /// Of (q − x)², over elements that stayed finite.
    pub noise: f64,
    /// Of (q − x)² over those of them that are saturated.
    pub clipped: f64,
    /// Of q − x, likewise over elements that stayed finite.
    pub error: f64,
    /// Of q².
    pub quantized: f64,
    /// Of x q.
    pub dot: f64,
}

impl ErrorSums {
    /// Adds the sums over other elements.
    pub fn merge(&mut self, other: &ErrorSums) {
        self.total += other.total;
        self.count += other.count;
        self.overflowed += other.overflowed;
        self.underflowed += other.underflowed;
        self.saturated += other.saturated;
        self.signal += other.signal;
        self.magnitude += other.magnitude;
        self.noise += other.noise;
        self.clipped += other.clipped;
        self.error += other.error;
        self.quantized += other.quantized;
        self.dot += other.dot;
    }

    /// The error over the elements summed so far.
    pub fn finish(&self) -> QuantizationError {
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let mean = |sum: f64, count: u64| share(sum, count as f64);
        let bounded = self.overflowed == 0;
        QuantizationError {
            count: self.count,
            non_finite: self.total - self.count,
            signal: mean(self.signal, self.count),
            magnitude: mean(self.magnitude, self.count),
            mse: if bounded {
                mean(self.noise, self.count)
            } else {
                f64::INFINITY
            },
            sqnr_db: (bounded && self.noise > 0.0)
                .then(|| 10.0 * (self.signal / self.noise).log10()),
            bias: mean(self.error, self.count - self.overflowed),
            cosine: if bounded {
                cosine_of(self.dot, self.signal, self.quantized)
            } else {
                None
            },
            underflow: mean(self.underflowed as f64, self.total),
            saturation: mean(self.saturated as f64, self.total),
            clipping: if bounded {
                share(self.clipped, self.noise)
            } else {
                1.0
            },
        }
    }
}

/// The same in independent accumulators.
#[derive(Default)]
struct Lanes {
    total: u64,
    count: u64,
    overflowed: u64,
    underflowed: u64,
    saturated: u64,
    signal: [f64; LANES],
    magnitude: [f64; LANES],
    noise: [f64; LANES],
    clipped: [f64; LANES],
    error: [f64; LANES],
    quantized: [f64; LANES],
    dot: [f64; LANES],
}

/// How many pairs of a stretch are what.
#[derive(Default)]
struct Counts {
    finite: [u32; LANES],
    overflowed: [u32; LANES],
    underflowed: [u32; LANES],
    saturated: [u32; LANES],
}

impl Lanes {
    /// Adds elements that share a scale; `values` are their quantized values divided by it.
    #[inline(always)]
    fn add(&mut self, xs: &[f32], values: &[f32], scale: f32, edge: f32) {
        let mut counts = Counts::default();
        let (x_blocks, x_rest) = xs.as_chunks::<LANES>();
        let (value_blocks, value_rest) = values.as_chunks::<LANES>();
        for (xs, values) in x_blocks.iter().zip(value_blocks) {
            self.add_block(&mut counts, xs, values, scale, edge);
        }
        if !x_rest.is_empty() {
            // NaN originals add nothing.
            let (mut xs, mut values) = ([f32::NAN; LANES], [0.0; LANES]);
            xs[..x_rest.len()].copy_from_slice(x_rest);
            values[..value_rest.len()].copy_from_slice(value_rest);
            self.add_block(&mut counts, &xs, &values, scale, edge);
        }
        let sum = |lanes: [u32; LANES]| u64::from(lanes.iter().sum::<u32>());
        self.total += xs.len() as u64;
        self.count += sum(counts.finite);
        self.overflowed += sum(counts.overflowed);
        self.underflowed += sum(counts.underflowed);
        self.saturated += sum(counts.saturated);
    }

    #[inline(always)]
    fn add_block(
        &mut self,
        counts: &mut Counts,
        xs: &[f32; LANES],
        values: &[f32; LANES],
        scale: f32,
        edge: f32,
    ) {
        for lane in 0..LANES {
            let x = xs[lane];
            let q = values[lane] * scale;
            let finite = x.abs() < f32::INFINITY;
            let kept = finite & (q.abs() < f32::INFINITY);
            counts.finite[lane] += u32::from(finite);
            counts.overflowed[lane] += u32::from(finite & !kept);
            counts.underflowed[lane] += u32::from(finite & (q == 0.0) & (x != 0.0));
            let saturated = finite & ((x / scale).abs() >= edge);
            counts.saturated[lane] += u32::from(saturated);
            // What is left out becomes a pair of zeros, what overflowed a pair without error.
            let x = if finite { x } else { 0.0 };
            let q = if kept { q } else { x };
            let (x, q) = (f64::from(x), f64::from(q));
            let error = q - x;
            self.signal[lane] += x * x;
            self.magnitude[lane] += x.abs();
            self.noise[lane] += error * error;
            self.clipped[lane] += if saturated { error * error } else { 0.0 };
            self.error[lane] += error;
            self.quantized[lane] += q * q;
            self.dot[lane] += x * q;
        }
    }

    fn sum(&self) -> ErrorSums {
        let sum = |lanes: [f64; LANES]| lanes.iter().sum::<f64>();
        ErrorSums {
            total: self.total,
            count: self.count,
            overflowed: self.overflowed,
            underflowed: self.underflowed,
            saturated: self.saturated,
            signal: sum(self.signal),
            magnitude: sum(self.magnitude),
            noise: sum(self.noise),
            clipped: sum(self.clipped),
            error: sum(self.error),
            quantized: sum(self.quantized),
            dot: sum(self.dot),
        }
    }
}
