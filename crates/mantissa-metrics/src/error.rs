//! What a numerics does to the elements of one operand.

use mantissa_formats::RandomBits;
use mantissa_quant::{Numerics, Operand, quantize};
use serde::{Deserialize, Serialize};

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
        let mut sums = Sums {
            saturated,
            ..Sums::default()
        };
        for (&x, &q) in original.iter().zip(quantized) {
            sums.add(x, q);
        }
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
    let layout = quantized.layout;
    let mut sums = Sums::default();
    let rows = (0..operand.batch())
        .flat_map(|matrix| (0..operand.outer).map(move |outer| (matrix, outer)));
    for ((matrix, outer), values) in rows.zip(quantized.values.chunks_exact(operand.depth.max(1))) {
        for (group, values) in values.chunks(layout.depth_group).enumerate() {
            let start = group * layout.depth_group;
            let scale = quantized.scales[layout.index(matrix, outer, start)];
            for (depth, &value) in (start..).zip(values) {
                let x = operand.at(matrix, outer, depth);
                sums.saturated += u64::from((x / scale).abs() >= edge && x.is_finite());
                sums.add(x, value * scale);
            }
        }
    }
    sums.finish()
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

/// Sums over pairs of an original and its quantized value.
#[derive(Default)]
struct Sums {
    count: u64,
    non_finite: u64,
    overflowed: u64,
    underflowed: u64,
    saturated: u64,
    signal: f64,
    noise: f64,
    error: f64,
    quantized: f64,
    dot: f64,
}

impl Sums {
    #[inline(always)]
    fn add(&mut self, x: f32, q: f32) {
        if !x.is_finite() {
            self.non_finite += 1;
            return;
        }
        self.count += 1;
        self.underflowed += u64::from(q == 0.0 && x != 0.0);
        let x = f64::from(x);
        self.signal += x * x;
        if !q.is_finite() {
            self.overflowed += 1;
            return;
        }
        let q = f64::from(q);
        let error = q - x;
        self.noise += error * error;
        self.error += error;
        self.quantized += q * q;
        self.dot += x * q;
    }

    fn finish(&self) -> QuantizationError {
        let mean = |sum: f64, count: u64| if count == 0 { 0.0 } else { sum / count as f64 };
        let total = self.count + self.non_finite;
        let bounded = self.overflowed == 0;
        QuantizationError {
            count: self.count,
            non_finite: self.non_finite,
            signal: mean(self.signal, self.count),
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
            underflow: mean(self.underflowed as f64, total),
            saturation: mean(self.saturated as f64, total),
        }
    }
}
