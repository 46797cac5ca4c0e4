//! The loop over blocks of elements, for any vector unit.
//!
//! Every element goes through a block of a fixed size, the last ones through one that is padded: the compiler vectorises loops
//! whose length it knows without a remainder.

use pulp::{Simd, WithSimd};

use crate::RandomBits;
use crate::kernel::{Grid, STOCHASTIC};
use crate::pass::{Code, Pass};
use crate::random::{BLOCK, PAIR};

/// What rounding adds to the part it drops.
#[derive(Clone, Copy)]
pub(crate) struct Amounts {
    /// For directed roundings.
    pub(crate) amount: u32,
    /// For stochastic rounding: the random bits of the elements from `start` on.
    pub(crate) random: RandomBits,
    pub(crate) start: u64,
}

/// One pass over a slice with one kind of rounding and of grid. (A closure would leave its loop out of line, compiled for none.)
pub(crate) struct Coding<'a, P, const ROUNDING: u8, const SHAPE: u8> {
    pub(crate) grid: &'a Grid,
    pub(crate) amounts: Amounts,
    pub(crate) pass: P,
}

impl<P: Pass, const ROUNDING: u8, const SHAPE: u8> WithSimd for Coding<'_, P, ROUNDING, SHAPE> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        // A copy that nothing else can see, so that its fields stay in registers.
        let grid = *self.grid;
        let len = self.pass.len();
        let mut amounts = [self.amounts.amount; BLOCK];
        let mut at = 0;
        loop {
            // Whole blocks in a loop of their own: padding calls functions, and a call takes all registers.
            let within = self.within(at);
            if ROUNDING == STOCHASTIC {
                while within == 0 && len - at >= PAIR * BLOCK {
                    let block = self.random_block(at);
                    for amounts in self.amounts.random.two_blocks(simd, block) {
                        self.pass
                            .whole::<S, ROUNDING, SHAPE>(simd, &grid, at, &amounts);
                        at += BLOCK;
                    }
                }
            } else {
                while len - at >= BLOCK {
                    self.pass
                        .whole::<S, ROUNDING, SHAPE>(simd, &grid, at, &amounts);
                    at += BLOCK;
                }
            }
            if at == len {
                return;
            }
            let count = (BLOCK - within).min(len - at);
            if ROUNDING == STOCHASTIC {
                let bits = self.amounts.random.block(self.random_block(at));
                amounts[..count].copy_from_slice(&bits[within..within + count]);
            }
            self.pass
                .part::<S, ROUNDING, SHAPE>(simd, &grid, at, count, &amounts);
            at += count;
        }
    }
}

impl<P, const ROUNDING: u8, const SHAPE: u8> Coding<'_, P, ROUNDING, SHAPE> {
    /// Where in its block of random bits an element lies.
    #[inline(always)]
    fn within(&self, at: usize) -> usize {
        match ROUNDING {
            STOCHASTIC => (self.amounts.start.wrapping_add(at as u64) % BLOCK as u64) as usize,
            _ => 0,
        }
    }

    /// The number of the block of random bits of an element.
    #[inline(always)]
    fn random_block(&self, at: usize) -> u64 {
        self.amounts.start.wrapping_add(at as u64) / BLOCK as u64
    }
}

/// Codes to values, with `SCALED` times a scale.
pub(crate) struct Decoding<'a, C, const SCALED: bool, const SHAPE: u8> {
    pub(crate) grid: &'a Grid,
    pub(crate) codes: &'a [C],
    pub(crate) scale: f32,
    pub(crate) dst: &'a mut [f32],
}

impl<C: Code, const SCALED: bool, const SHAPE: u8> WithSimd for Decoding<'_, C, SCALED, SHAPE> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (grid, scale) = (*self.grid, self.scale);
        let value = |code: C| {
            let value = grid.decode::<SHAPE>(code.into());
            if SCALED { value * scale } else { value }
        };
        let (blocks, rest) = self.codes.as_chunks::<BLOCK>();
        let (values, rest_values) = self.dst.as_chunks_mut::<BLOCK>();
        for (codes, values) in blocks.iter().zip(values) {
            for (code, x) in codes.iter().zip(values) {
                *x = value(*code);
            }
        }
        for (code, x) in rest.iter().zip(rest_values) {
            *x = value(*code);
        }
    }
}
