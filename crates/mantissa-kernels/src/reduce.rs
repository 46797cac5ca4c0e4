//! Sums over rows and checks of whole tensors.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::rows::{PIECE, count_rows, rows_per_sum, sum_over_blocks};
use crate::vector::{LANES, dispatch, fold_lanes};

/// Writes the sum of each column of `x`, such as the gradient of a bias.
///
/// # Panics
/// If `x` is not whole rows of `width` or `out` is not one.
pub fn column_sums(x: &[f32], width: usize, out: &mut [f32]) {
    assert_eq!(width, out.len(), "sums are one for each column");
    let piece = rows_per_sum(count_rows(x.len(), width), width) * width.max(1);
    sum_over_blocks(x.par_chunks(piece), out, |_, x, sums| {
        dispatch(AddRows { x, sums });
    });
}

struct AddRows<'a> {
    x: &'a [f32],
    sums: &'a mut [f32],
}

impl WithSimd for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for row in self.x.chunks_exact(self.sums.len()) {
            for (sum, x) in self.sums.iter_mut().zip(row) {
                *sum += x;
            }
        }
    }
}

/// What one read of a tensor tells.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scan {
    /// Infinities and NaNs.
    pub non_finite: u64,
    /// The largest magnitude of the finite elements, 0 if there are none.
    pub amax: f32,
    /// The sum of the squares of the finite elements.
    pub square_sum: f64,
}

/// Reads `x` once: how many elements are not finite, the largest magnitude and the sum of squares of the finite ones.
pub fn scan(x: &[f32]) -> Scan {
    if x.len() <= PIECE {
        return dispatch(ScanPiece(x));
    }
    // Halves at the same places whatever the threads, so that the sums are rounded alike.
    let (left, right) = x.split_at(x.len().div_ceil(2 * PIECE) * PIECE);
    let (left, right) = rayon::join(|| scan(left), || scan(right));
    Scan {
        non_finite: left.non_finite + right.non_finite,
        amax: left.amax.max(right.amax),
        square_sum: left.square_sum + right.square_sum,
    }
}

struct ScanPiece<'a>(&'a [f32]);

impl WithSimd for ScanPiece<'_> {
    type Output = Scan;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Scan {
        let mut sums = Sums {
            non_finite: 0,
            amax: [0; SIDE],
            squares: [0.0; SIDE],
        };
        let (blocks, rest) = self.0.as_chunks::<BLOCK>();
        for block in blocks {
            let before = sums;
            sums.add_finite(block);
            // Rarely: what came before, and the block again with care.
            if fold_lanes(sums.amax, u32::max) >= INFINITE {
                sums = before;
                sums.add_any(block);
            }
        }
        sums.add_any(rest);
        Scan {
            non_finite: sums.non_finite,
            amax: f32::from_bits(fold_lanes(sums.amax, u32::max)),
            square_sum: fold_lanes(sums.squares, |a, b| a + b),
        }
    }
}

/// Elements between looks for infinities.
const BLOCK: usize = 1024;
/// Partial sums.
const SIDE: usize = 2 * LANES;
/// The bits of infinity. Magnitudes are ordered as their bits, and those of NaN are larger.
const INFINITE: u32 = 0x7f80_0000;

#[derive(Clone, Copy)]
struct Sums {
    non_finite: u64,
    /// Magnitudes, as bits.
    amax: [u32; SIDE],
    squares: [f64; SIDE],
}

impl Sums {
    /// Adds elements, of which nothing is right if one is not finite, except that `amax` shows it.
    #[inline(always)]
    fn add_finite(&mut self, block: &[f32; BLOCK]) {
        let (mut amax, mut squares) = (self.amax, self.squares);
        for chunk in block.as_chunks::<SIDE>().0 {
            for ((amax, square), x) in amax.iter_mut().zip(&mut squares).zip(chunk) {
                *amax = (*amax).max(x.abs().to_bits());
                *square += f64::from(*x) * f64::from(*x);
            }
        }
        (self.amax, self.squares) = (amax, squares);
    }

    /// Adds elements of any kind, in the same order.
    #[inline(always)]
    fn add_any(&mut self, x: &[f32]) {
        for chunk in x.chunks(SIDE) {
            for ((amax, square), x) in self.amax.iter_mut().zip(&mut self.squares).zip(chunk) {
                let finite = x.abs().to_bits() < INFINITE;
                let kept = if finite { x.abs() } else { 0.0 };
                self.non_finite += u64::from(!finite);
                *amax = (*amax).max(kept.to_bits());
                *square += f64::from(kept) * f64::from(kept);
            }
        }
    }
}
