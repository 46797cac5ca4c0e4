//! Exponentials of many elements, in stages.
//!
//! An exponential is one chain of some twenty operations that each wait for the one before. A processor looks ahead over about a
//! hundred waiting instructions, the chains of three or four vectors, and would idle most of the time. So the chain is cut: a short
//! loop leaves intermediate results in the first cache, and the next one takes them up, each with enough vectors in flight.

use crate::math::{exp_of_reduced, reduce_exponent};

/// Elements in work at a time.
const PART: usize = 256;

/// The intermediate results of one part.
pub(crate) struct Powers {
    remainders: [f32; PART],
    scales: [f32; PART],
    powers: [f32; PART],
}

impl Powers {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self {
            remainders: [0.0; PART],
            scales: [0.0; PART],
            powers: [0.0; PART],
        }
    }

    /// The exponentials of `argument` of the elements of `x`, which are one part at most.
    #[inline(always)]
    fn of(&mut self, x: &[f32], argument: impl Fn(f32) -> f32) -> &[f32] {
        let remainders = &mut self.remainders[..x.len()];
        let scales = &mut self.scales[..x.len()];
        let powers = &mut self.powers[..x.len()];
        for ((x, remainder), scale) in x.iter().zip(&mut *remainders).zip(&mut *scales) {
            (*remainder, *scale) = reduce_exponent(argument(*x));
        }
        for ((power, remainder), scale) in powers.iter_mut().zip(remainders).zip(scales) {
            *power = exp_of_reduced(*remainder, *scale);
        }
        powers
    }

    /// Visits `x` by parts, each with the exponentials of `argument` of its elements.
    #[inline(always)]
    pub(crate) fn for_each_part(
        &mut self,
        x: &[f32],
        argument: impl Fn(f32) -> f32,
        mut visit: impl FnMut(&[f32]),
    ) {
        for x in x.chunks(PART) {
            visit(self.of(x, &argument));
        }
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

    /// `x = exp(x)`.
    #[inline(always)]
    pub(crate) fn exp(&mut self, x: &mut [f32]) {
        self.exp_of_difference(x, 1.0, 1.0, 0.0);
    }

    /// `x = factor · exp(scale · x - shift)`.
    #[inline(always)]
    pub(crate) fn exp_of_difference(&mut self, x: &mut [f32], factor: f32, scale: f32, shift: f32) {
        for x in x.chunks_mut(PART) {
            let remainders = &mut self.remainders[..x.len()];
            let scales = &mut self.scales[..x.len()];
            for ((x, remainder), half_power) in x.iter().zip(&mut *remainders).zip(&mut *scales) {
                (*remainder, *half_power) = reduce_exponent(scale * x - shift);
            }
            for ((x, remainder), half_power) in x.iter_mut().zip(remainders).zip(scales) {
                *x = factor * exp_of_reduced(*remainder, *half_power);
            }
        }
    }
}
