//! The loop over blocks of elements, for any vector unit.
//!
//! Every element goes through a block of a fixed size, the last ones through one that is padded: the compiler vectorises loops
//! whose length it knows without a remainder.

use pulp::{Simd, WithSimd};

use crate::RandomBits;
use crate::kernel::{Grid, STOCHASTIC};
use crate::pass::{Code, Pass};
use crate::random::{self, BLOCK, PAIR};

/// Elements served by one block of random words, and by those drawn together.
const HALF_DRAWN: u64 = 2 * BLOCK as u64;
const DRAWN: u64 = PAIR as u64 * HALF_DRAWN;

/// What rounding adds to the part it drops.
#[derive(Clone, Copy)]
pub(crate) struct Amounts {
    /// For directed roundings.
    pub(crate) amount: u32,
    /// For stochastic rounding: where the amounts of the elements from `start` on are drawn.
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
            if ROUNDING == STOCHASTIC {
                while self.index(at).is_multiple_of(DRAWN) && (len - at) as u64 >= DRAWN {
                    let words = self
                        .amounts
                        .random
                        .two_blocks(simd, self.index(at) / HALF_DRAWN);
                    for words in &words {
                        let amounts = random::amounts::<0>(words);
                        self.pass
                            .whole::<S, ROUNDING, SHAPE>(simd, &grid, at, &amounts);
                        let amounts = random::amounts::<1>(words);
                        self.pass
                            .whole::<S, ROUNDING, SHAPE>(simd, &grid, at + BLOCK, &amounts);
                        at += 2 * BLOCK;
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
            let mut count = BLOCK.min(len - at);
            if ROUNDING == STOCHASTIC {
                let within = (self.index(at) % BLOCK as u64) as usize;
                count = count.min(BLOCK - within);
                let block = self.amounts.random.amounts(self.index(at) / BLOCK as u64);
                amounts[..count].copy_from_slice(&block[within..within + count]);
            }
            self.pass
                .part::<S, ROUNDING, SHAPE>(simd, &grid, at, count, &amounts);
            at += count;
        }
    }
}

impl<P, const ROUNDING: u8, const SHAPE: u8> Coding<'_, P, ROUNDING, SHAPE> {
    /// The index of an element in the stream of random bits.
    #[inline(always)]
    fn index(&self, at: usize) -> u64 {
        self.amounts.start.wrapping_add(at as u64)
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
