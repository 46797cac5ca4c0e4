//! Loops over one line of elements that fall into runs sharing a number: largest magnitudes,
//! divisions and multiplications by scales, on the widest vectors of the machine.
//!
//! Each loop is a structure with its arguments, which `pulp` compiles for every vector unit. (A closure
//! would do as well, but the compiler does not always inline one into the code for the vector unit.)

use mantissa_formats::{SimdLevel, prefetch_ahead};
use pulp::{Simd, WithSimd};

/// The bit pattern of infinity. Magnitudes compared as bits order NaN above it, so a maximum over
/// bits never drops a NaN.
pub const INFINITY_BITS: u32 = 0x7f80_0000;

/// The largest magnitude of a slice, as bits.
pub fn amax_bits(xs: &[f32]) -> u32 {
    let mut most = [0];
    raise_amax(&mut most, xs, usize::MAX);
    most[0]
}

/// Raises `most[g]` to the largest magnitude of the `g`-th run of `run` elements.
pub fn raise_amax(most: &mut [u32], xs: &[f32], run: usize) {
    SimdLevel::best().dispatch(RaiseAmax::<true> { most, xs, run });
}

/// [`raise_amax`] where another pass over the same elements follows and asks for the next ones: that one has more to compute, and
/// waits less for memory.
pub fn raise_amax_first(most: &mut [u32], xs: &[f32], run: usize) {
    SimdLevel::best().dispatch(RaiseAmax::<false> { most, xs, run });
}

/// Multiplies the `g`-th run of `run` elements by `scales[g]`.
pub fn multiply(xs: &mut [f32], scales: &[f32], run: usize) {
    SimdLevel::best().dispatch(Multiply { xs, scales, run });
}

/// Writes `out[i * len + j] = xs[i + j * stride]` for the rows `i` and the `len` columns `j` of `out`.
pub fn transpose(out: &mut [f32], len: usize, xs: &[f32], stride: usize) {
    SimdLevel::best().dispatch(Transpose {
        out,
        len,
        xs,
        stride,
    });
}

#[inline(always)]
fn magnitude_bits(x: f32) -> u32 {
    x.to_bits() & 0x7fff_ffff
}

#[inline(always)]
fn largest<S: Simd, const AHEAD: bool>(simd: S, xs: &[f32]) -> u32 {
    let (vectors, rest) = S::as_simd_f32s(xs);
    let magnitude = |x| simd.transmute_u32s_f32s(simd.abs_f32s(x));
    // Four chains, so that a maximum does not wait for the one before.
    let mut chains = [simd.splat_u32s(0); 4];
    let (quads, single) = vectors.as_chunks::<4>();
    for (i, quad) in quads.iter().enumerate() {
        if AHEAD {
            prefetch_ahead(vectors, 4 * i, 4);
        }
        for (chain, &x) in chains.iter_mut().zip(quad) {
            *chain = simd.max_u32s(*chain, magnitude(x));
        }
    }
    for &x in single {
        chains[0] = simd.max_u32s(chains[0], magnitude(x));
    }
    let [a, b, c, d] = chains;
    let lanes = simd.max_u32s(simd.max_u32s(a, b), simd.max_u32s(c, d));
    let most = largest_lane(simd, lanes);
    rest.iter()
        .fold(most, |most, &x| magnitude_bits(x).max(most))
}

/// With `AHEAD`, memory is asked for before it is read.
struct RaiseAmax<'a, const AHEAD: bool> {
    most: &'a mut [u32],
    xs: &'a [f32],
    run: usize,
}

impl<const AHEAD: bool> WithSimd for RaiseAmax<'_, AHEAD> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if self.run == 1 {
            for (most, &x) in self.most.iter_mut().zip(self.xs) {
                *most = (*most).max(magnitude_bits(x));
            }
            return;
        }
        // Short runs have their length known to the compiler, and no loops of their own.
        match self.run {
            16 => raise_short::<_, AHEAD, 16>(simd, self.most, self.xs.as_chunks::<16>()),
            32 => raise_short::<_, AHEAD, 32>(simd, self.most, self.xs.as_chunks::<32>()),
            64 => raise_short::<_, AHEAD, 64>(simd, self.most, self.xs.as_chunks::<64>()),
            run => {
                for (most, xs) in self.most.iter_mut().zip(self.xs.chunks(run)) {
                    *most = (*most).max(largest::<_, AHEAD>(simd, xs));
                }
            }
        }
    }
}

#[inline(always)]
fn raise_short<S: Simd, const AHEAD: bool, const RUN: usize>(
    simd: S,
    most: &mut [u32],
    (runs, rest): (&[[f32; RUN]], &[f32]),
) {
    let done = 0;
    #[cfg(target_arch = "x86_64")]
    let done = match (&simd as &dyn std::any::Any).downcast_ref() {
        Some(v4) => raise_sixteens::<AHEAD, RUN>(*v4, most, runs),
        None => done,
    };
    for (i, (most, run)) in most.iter_mut().zip(runs).enumerate().skip(done) {
        if AHEAD {
            prefetch_ahead(runs, i, 1);
        }
        *most = (*most).max(largest_lane(simd, lanes(simd, run)));
    }
    if let Some(most) = most.get_mut(runs.len())
        && !rest.is_empty()
    {
        *most = (*most).max(largest::<_, AHEAD>(simd, rest));
    }
}

