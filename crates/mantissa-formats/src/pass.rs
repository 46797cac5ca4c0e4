//! Where the elements of a pass come from and what becomes of them, a block at a time.

use pulp::Simd;

use crate::kernel::Grid;
use crate::prefetch;
use crate::random::BLOCK;
use crate::scales::Divisor;

/// Elements to be coded, each call those after the last one.
pub(crate) trait Pass {
    fn len(&self) -> usize;

    /// Codes a block from `at` on.
    fn whole<S: Simd, const ROUNDING: u8, const SHAPE: u8>(
        &mut self,
        simd: S,
        grid: &Grid,
        at: usize,
        amounts: &[u32; BLOCK],
    );

    /// Codes `count` elements from `at` on, fewer than a block.
    fn part<S: Simd, const ROUNDING: u8, const SHAPE: u8>(
        &mut self,
        simd: S,
        grid: &Grid,
        at: usize,
        count: usize,
        amounts: &[u32; BLOCK],
    );

    /// Codes element `i` by the scalar codec.
    fn one(&mut self, i: usize, encode: impl Fn(f32) -> u32, decode: impl Fn(u32) -> f32);
}

/// Values that are replaced, divided by their scales first and multiplied by them in the end.
pub(crate) struct InPlace<'a, D> {
    values: &'a mut [f32],
    scales: D,
}

impl<'a, D: Divisor> InPlace<'a, D> {
    pub(crate) fn new(values: &'a mut [f32], scales: D) -> Self {
        Self { values, scales }
    }

    #[inline(always)]
    fn block<S: Simd, const ROUNDING: u8, const SHAPE: u8>(
        grid: &Grid,
        values: &mut [f32; BLOCK],
        scales: &D,
        amounts: &[u32; BLOCK],
    ) {
        *values = scales.divide::<S>(values);
        for i in 0..BLOCK {
            let x = grid.round::<ROUNDING, SHAPE>(values[i], amounts[i]);
            values[i] = if D::NONE { x } else { x * scales.scale(i) };
        }
    }
}

impl<D: Divisor> Pass for InPlace<'_, D> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.values.len()
    }

    #[inline(always)]
    fn whole<S: Simd, const ROUNDING: u8, const SHAPE: u8>(
        &mut self,
        simd: S,
        grid: &Grid,
        at: usize,
        amounts: &[u32; BLOCK],
    ) {
        self.scales.advance(simd, BLOCK);
        prefetch::ahead(self.values, at, BLOCK);
        let (block, _) = self.values[at..at + BLOCK].as_chunks_mut();
        Self::block::<S, ROUNDING, SHAPE>(grid, &mut block[0], &self.scales, amounts);
    }

    #[inline(always)]
    fn part<S: Simd, const ROUNDING: u8, const SHAPE: u8>(
        &mut self,
        simd: S,
        grid: &Grid,
        at: usize,
        count: usize,
        amounts: &[u32; BLOCK],
    ) {
        self.scales.advance(simd, count);
        let values = &mut self.values[at..at + count];
        let mut padded = padded(values);
        Self::block::<S, ROUNDING, SHAPE>(grid, &mut padded, &self.scales, amounts);
        values.copy_from_slice(&padded[..count]);
    }

    fn one(&mut self, i: usize, encode: impl Fn(f32) -> u32, decode: impl Fn(u32) -> f32) {
        self.scales.advance(pulp::Scalar::new(), 1);
        let scale = self.scales.scale(0);
        self.values[i] = decode(encode(self.values[i] / scale)) * scale;
    }
}

/// Values to other values, divided by their scales first and with `BACK` multiplied by them in the end.
pub(crate) struct ToValues<'a, D, const BACK: bool> {
    src: &'a [f32],
    out: &'a mut [f32],
    scales: D,
}

impl<'a, D: Divisor, const BACK: bool> ToValues<'a, D, BACK> {
    pub(crate) fn new(src: &'a [f32], out: &'a mut [f32], scales: D) -> Self {
        Self { src, out, scales }
    }

    #[inline(always)]
    fn block<S: Simd, const ROUNDING: u8, const SHAPE: u8>(
        grid: &Grid,
        src: &[f32; BLOCK],
        scales: &D,
        amounts: &[u32; BLOCK],
        out: &mut [f32; BLOCK],
    ) {
        let quotients = scales.divide::<S>(src);
        for i in 0..BLOCK {
            let x = grid.round::<ROUNDING, SHAPE>(quotients[i], amounts[i]);
            out[i] = if BACK { x * scales.scale(i) } else { x };
        }
    }
}

