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
}

impl QuantizationError {
    /// Compares originals with their quantized values, of which `saturated` are known to have been
    /// clipped.
    ///
    /// ```
    /// use mantissa_metrics::QuantizationError;
    ///
    /// let (original, quantized) = ([1.0, 0.1, 0.0, -3.0], [1.0, 0.0, 0.0, -2.0]);
    /// let error = QuantizationError::from_pairs(&original, &quantized, 1);
    /// assert_eq!((error.underflow, error.saturation), (0.25, 0.25));
    /// assert!((error.mse - 1.01 / 4.0).abs() < 1e-6);
    /// assert!((error.bias - 0.9 / 4.0).abs() < 1e-6);
    /// ```
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn from_pairs(original: &[f32], quantized: &[f32], saturated: u64) -> Self {
        assert_eq!(
            original.len(),
            quantized.len(),
            "originals and quantized values"
        );
        let mut sums = pulp::Arch::new().dispatch(Pairs {
            original,
            quantized,
        });
        sums.saturated = saturated;
        sums.finish()
    }

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
    let edge = numerics.format.overflow_threshold();
    pulp::Arch::new()
        .dispatch(Groups {
            operand,
            quantized: &quantized,
            edge,
        })
        .finish()
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

fn cosine_of(dot: f64, aa: f64, bb: f64) -> Option<f64> {
    let cosine = dot / (aa * bb).sqrt();
    // Rounding must not carry a cosine of parallel vectors beyond one; zero vectors give NaN.
    cosine.is_finite().then(|| cosine.clamp(-1.0, 1.0))
}

/// Originals and quantized values, to be compared by instructions chosen at run time.
struct Pairs<'a> {
    original: &'a [f32],
    quantized: &'a [f32],
}

impl pulp::WithSimd for Pairs<'_> {
    type Output = Sums;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Sums {
        let mut sums = Sums::default();
        // Stretches that 32-bit counters can count.
        for (original, quantized) in self
            .original
            .chunks(STRETCH)
            .zip(self.quantized.chunks(STRETCH))
        {
            sums.add(original, quantized, 1.0, f32::INFINITY);
        }
        sums
    }
}

/// An operand and its quantized form, likewise.
struct Groups<'a> {
    operand: &'a Operand<'a>,
    quantized: &'a Quantized,
    edge: f32,
}

impl pulp::WithSimd for Groups<'_> {
    type Output = Sums;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> Sums {
        let Self {
            operand,
            quantized,
            edge,
        } = self;
        let layout = quantized.layout;
        let mut sums = Sums::default();
        let mut buffer = Vec::new();
        let mut rows = quantized.values.chunks_exact(operand.depth.max(1));
        for matrix in 0..operand.batch() {
            for (outer, values) in (0..operand.outer).zip(&mut rows) {
                let xs = row(operand, matrix, outer, &mut buffer);
                let stretch = layout.depth_group.min(STRETCH);
                for (start, (xs, values)) in (0..)
                    .step_by(stretch)
                    .zip(xs.chunks(stretch).zip(values.chunks(stretch)))
                {
                    let scale = quantized.scales[layout.index(matrix, outer, start)];
                    sums.add(xs, values, scale, edge);
                }
            }
        }
        sums
    }
}

/// Elements that are compared in one go.
const STRETCH: usize = 1 << 16;
/// Independent accumulators; fixed, so that every machine adds in the same order.
const LANES: usize = 8;

/// Sums over pairs of an original and its quantized value.
#[derive(Default)]
struct Sums {
    total: u64,
    count: u64,
    overflowed: u64,
    underflowed: u64,
    saturated: u64,
    signal: [f64; LANES],
    noise: [f64; LANES],
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

impl Sums {
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
            counts.saturated[lane] += u32::from(finite & ((x / scale).abs() >= edge));
            // What is left out becomes a pair of zeros, what overflowed a pair without error.
            let x = if finite { x } else { 0.0 };
            let q = if kept { q } else { x };
            let (x, q) = (f64::from(x), f64::from(q));
            let error = q - x;
            self.signal[lane] += x * x;
            self.noise[lane] += error * error;
            self.error[lane] += error;
            self.quantized[lane] += q * q;
            self.dot[lane] += x * q;
        }
    }

    fn finish(&self) -> QuantizationError {
        let mean = |sum: f64, count: u64| if count == 0 { 0.0 } else { sum / count as f64 };
        let sum = |lanes: [f64; LANES]| lanes.iter().sum::<f64>();
        let (signal, noise) = (sum(self.signal), sum(self.noise));
        let bounded = self.overflowed == 0;
        QuantizationError {
            count: self.count,
            non_finite: self.total - self.count,
            signal: mean(signal, self.count),
            mse: if bounded {
                mean(noise, self.count)
            } else {
                f64::INFINITY
            },
            sqnr_db: (bounded && noise > 0.0).then(|| 10.0 * (signal / noise).log10()),
            bias: mean(sum(self.error), self.count - self.overflowed),
            cosine: if bounded {
                cosine_of(sum(self.dot), signal, sum(self.quantized))
            } else {
                None
            },
            underflow: mean(self.underflowed as f64, self.total),
            saturation: mean(self.saturated as f64, self.total),
        }
    }
}
