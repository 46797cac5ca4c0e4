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
    let draw = |&[u, v]: &[u32; 2]| {
        let (u, v) = (uniform(u), uniform(v));
        // nu (u^(-2/nu) - 1) is -2 ln u in the limit.
        let square = if nu.is_infinite() {
            -2.0 * u.ln()
        } else {
            nu * (-2.0 / nu * u.ln()).exp_m1()
        };
        (square.sqrt() * (TAU * v).cos()) as f32
    };
    let mut bits = [[0; 2]; BATCH];
    let mut values = Vec::with_capacity(count);
    while values.len() < count {
        let batch = &mut bits[..BATCH.min(count - values.len())];
        random.fill(2 * values.len() as u64, batch.as_flattened_mut());
        values.extend(batch.iter().map(draw));
    }
    values
}

/// Draws for which random bits are made together.
const BATCH: usize = 1024;

/// The middle of one of 2^32 equal parts of the unit interval: never 0 or 1.
fn uniform(bits: u32) -> f64 {
    (f64::from(bits) + 0.5) / 4_294_967_296.0
}
