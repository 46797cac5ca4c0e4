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
        let mut non_finite = [0u32; LANES];
        let mut amax = [0u32; LANES];
        let mut squares = [0f64; LANES];
        let mut lanes = |chunk: &[f32]| {
            for (i, x) in chunk.iter().enumerate() {
                let magnitude = x.to_bits() & 0x7fff_ffff;
                let finite = magnitude < 0x7f80_0000;
                let kept = if finite { magnitude } else { 0 };
                non_finite[i] += u32::from(!finite);
                // Magnitudes are ordered as their bits.
                amax[i] = amax[i].max(kept);
                let kept = f64::from(f32::from_bits(kept));
                squares[i] += kept * kept;
            }
        };
        let (chunks, rest) = self.0.as_chunks::<LANES>();
        for chunk in chunks {
            lanes(chunk);
        }
        lanes(rest);
        Scan {
            non_finite: fold_lanes(non_finite, |a, b| a + b).into(),
            amax: f32::from_bits(fold_lanes(amax, u32::max)),
            square_sum: fold_lanes(squares, |a, b| a + b),
        }
    }
}
