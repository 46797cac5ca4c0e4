//! Functions of many elements that begin with an exponential, in two stages.
//!
//! Such a function is one chain of thirty operations or more that each wait for the one before. A processor looks ahead over about
//! a hundred waiting instructions, the chains of two or three vectors, and would idle most of the time. So the chain is cut: a short
//! loop leaves the exponentials in the first cache, and the next one takes them up, each with enough vectors in flight.

use pulp::Simd;

use crate::math::exp;
use crate::vector::sum;

/// Elements in work at a time.
const PART: usize = 256;

/// The exponentials of one part.
pub(crate) struct Powers([f32; PART]);

impl Powers {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self([0.0; PART])
    }

    /// The exponentials of `argument` of the elements of `x`, which are one part at most.
    #[inline(always)]
    fn of(&mut self, x: &[f32], argument: impl Fn(f32) -> f32) -> &[f32] {
        let powers = &mut self.0[..x.len()];
        for (power, x) in powers.iter_mut().zip(x) {
            *power = exp(argument(*x));
        }
        powers
    }

    /// The sum of the exponentials of `argument` of all elements of `x`.
    #[inline(always)]
    pub(crate) fn sum<S: Simd>(
        &mut self,
        simd: S,
        x: &[f32],
        argument: impl Fn(f32) -> f32,
    ) -> f32 {
        let mut total = 0.0;
        for x in x.chunks(PART) {
            total += sum(simd, self.of(x, &argument), |power| power);
        }
        total
    }

    /// `out = finish(x, exp(argument(x)))`.
    #[inline(always)]
    pub(crate) fn map(
        &mut self,
        x: &[f32],
        out: &mut [f32],
        argument: impl Fn(f32) -> f32,
        finish: impl Fn(f32, f32) -> f32,
    ) {
        for (x, out) in x.chunks(PART).zip(out.chunks_mut(PART)) {
            let powers = self.of(x, &argument);
            for ((out, x), power) in out.iter_mut().zip(x).zip(powers) {
                *out = finish(*x, *power);
            }
        }
    }

    /// `y = y · finish(x, exp(argument(x)))`.
    #[inline(always)]
    pub(crate) fn multiply(
        &mut self,
        x: &[f32],
        y: &mut [f32],
        argument: impl Fn(f32) -> f32,
        finish: impl Fn(f32, f32) -> f32,
    ) {
        for (x, y) in x.chunks(PART).zip(y.chunks_mut(PART)) {
            let powers = self.of(x, &argument);
            for ((y, x), power) in y.iter_mut().zip(x).zip(powers) {
                *y *= finish(*x, *power);
            }
        }
    }
}
