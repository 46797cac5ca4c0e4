//! The transcendental functions, without branches, so that a loop over them becomes vector code. All begin with an exponential.
//!
//! `fits/fit.py` makes the coefficients, except those of [`tanh`]. The functions of `rten-vecmath` (the well-kept crate for this)
//! round a multiplication before an addition where the processor cannot fuse them, so that their bits depend on the vector unit,
//! and give no Φ with its density from one exponential.

/// What is added to a number to round it to an integer in the lowest bits: 1.5 · 2²³, and the exponent's bias less one.
const ROUNDER: f32 = 12_582_912.0 + 126.0;
/// ln 2 in two parts, the first so short that its product with an exponent is exact (Cody and Waite 1980).
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// Below, `exp` would not be a normal number, and is 0.
const EXP_LEAST: f32 = -87.3;
/// Above, `exp` is infinite.
const EXP_MOST: f32 = 89.0;
/// `2 exp(r) = 2 + 2 r + r² p(r)`.
const EXP: [f32; 5] = [
    0.999_999_9,
    0.333_330_42,
    0.083_336_78,
    0.016_737_42,
    0.002_762_922_6,
];

/// `Φ(-a) exp(a²/2) = p(a) / q(a)`. All are positive, so that nothing cancels.
const TAIL_P: [f32; 4] = [0.499_999_97, 0.341_628_76, 0.107_981_04, 0.014_349_458];
const TAIL_Q: [f32; 5] = [1.0, 1.481_138_6, 0.897_775_77, 0.270_270_08, 0.035_980_877];
/// Beyond, both Φ and its density are 0 or 1 in f32.
const TAIL_END: f32 = 15.0;
/// 1 / √(2π).
const DENSITY: f32 = 0.398_942_3;

/// `(tanh(x) - x) / x³` as a polynomial in x² for |x| < 0.625 (Moshier, Cephes 2.2, `tanhf.c`).
const TANH: [f32; 5] = [
    -3.333_328e-1,
    1.333_144_2e-1,
    -5.373_971_6e-2,
    2.063_909e-2,
    -5.704_988_7e-3,
];

/// The polynomial whose coefficients are given from the lowest power on.
#[inline(always)]
fn polynomial<const N: usize>(coefficients: [f32; N], x: f32) -> f32 {
    let mut sum = coefficients[N - 1];
    for i in (0..N - 1).rev() {
        sum = sum.mul_add(x, coefficients[i]);
    }
    sum
}

/// `x` no less than `least`; NaN stays.
#[inline(always)]
fn at_least(x: f32, least: f32) -> f32 {
    if x < least { least } else { x }
}

/// `x` no more than `most`; NaN stays.
#[inline(always)]
fn at_most(x: f32, most: f32) -> f32 {
    if x > most { most } else { x }
}

/// `x` with a magnitude of no more than `most`; NaN stays.
#[inline(always)]
pub(crate) fn clamp(x: f32, most: f32) -> f32 {
    at_most(at_least(x, -most), most)
}

/// e to the `x`, within 2 ulp, and 0 where it would not be a normal number.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = at_most(at_least(x, EXP_LEAST), EXP_MOST);
    let rounded = x.mul_add(std::f32::consts::LOG2_E, ROUNDER);
    let n = rounded - ROUNDER;
    let r = n.mul_add(-LN_2[1], n.mul_add(-LN_2[0], x));
    // Half of 2ⁿ: 2¹²⁸ itself would be infinite while the result is not. Of NaN it is something, which `r` makes NaN again.
    let half_power = f32::from_bits(rounded.to_bits() << 23);
    let twice = r.mul_add(r.mul_add(polynomial(EXP, r), 2.0), 2.0);
    twice * half_power
}

/// What [`normal`] needs the exponential of.
#[inline(always)]
pub(crate) fn normal_exponent(x: f32) -> f32 {
    let a = at_most(x.abs(), TAIL_END);
    -0.5 * a * a
}

/// Φ(x), the cumulative distribution function of the normal distribution, and its density.
#[inline(always)]
pub(crate) fn normal(x: f32, bell: f32) -> (f32, f32) {
    let a = at_most(x.abs(), TAIL_END);
    let tail = bell * polynomial(TAIL_P, a) / polynomial(TAIL_Q, a);
    let cumulative = if x > 0.0 { 1.0 - tail } else { tail };
    (cumulative, DENSITY * bell)
}

/// The hyperbolic tangent, from `power`, the exponential of 2 |x|.
#[inline(always)]
pub(crate) fn tanh(x: f32, power: f32) -> f32 {
    let square = x * x;
    let near = x + x * square * polynomial(TANH, square);
    let far = 1.0 - 2.0 / (power + 1.0);
    if x.abs() < 0.625 {
        near
    } else {
        far.copysign(x)
    }
}

/// `1 / (1 + e⁻ˣ)`, from the exponential of -x.
#[inline(always)]
pub(crate) fn sigmoid(power: f32) -> f32 {
    1.0 / (1.0 + power)
}

/// Where the sigmoid's slope has left the normal numbers; that of -88.8 could not be computed.
pub(crate) const SIGMOID_END: f32 = 87.0;

