//! Loops over one line of elements that fall into runs sharing a number: largest magnitudes,
//! divisions and multiplications by scales, on the widest vectors of the machine.

use std::mem::MaybeUninit;

use pulp::Arch;

/// The bit pattern of infinity. Magnitudes compared as bits order NaN above it, so a maximum over
/// bits never drops a NaN.
pub const INFINITY_BITS: u32 = 0x7f80_0000;

#[inline(always)]
fn magnitude_bits(x: f32) -> u32 {
    x.to_bits() & 0x7fff_ffff
}

#[inline(always)]
fn largest(xs: &[f32]) -> u32 {
    xs.iter().fold(0, |most, &x| most.max(magnitude_bits(x)))
}

/// The largest magnitude of a slice, as bits.
pub fn amax_bits(xs: &[f32]) -> u32 {
    Arch::new().dispatch(
        #[inline(always)]
        || largest(xs),
    )
}

/// Raises `most[g]` to the largest magnitude of the `g`-th run of `run` elements.
pub fn raise_amax(most: &mut [u32], xs: &[f32], run: usize) {
    #[inline(always)]
    fn fixed<const N: usize>(most: &mut [u32], xs: &[f32]) {
        let (runs, rest) = xs.as_chunks::<N>();
        let (whole, last) = most.split_at_mut(runs.len());
        for (most, xs) in whole.iter_mut().zip(runs) {
            *most = (*most).max(largest(xs));
        }
        if let Some(last) = last.first_mut() {
            *last = (*last).max(largest(rest));
        }
    }
    Arch::new().dispatch(
        #[inline(always)]
        || match run {
            1 => {
                for (most, &x) in most.iter_mut().zip(xs) {
                    *most = (*most).max(magnitude_bits(x));
                }
            }
            16 => fixed::<16>(most, xs),
            32 => fixed::<32>(most, xs),
            64 => fixed::<64>(most, xs),
            128 => fixed::<128>(most, xs),
            _ => {
                for (most, xs) in most.iter_mut().zip(xs.chunks(run)) {
                    *most = (*most).max(largest(xs));
                }
            }
        },
    )
}

/// Writes to `out` the quotients of `xs`, the `g`-th run of `run` elements divided by `scales[g]`.
pub fn divide_into(out: &mut [MaybeUninit<f32>], xs: &[f32], scales: &[f32], run: usize) {
    #[inline(always)]
    fn all(out: &mut [MaybeUninit<f32>], xs: &[f32], scale: f32) {
        for (out, x) in out.iter_mut().zip(xs) {
            out.write(x / scale);
        }
    }
    #[inline(always)]
    fn fixed<const N: usize>(out: &mut [MaybeUninit<f32>], xs: &[f32], scales: &[f32]) {
        let ((outs, out_rest), (runs, rest)) = (out.as_chunks_mut::<N>(), xs.as_chunks::<N>());
        let (whole, last) = scales.split_at(runs.len());
        for ((out, xs), &scale) in outs.iter_mut().zip(runs).zip(whole) {
            all(out, xs, scale);
        }
        if let Some(&scale) = last.first() {
            all(out_rest, rest, scale);
        }
    }
    assert!(out.len() == xs.len() && xs.len() <= run.saturating_mul(scales.len()));
    Arch::new().dispatch(
        #[inline(always)]
        || match run {
            1 => {
                for ((out, x), scale) in out.iter_mut().zip(xs).zip(scales) {
                    out.write(x / scale);
                }
            }
            16 => fixed::<16>(out, xs, scales),
            32 => fixed::<32>(out, xs, scales),
            64 => fixed::<64>(out, xs, scales),
            128 => fixed::<128>(out, xs, scales),
            _ => {
                for ((out, xs), &scale) in out.chunks_mut(run).zip(xs.chunks(run)).zip(scales) {
                    all(out, xs, scale);
                }
            }
        },
    )
}

