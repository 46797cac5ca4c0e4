//! Dropout with a mask that is drawn again instead of stored.

use mantissa_formats::RandomBits;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::rows::PIECE;
use crate::vector::dispatch;

/// Random words drawn at once: few enough to stay in the first cache.
const DRAWN: usize = 1024;

/// Zeroes each element of `x` with the given probability and multiplies the others by `1 / (1 - probability)` (Srivastava et al.
/// 2014, JMLR 15). The same call on the gradient is the backward. Element `i` reads index `i` of `random`.
///
/// # Panics
/// If the probability is not in `0..=1`.
pub fn dropout(x: &mut [f32], probability: f64, random: RandomBits) {
    let Some(factor) = Factor::new(probability) else {
        return;
    };
    x.par_chunks_mut(PIECE).enumerate().for_each(|(index, x)| {
        let mut drawn = [0; DRAWN];
        for (part, x) in x.chunks_mut(DRAWN).enumerate() {
            let drawn = &mut drawn[..x.len()];
            random.fill((index * PIECE + part * DRAWN) as u64, drawn);
            dispatch(Scale { x, drawn, factor });
        }
    });
}

/// Adds [`dropout`] of `x` to `residual`, in place. With probability 0 it is a plain addition.
///
/// # Panics
/// If the lengths differ or the probability is not in `0..=1`.
pub fn dropout_add(x: &[f32], residual: &mut [f32], probability: f64, random: RandomBits) {
    assert_eq!(
        x.len(),
        residual.len(),
        "input and residual differ in length"
    );
    let factor = Factor::new(probability);
    residual
        .par_chunks_mut(PIECE)
        .zip(x.par_chunks(PIECE))
        .enumerate()
        .for_each(|(index, (residual, x))| {
            let Some(factor) = factor else {
                return dispatch(Add { x, residual });
            };
            let mut drawn = [0; DRAWN];
            let parts = residual.chunks_mut(DRAWN).zip(x.chunks(DRAWN));
            for (part, (residual, x)) in parts.enumerate() {
                let drawn = &mut drawn[..x.len()];
                random.fill((index * PIECE + part * DRAWN) as u64, drawn);
                dispatch(ScaleAdd {
                    x,
                    residual,
                    drawn,
                    factor,
                });
            }
        });
}

/// What elements are multiplied by, given their random bits.
#[derive(Clone, Copy)]
struct Factor {
    /// Elements with fewer bits are dropped.
    least: u32,
    kept: f32,
}

impl Factor {
    /// `None` if every element is kept as it is.
    fn new(probability: f64) -> Option<Self> {
        assert!(
            (0.0..=1.0).contains(&probability),
            "a dropout probability of {probability} is not in 0..=1"
        );
        if probability == 0.0 {
            return None;
        }
        // Probability 1 keeps one word in 2³²; times 0.
        let kept = if probability < 1.0 {
            1.0 / (1.0 - probability)
        } else {
            0.0
        };
        Some(Self {
            least: (probability * (1u64 << 32) as f64).round() as u32,
            kept: kept as f32,
        })
    }

    /// Of one element. A product and not a choice, so that NaN stays NaN.
    #[inline(always)]
    fn of(self, drawn: u32) -> f32 {
        if drawn >= self.least { self.kept } else { 0.0 }
    }
}

struct Scale<'a> {
    x: &'a mut [f32],
    drawn: &'a [u32],
    factor: Factor,
}

impl WithSimd for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (x, drawn) in self.x.iter_mut().zip(self.drawn) {
            *x *= self.factor.of(*drawn);
        }
    }
}

struct ScaleAdd<'a> {
    x: &'a [f32],
    residual: &'a mut [f32],
    drawn: &'a [u32],
    factor: Factor,
}

impl WithSimd for ScaleAdd<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for ((residual, x), drawn) in self.residual.iter_mut().zip(self.x).zip(self.drawn) {
            *residual += x * self.factor.of(*drawn);
        }
    }
}

struct Add<'a> {
    x: &'a [f32],
    residual: &'a mut [f32],
}

impl WithSimd for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (residual, x) in self.residual.iter_mut().zip(self.x) {
            *residual += x;
        }
    }
}