/// The sigmoid and its slope, from the exponential of -x, for |x| up to [`SIGMOID_END`].
#[inline(always)]
pub(crate) fn sigmoid_and_slope(power: f32) -> (f32, f32) {
    let s = sigmoid(power);
    // e⁻ˣ s is 1 - s without the cancellation.
    (s, s * (power * s))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole_normal(x: f32) -> (f32, f32) {
        normal(x, exp(normal_exponent(x)))
    }

    fn whole_tanh(x: f32) -> f32 {
        tanh(x, exp(2.0 * x.abs()))
    }

    /// Every 97th f32 (a prime, so that all mantissas are met) in `low..high`, of both signs where the range has them.
    fn sweep(low: f32, high: f32) -> impl Iterator<Item = f32> {
        (0..=u32::MAX / 97)
            .map(|i| f32::from_bits(97 * i))
            .filter(move |x| (low..high).contains(x))
    }

    /// The distance in units of the last place of the f32 nearest to `exact`.
    fn ulps(x: f32, exact: f64) -> f64 {
        let nearest = (exact as f32).abs().max(f32::MIN_POSITIVE);
        let unit = f64::from(f32::from_bits(nearest.to_bits() + 1)) - f64::from(nearest);
        (f64::from(x) - exact).abs() / unit
    }

    /// Φ by Simpson's rule on `Φ(-a) = φ(a) ∫ exp(-a s - s²/2) ds` over the positive numbers.
    fn normal_reference(x: f64) -> f64 {
        let a = x.abs();
        let steps = 2000;
        let h = 12.0 / f64::from(steps);
        let f = |s: f64| (-a * s - s * s / 2.0).exp();
        let sum: f64 = (0..=steps)
            .map(|i| {
                let weight = match i {
                    0 => 1.0,
                    i if i == steps => 1.0,
                    i if i % 2 == 1 => 4.0,
                    _ => 2.0,
                };
                weight * f(h * f64::from(i))
            })
            .sum();
        let tail = (-a * a / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * sum * h / 3.0;
        if x > 0.0 { 1.0 - tail } else { tail }
    }

    #[test]
    fn exp_within_two_ulps() {
        let worst = sweep(-86.9, 88.72)
            .map(|x| ulps(exp(x), f64::from(x).exp()))
            .fold(0.0, f64::max);
        println!("exp: {worst:.2} ulp");
        assert!(worst <= 2.0, "{worst}");
    }

    #[test]
    fn exp_at_the_ends() {
        assert_eq!(exp(0.0), 1.0);
        for x in [-87.5, -104.0, -1e4, f32::MIN, f32::NEG_INFINITY] {
            assert_eq!(exp(x), 0.0, "{x}");
        }
        for x in [88.73, 89.0, 1e4, f32::MAX, f32::INFINITY] {
            assert_eq!(exp(x), f32::INFINITY, "{x}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(-f32::NAN).is_nan());
    }

    #[test]
    fn normal_distribution() {
        let (mut absolute, mut relative) = (0.0f64, 0.0f64);
        for i in -20_000..=20_000 {
            let x = i as f32 * 6.5e-4;
            let exact = normal_reference(f64::from(x));
            let (cumulative, density) = whole_normal(x);
            let error = (f64::from(cumulative) - exact).abs();
            absolute = absolute.max(error);
            if x > -6.0 {
                relative = relative.max(error / exact);
            }
            let bell = (-f64::from(x).powi(2) / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
            assert!((f64::from(density) - bell).abs() <= 1e-7, "density of {x}");
        }
        println!("normal: {absolute:.1e} absolute, {relative:.1e} relative above -6");
        assert!(absolute <= f64::from(f32::EPSILON), "{absolute:e}");
        assert!(relative <= 2e-6, "{relative:e}");
        assert_eq!(whole_normal(f32::INFINITY), (1.0, 0.0));
        assert_eq!(whole_normal(f32::NEG_INFINITY), (0.0, 0.0));
        let (cumulative, density) = whole_normal(f32::NAN);
        assert!(cumulative.is_nan() && density.is_nan());
    }

    #[test]
    fn tanh_within_three_ulps() {
        let worst = sweep(f32::NEG_INFINITY, f32::INFINITY)
            .map(|x| ulps(whole_tanh(x), f64::from(x).tanh()))
            .fold(0.0, f64::max);
        println!("tanh: {worst:.2} ulp");
        assert!(worst <= 3.0, "{worst}");
        assert!(whole_tanh(f32::NAN).is_nan());
        assert_eq!(whole_tanh(f32::NEG_INFINITY), -1.0);
    }

    #[test]
    fn sigmoid_within_three_ulps() {
        let worst = sweep(-86.0, f32::INFINITY)
            .map(|x| ulps(sigmoid(exp(-x)), 1.0 / (1.0 + (-f64::from(x)).exp())))
            .fold(0.0, f64::max);
        println!("sigmoid: {worst:.2} ulp");
        assert!(worst <= 3.0, "{worst}");
        assert_eq!(sigmoid(exp(f32::INFINITY)), 0.0);
        assert!(sigmoid(exp(f32::NAN)).is_nan());
    }
}
