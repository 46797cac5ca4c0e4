//! Seeded samples of known distributions, to try numerics on.

use mantissa_formats::RandomBits;

/// TODO
pub fn student_t(nu: f64, random: RandomBits, count: usize) -> Vec<f32> {
    let _ = (nu, random, count);
    todo!()
}
