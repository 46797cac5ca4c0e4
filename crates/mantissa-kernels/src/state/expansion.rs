//! Powers of magnitudes, which stretch the range of a block over that of a format.
//!
//! COAT's dynamic range expansion ([Xi et al. 2024](https://arxiv.org/abs/2410.19313), section 4) codes `sign(x) |x|^k`, with the
//! exponent `k` that takes the block's ratio of largest to smallest magnitude to the format's. Moments span few binades, so `k` is
//! mostly above 1, and a step of the format becomes `k` times finer. Two things differ here: the block's amax goes to the format's
//! largest value (COAT puts the geometric mean in the middle), and the range of the format is that of its normal numbers (COAT
//! counts the subnormals), so that the smallest magnitudes of a block are as precise as the others.

use pulp::{Simd, WithSimd};

/// Exponents are multiples of this.
const STEPS: f32 = 16.0;
/// In steps. Below one half, one magnitude of 2⁻³⁰ of the largest would cost all others more than half their precision.
pub(super) const LEAST: u8 = 8;
const MOST: f32 = 255.0;
/// log₂ of what an f32 still is normal at.
const LEAST_LOG: f32 = -126.0;
/// 1.5 · 2²³, and the exponent's bias.
const ROUNDER: f32 = 12_582_912.0 + 127.0;
/// √2 less one half in units of the last place, in bits: what parts mantissas above and below √½.
const SQRT_HALF: u32 = 0x3f35_04f3;

/// The exponent, in sixteenths, that takes a block's ratio of largest to smallest magnitude to `range`, that of the format, or
/// what fits below.
#[inline(always)]
pub(super) fn exponent(largest: f32, smallest: f32, range: f32) -> u8 {
    let span = log2(largest) - log2(smallest);
    let steps = STEPS * log2(range) / span;
    // All of one magnitude: any exponent fits.
    let steps = if steps < MOST { steps } else { MOST };
    let steps = steps as u8;
    steps.max(LEAST)
}

/// `x = sign(x) top (|x| inverse)^k` and back: `x = sign(x) scale (|x| / top)^(1/k)`.
pub(super) struct Power<'a> {
    pub(super) x: &'a mut [f32],
    /// What magnitudes are multiplied with before and after.
    pub(super) before: f32,
    pub(super) after: f32,
    pub(super) exponent: f32,
}

impl WithSimd for Power<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for x in &mut *self.x {
            let power = exp2(self.exponent * log2(x.abs() * self.before)) * self.after;
            let power = if *x == 0.0 { 0.0 } else { power };
            *x = power.copysign(*x);
        }
    }
}

/// The exponent as a number.
#[inline(always)]
pub(super) fn of_steps(steps: u8) -> f32 {
    f32::from(steps) / STEPS
}

/// log₂ of a positive number to 2⁻²² or so of its whole part; what is not normal counts as about the smallest normal number.
#[inline(always)]
fn log2(x: f32) -> f32 {
    let bits = x.to_bits().wrapping_sub(SQRT_HALF);
    let exponent = (bits as i32) >> 23;
    let mantissa = f32::from_bits((bits & 0x007f_ffff) + SQRT_HALF);
    // 2 atanh(z) = ln((1 + z) / (1 - z)), and |z| < 0.172.
    let z = (mantissa - 1.0) / (mantissa + 1.0);
    let square = z * z;
    let series = square.mul_add(1.0 / 7.0, 0.2);
    let series = square.mul_add(series, 1.0 / 3.0);
    let series = square.mul_add(series, 1.0);
    ((2.0 * std::f32::consts::LOG2_E) * z).mul_add(series, exponent as f32)
}

/// Two to the `x`, for `x` below 127; what would not be normal is about the smallest normal number.
#[inline(always)]
fn exp2(x: f32) -> f32 {
    /// ln(2)ⁱ / i!
    const SERIES: [f32; 7] = [
        1.0,
        std::f32::consts::LN_2,
        0.240_226_5,
        0.055_504_11,
        0.009_618_129,
        0.001_333_355_8,
        0.000_154_035_3,
    ];
    let x = if x > LEAST_LOG { x } else { LEAST_LOG };
    let rounded = x + ROUNDER;
    let r = x - (rounded - ROUNDER);
    let mut sum = SERIES[6];
    for coefficient in SERIES[..6].iter().rev() {
        sum = sum.mul_add(r, *coefficient);
    }
    sum * f32::from_bits(rounded.to_bits() << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_and_powers_are_precise() {
        for i in -2400..2400 {
            let x = f64::from(i) * 0.05 + 0.013;
            let power = x.exp2() as f32;
            let error = (f64::from(log2(power)) - f64::from(power).log2()).abs();
            assert!(error < 1e-6 * x.abs().max(1.0), "log2 {power}: {error}");
            let x = x as f32;
            let error = f64::from(exp2(x)) / f64::from(x).exp2() - 1.0;
            assert!(error.abs() < 5e-7, "exp2 {x}: {error}");
        }
        assert_eq!((log2(1.0), exp2(0.0)), (0.0, 1.0));
    }

    #[test]
    fn an_exponent_takes_the_range_to_the_formats() {
        // E4M3: 448 over 2^-6, 14.8 octaves.
        let range = 448.0 * 64.0;
        assert_eq!(exponent(1.0, 1.0, range), 255);
        assert_eq!(exponent(8.0, 1.0, range), 78);
        assert_eq!(exponent(1.0, 2f32.powi(-14), range), 16);
        assert_eq!(exponent(1.0, 2f32.powi(-24), range), 9);
        assert_eq!(exponent(1.0, f32::MIN_POSITIVE, range), LEAST);
    }

    #[test]
    fn a_power_and_its_root_lead_back() {
        let start: Vec<f32> = (1..300).map(|i| (i as f32 * 0.37).sin() * 1e-5).collect();
        let mut x = start.clone();
        x.push(0.0);
        let (amax, k) = (1e-5f32, 1.75);
        crate::vector::dispatch(Power {
            x: &mut x,
            before: amax.recip(),
            after: 448.0,
            exponent: k,
        });
        assert!(x.iter().all(|x| x.abs() <= 448.0));
        crate::vector::dispatch(Power {
            x: &mut x,
            before: 448f32.recip(),
            after: amax,
            exponent: k.recip(),
        });
        for (x, start) in x.iter().zip(&start) {
            assert!((x / start - 1.0).abs() < 3e-6, "{start} became {x}");
        }
        assert_eq!(x.last(), Some(&0.0));
    }
}