/// The largest magnitudes of a run at each of its places in a vector.
#[inline(always)]
fn lanes<S: Simd, const RUN: usize>(simd: S, run: &[f32; RUN]) -> S::u32s {
    let mut lanes = simd.splat_u32s(0);
    for &x in S::as_simd_f32s(run).0 {
        lanes = simd.max_u32s(lanes, simd.transmute_u32s_f32s(simd.abs_f32s(x)));
    }
    lanes
}

/// Raises what belongs to whole sixteens of runs, and returns how many runs those are. Two vectors become one, of half as many
/// numbers of each, in three instructions, and sixteen become one in 45; each by itself would take eight.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn raise_sixteens<const AHEAD: bool, const RUN: usize>(
    v4: pulp::x86::V4,
    most: &mut [u32],
    runs: &[[f32; RUN]],
) -> usize {
    use std::arch::x86_64::__m512i;
    let avx512 = v4.avx512f;
    let (sixteens, _) = runs.as_chunks::<16>();
    let (mosts, _) = most.as_chunks_mut::<16>();
    for (i, (most, runs)) in mosts.iter_mut().zip(sixteens).enumerate() {
        if AHEAD {
            prefetch_ahead(sixteens, i, 1);
        }
        let mut each: [__m512i; 16] = [avx512._mm512_setzero_si512(); 16];
        for (each, run) in each.iter_mut().zip(runs) {
            *each = pulp::bytemuck::cast(lanes(v4, run));
        }
        // Until there is one number of each of four runs in every quarter of a vector.
        for to in 0..8 {
            let [a, b] = [each[2 * to], each[2 * to + 1]];
            let first = avx512._mm512_unpacklo_epi32(a, b);
            each[to] = avx512._mm512_max_epu32(first, avx512._mm512_unpackhi_epi32(a, b));
        }
        for to in 0..4 {
            let [a, b] = [each[2 * to], each[2 * to + 1]];
            let first = avx512._mm512_unpacklo_epi64(a, b);
            each[to] = avx512._mm512_max_epu32(first, avx512._mm512_unpackhi_epi64(a, b));
        }
        // Then across quarters.
        for to in [0, 1, 0] {
            let [a, b] = [each[2 * to], each[2 * to + 1]];
            let even = avx512._mm512_shuffle_i32x4::<0x88>(a, b);
            let odd = avx512._mm512_shuffle_i32x4::<0xdd>(a, b);
            each[to] = avx512._mm512_max_epu32(even, odd);
        }
        let found: [u32; 16] = pulp::bytemuck::cast(each[0]);
        for (most, found) in most.iter_mut().zip(found) {
            *most = (*most).max(found);
        }
    }
    16 * sixteens.len().min(mosts.len())
}

#[inline(always)]
fn largest_lane<S: Simd>(_: S, lanes: S::u32s) -> u32 {
    let lanes = [lanes];
    let mut tree = [0; TILE];
    let lanes = pulp::bytemuck::cast_slice::<S::u32s, u32>(&lanes);
    tree[..lanes.len()].copy_from_slice(lanes);
    let mut half = lanes.len() / 2;
    while half > 0 {
        for i in 0..half {
            tree[i] = tree[i].max(tree[i + half]);
        }
        half /= 2;
    }
    tree[0]
}

struct Multiply<'a> {
    xs: &'a mut [f32],
    scales: &'a [f32],
    run: usize,
}

impl WithSimd for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if self.run == 1 {
            for (x, scale) in self.xs.iter_mut().zip(self.scales) {
                *x *= scale;
            }
            return;
        }
        for (xs, &scale) in self.xs.chunks_mut(self.run).zip(self.scales) {
            let (vectors, rest) = S::as_mut_simd_f32s(xs);
            let scales = simd.splat_f32s(scale);
            for x in vectors {
                *x = simd.mul_f32s(*x, scales);
            }
            for x in rest {
                *x *= scale;
            }
        }
    }
}

/// Side of the tiles that [`transpose`] moves: a cache line of floats, so that each line fetched is
/// used up at once, however far apart they lie.
pub const TILE: usize = 16;

struct Transpose<'a> {
    out: &'a mut [f32],
    len: usize,
    xs: &'a [f32],
    stride: usize,
}

impl WithSimd for Transpose<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Transpose {
            out,
            len,
            xs,
            stride,
        } = self;
        let rows = out.len() / len;
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
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_any_length_cover_the_line() {
        let xs: Vec<f32> = (0..1150i16)
            .map(|i| f32::from(i % 150 - 75) * 0.37)
            .collect();
        for run in [1, 3, 16, 32, 64, 128, 149, 150, 1000] {
            let groups = xs.len().div_ceil(run);
            let mut most = vec![0; groups];
            raise_amax(&mut most, &xs, run);
            let scales: Vec<f32> = (0..groups).map(|g| 1.5 + g as f32).collect();
            let mut products = xs.clone();
            multiply(&mut products, &scales, run);
            for (g, chunk) in xs.chunks(run).enumerate() {
                let amax = chunk.iter().fold(0f32, |most, x| most.max(x.abs()));
                assert_eq!(f32::from_bits(most[g]), amax, "run {run}");
            }
            for (i, x) in xs.iter().enumerate() {
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