impl<D: Divisor, const BACK: bool> Pass for ToValues<'_, D, BACK> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.src.len()
    }

    #[inline(always)]
    fn whole<S: Simd, const ROUNDING: u8, const SHAPE: u8>(
        &mut self,
        simd: S,
        grid: &Grid,
        at: usize,
        amounts: &[u32; BLOCK],
    ) {
        self.scales.advance(simd, BLOCK);
        prefetch::ahead(self.src, at, BLOCK);
        let (src, _) = self.src[at..at + BLOCK].as_chunks();
        let (out, _) = self.out[at..at + BLOCK].as_chunks_mut();
        Self::block::<S, ROUNDING, SHAPE>(grid, &src[0], &self.scales, amounts, &mut out[0]);
    }

    #[inline(always)]
    fn part<S: Simd, const ROUNDING: u8, const SHAPE: u8>(
        &mut self,
        simd: S,
        grid: &Grid,
        at: usize,
        count: usize,
        amounts: &[u32; BLOCK],
    ) {
        self.scales.advance(simd, count);
        let src = padded(&self.src[at..at + count]);
        let mut out = [0.0; BLOCK];
        Self::block::<S, ROUNDING, SHAPE>(grid, &src, &self.scales, amounts, &mut out);
        self.out[at..at + count].copy_from_slice(&out[..count]);
    }

    fn one(&mut self, i: usize, encode: impl Fn(f32) -> u32, decode: impl Fn(u32) -> f32) {
        self.scales.advance(pulp::Scalar::new(), 1);
        let scale = self.scales.scale(0);
        let x = decode(encode(self.src[i] / scale));
        self.out[i] = if BACK { x * scale } else { x };
    }
}

/// An integer that holds codes.
pub(crate) trait Code: Copy + Default + Into<u32> {
    fn holding(code: u32) -> Self;
}

impl Code for u8 {
    #[inline(always)]
    fn holding(code: u32) -> Self {
        code as Self
    }
}

impl Code for u16 {
    #[inline(always)]
    fn holding(code: u32) -> Self {
        code as Self
    }
}

/// Values to codes, divided by their scales first.
pub(crate) struct ToCodes<'a, C, D> {
    src: &'a [f32],
    dst: &'a mut [C],
    scales: D,
}

impl<'a, C: Code, D: Divisor> ToCodes<'a, C, D> {
    pub(crate) fn new(src: &'a [f32], dst: &'a mut [C], scales: D) -> Self {
        Self { src, dst, scales }
    }

    #[inline(always)]
    fn block<S: Simd, const ROUNDING: u8, const SHAPE: u8>(
        grid: &Grid,
        src: &[f32; BLOCK],
        scales: &D,
        amounts: &[u32; BLOCK],
        out: &mut [C; BLOCK],
    ) {
        let quotients = scales.divide::<S>(src);
        // All codes before the first is narrowed: the compiler vectorises either loop by itself better than both in one.
        let mut codes = [0; BLOCK];
        for i in 0..BLOCK {
            codes[i] = grid.encode::<ROUNDING, SHAPE>(quotients[i], amounts[i]);
        }
        for (out, code) in out.iter_mut().zip(codes) {
            *out = C::holding(code);
        }
    }
}

impl<C: Code, D: Divisor> Pass for ToCodes<'_, C, D> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.src.len()
    }

    #[inline(always)]
    fn whole<S: Simd, const ROUNDING: u8, const SHAPE: u8>(
        &mut self,
        simd: S,
        grid: &Grid,
        at: usize,
        amounts: &[u32; BLOCK],
    ) {
        self.scales.advance(simd, BLOCK);
        prefetch::ahead(self.src, at, BLOCK);
        let (src, _) = self.src[at..at + BLOCK].as_chunks();
        let (dst, _) = self.dst[at..at + BLOCK].as_chunks_mut();
        Self::block::<S, ROUNDING, SHAPE>(grid, &src[0], &self.scales, amounts, &mut dst[0]);
    }

    #[inline(always)]
    fn part<S: Simd, const ROUNDING: u8, const SHAPE: u8>(
        &mut self,
        simd: S,
        grid: &Grid,
        at: usize,
        count: usize,
        amounts: &[u32; BLOCK],
    ) {
        self.scales.advance(simd, count);
        let src = padded(&self.src[at..at + count]);
        let mut dst = [C::default(); BLOCK];
        Self::block::<S, ROUNDING, SHAPE>(grid, &src, &self.scales, amounts, &mut dst);
        self.dst[at..at + count].copy_from_slice(&dst[..count]);
    }

    fn one(&mut self, i: usize, encode: impl Fn(f32) -> u32, _: impl Fn(u32) -> f32) {
        self.scales.advance(pulp::Scalar::new(), 1);
        let scale = self.scales.scale(0);
        self.dst[i] = C::holding(encode(self.src[i] / scale));
    }
}

/// The values, and zeros up to a whole block.
#[inline(always)]
fn padded(values: &[f32]) -> [f32; BLOCK] {
    let mut padded = [0.0; BLOCK];
    padded[..values.len()].copy_from_slice(values);
    padded
}