/// Multiplies the `g`-th run of `run` elements by `scales[g]`.
pub fn multiply(xs: &mut [f32], scales: &[f32], run: usize) {
    #[inline(always)]
    fn all(xs: &mut [f32], scale: f32) {
        for x in xs {
            *x *= scale;
        }
    }
    #[inline(always)]
    fn fixed<const N: usize>(xs: &mut [f32], scales: &[f32]) {
        let (runs, rest) = xs.as_chunks_mut::<N>();
        let (whole, last) = scales.split_at(runs.len());
        for (xs, &scale) in runs.iter_mut().zip(whole) {
            all(xs, scale);
        }
        if let Some(&scale) = last.first() {
            all(rest, scale);
        }
    }
    Arch::new().dispatch(
        #[inline(always)]
        || match run {
            1 => {
                for (x, scale) in xs.iter_mut().zip(scales) {
                    *x *= scale;
                }
            }
            16 => fixed::<16>(xs, scales),
            32 => fixed::<32>(xs, scales),
            64 => fixed::<64>(xs, scales),
            128 => fixed::<128>(xs, scales),
            _ => {
                for (xs, &scale) in xs.chunks_mut(run).zip(scales) {
                    all(xs, scale);
                }
            }
        },
    )
}

/// Side of the tiles that [`transpose`] moves: a cache line of floats, so that each line fetched is
/// used up at once, however far apart they lie.
pub const TILE: usize = 16;

/// Writes `out[i * len + j] = xs[i + j * stride]` for the rows `i` and the `len` columns `j` of `out`.
pub fn transpose(out: &mut [f32], len: usize, xs: &[f32], stride: usize) {
    #[inline(always)]
    fn whole_tile(out: &mut [f32], len: usize, xs: &[f32], stride: usize) {
        let mut tile = [[0.0; TILE]; TILE];
        for (column, tile) in tile.iter_mut().enumerate() {
            tile.copy_from_slice(&xs[column * stride..][..TILE]);
        }
        for row in 0..TILE {
            let line: [f32; TILE] = std::array::from_fn(|column| tile[column][row]);
            out[row * len..][..TILE].copy_from_slice(&line);
        }
    }
    let rows = out.len() / len;
    Arch::new().dispatch(
        #[inline(always)]
        || {
            for j in (0..len).step_by(TILE) {
                for i in (0..rows).step_by(TILE) {
                    let (out, xs) = (&mut out[i * len + j..], &xs[i + j * stride..]);
                    let (height, width) = (TILE.min(rows - i), TILE.min(len - j));
                    if (height, width) == (TILE, TILE) {
                        whole_tile(out, len, xs, stride);
                        continue;
                    }
                    for row in 0..height {
                        for column in 0..width {
                            out[row * len + column] = xs[row + column * stride];
                        }
                    }
                }
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_any_length_cover_the_line() {
        let xs: Vec<f32> = (0..150i16).map(|i| f32::from(i - 75) * 0.37).collect();
        for run in [1, 3, 16, 32, 64, 128, 149, 150, 1000] {
            let groups = xs.len().div_ceil(run);
            let mut most = vec![0; groups];
            raise_amax(&mut most, &xs, run);
            let scales: Vec<f32> = (0..groups).map(|g| 1.5 + g as f32).collect();
            let mut quotients = vec![MaybeUninit::new(0.0); xs.len()];
            let mut products = xs.clone();
            divide_into(&mut quotients, &xs, &scales, run);
            multiply(&mut products, &scales, run);
            for (g, chunk) in xs.chunks(run).enumerate() {
                let amax = chunk.iter().fold(0f32, |most, x| most.max(x.abs()));
                assert_eq!(f32::from_bits(most[g]), amax, "run {run}");
            }
            for (i, x) in xs.iter().enumerate() {
                // SAFETY: every element was initialized above.
                assert_eq!(unsafe { quotients[i].assume_init() }, x / scales[i / run]);
                assert_eq!(products[i], x * scales[i / run]);
            }
        }
    }

    #[test]
    fn a_nan_is_the_largest() {
        let xs = [1.0, f32::NAN, f32::INFINITY, -f32::NAN, 2.0];
        assert!(amax_bits(&xs) > INFINITY_BITS);
        assert_eq!(amax_bits(&[1.0, f32::NEG_INFINITY]), INFINITY_BITS);
        assert_eq!(amax_bits(&[]), 0);
        assert_eq!(amax_bits(&[-0.0]), 0);
    }

    #[test]
    fn transposing_covers_ragged_tiles() {
        let xs: Vec<f32> = (0..4000u16).map(f32::from).collect();
        for [rows, len, stride] in [
            [1, 1, 1],
            [16, 16, 16],
            [17, 33, 40],
            [5, 100, 7],
            [40, 3, 41],
        ] {
            let mut out = vec![0.0; rows * len];
            transpose(&mut out, len, &xs, stride);
            for (at, x) in out.iter().enumerate() {
                assert_eq!(*x, xs[at / len + at % len * stride]);
            }
        }
    }
}
