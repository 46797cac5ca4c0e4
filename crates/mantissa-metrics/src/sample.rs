//! Seeded samples of known distributions, to try numerics on.

use std::f64::consts::TAU;

use mantissa_formats::RandomBits;

/// Draws from the standard Student-t distribution with `nu` degrees of freedom; `f64::INFINITY` is
/// the standard normal.
///
/// Bailey's polar method (*Polar generation of random variates with the t-distribution*, Math.
/// Comp. 62, 1994): `sqrt(nu (u^(-2/nu) - 1)) cos(2πv)` with u and v uniform, of which Box and
/// Muller's `sqrt(-2 ln u) cos(2πv)` is the limit. Draw i is a function of `random` and i alone.
///
/// ```
/// use mantissa_formats::RandomBits;
/// use mantissa_metrics::{Moments, sample};
///
/// let normal = sample::student_t(f64::INFINITY, RandomBits::new(7, 0), 100_000);
/// assert!((Moments::of(&normal).kurtosis().unwrap() - 3.0).abs() < 0.1);
/// ```
pub fn student_t(nu: f64, random: RandomBits, count: usize) -> Vec<f32> {
    let draw = |[u, v]: [f64; 2]| {
        // nu (u^(-2/nu) - 1) is -2 ln u in the limit.
        let square = if nu.is_infinite() {
            -2.0 * u.ln()
        } else {
            nu * (-2.0 / nu * u.ln()).exp_m1()
        };
        square.sqrt() * (TAU * v).cos()
    };
    from_pairs(random, count, draw)
}

/// Draws from the Laplace distribution about zero with scale 1: an exponential magnitude and a sign.
pub fn laplace(random: RandomBits, count: usize) -> Vec<f32> {
    from_pairs(random, count, |[u, v]| (-u.ln()).copysign(v - 0.5))
}

/// Draws whose sign is fair and whose magnitude is log-normal with median 1: `exp(deviation z)` with z standard normal.
pub fn log_normal(deviation: f64, random: RandomBits, count: usize) -> Vec<f32> {
    from_pairs(random, count, |[u, v]| {
        // The sign is one half of the circle, the angle within it the normal's.
        let z = (-2.0 * u.ln()).sqrt() * (2.0 * TAU * v).cos();
        (deviation * z).exp().copysign(v - 0.5)
    })
}

/// One value from each pair of uniform numbers; draw i is a function of `random` and i alone.
fn from_pairs(random: RandomBits, count: usize, draw: impl Fn([f64; 2]) -> f64) -> Vec<f32> {
    let mut bits = [[0; 2]; BATCH];
    let mut values = Vec::with_capacity(count);
    while values.len() < count {
        let batch = &mut bits[..BATCH.min(count - values.len())];
        random.fill(2 * values.len() as u64, batch.as_flattened_mut());
        values.extend(batch.iter().map(|pair| draw(pair.map(uniform)) as f32));
    }
    values
}

/// Draws for which random bits are made together.
const BATCH: usize = 1024;

/// The middle of one of 2^32 equal parts of the unit interval: never 0 or 1.
fn uniform(bits: u32) -> f64 {
    (f64::from(bits) + 0.5) / 4_294_967_296.0
}
