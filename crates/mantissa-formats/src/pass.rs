//! Where the elements of a pass come from and what becomes of them, a block at a time.

use pulp::Simd;

use crate::kernel::Grid;
use crate::prefetch;
use crate::random::BLOCK;
use crate::scales::Scales;

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

/// Values that are replaced, with `SCALED` divided by a scale first and multiplied by it in the end.
pub(crate) struct InPlace<'a, const SCALED: bool> {
    values: &'a mut [f32],
    scales: Scales<'a>,
}

impl<'a, const SCALED: bool> InPlace<'a, SCALED> {
    pub(crate) fn new(values: &'a mut [f32], scales: Scales<'a>) -> Self {
        Self { values, scales }
    }

    #[inline(always)]
    fn block<const ROUNDING: u8, const SHAPE: u8>(
        grid: &Grid,
        values: &mut [f32; BLOCK],
        scales: &Scales,
        amounts: &[u32; BLOCK],
    ) {
        if SCALED {
            *values = scales.divide(values);
        }
        for i in 0..BLOCK {
            let x = grid.round::<ROUNDING, SHAPE>(values[i], amounts[i]);
            values[i] = if SCALED { x * scales.block()[i] } else { x };
        }
    }
}

impl<const SCALED: bool> Pass for InPlace<'_, SCALED> {
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
        if SCALED {
            self.scales.advance(simd, BLOCK);
        }
        prefetch::ahead(self.values, at, BLOCK);
        let (block, _) = self.values[at..at + BLOCK].as_chunks_mut();
        Self::block::<ROUNDING, SHAPE>(grid, &mut block[0], &self.scales, amounts);
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
        if SCALED {
            self.scales.advance(simd, count);
        }
        let values = &mut self.values[at..at + count];
        let mut padded = padded(values);
        Self::block::<ROUNDING, SHAPE>(grid, &mut padded, &self.scales, amounts);
        values.copy_from_slice(&padded[..count]);
    }

    fn one(&mut self, i: usize, encode: impl Fn(f32) -> u32, decode: impl Fn(u32) -> f32) {
        self.scales.advance(pulp::Scalar::new(), 1);
        let scale = self.scales.block()[0];
        self.values[i] = decode(encode(self.values[i] / scale)) * scale;
    }
}

/// Values to other values, with `SCALED` divided by a scale first and with `BACK` multiplied by it in the end.
pub(crate) struct ToValues<'a, const SCALED: bool, const BACK: bool> {
    src: &'a [f32],
    out: &'a mut [f32],
    scales: Scales<'a>,
}

impl<'a, const SCALED: bool, const BACK: bool> ToValues<'a, SCALED, BACK> {
    pub(crate) fn new(src: &'a [f32], out: &'a mut [f32], scales: Scales<'a>) -> Self {
        Self { src, out, scales }
    }

    #[inline(always)]
    fn block<const ROUNDING: u8, const SHAPE: u8>(
        grid: &Grid,
        src: &[f32; BLOCK],
        scales: &Scales,
        amounts: &[u32; BLOCK],
        out: &mut [f32; BLOCK],
    ) {
        let quotients = if SCALED { scales.divide(src) } else { *src };
        for i in 0..BLOCK {
            let x = grid.round::<ROUNDING, SHAPE>(quotients[i], amounts[i]);
            out[i] = if BACK { x * scales.block()[i] } else { x };
        }
    }
}

impl<const SCALED: bool, const BACK: bool> Pass for ToValues<'_, SCALED, BACK> {
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
        if SCALED {
            self.scales.advance(simd, BLOCK);
        }
        prefetch::ahead(self.src, at, BLOCK);
        let (src, _) = self.src[at..at + BLOCK].as_chunks();
        let (out, _) = self.out[at..at + BLOCK].as_chunks_mut();
        Self::block::<ROUNDING, SHAPE>(grid, &src[0], &self.scales, amounts, &mut out[0]);
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
        if SCALED {
            self.scales.advance(simd, count);
        }
        let src = padded(&self.src[at..at + count]);
        let mut out = [0.0; BLOCK];
        Self::block::<ROUNDING, SHAPE>(grid, &src, &self.scales, amounts, &mut out);
        self.out[at..at + count].copy_from_slice(&out[..count]);
    }

    fn one(&mut self, i: usize, encode: impl Fn(f32) -> u32, decode: impl Fn(u32) -> f32) {
        self.scales.advance(pulp::Scalar::new(), 1);
        let scale = self.scales.block()[0];
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

/// Values to codes, with `SCALED` divided by a scale first.
pub(crate) struct ToCodes<'a, C, const SCALED: bool> {
    src: &'a [f32],
    dst: &'a mut [C],
    scales: Scales<'a>,
}

impl<'a, C: Code, const SCALED: bool> ToCodes<'a, C, SCALED> {
    pub(crate) fn new(src: &'a [f32], dst: &'a mut [C], scales: Scales<'a>) -> Self {
        Self { src, dst, scales }
    }

    #[inline(always)]
    fn block<const ROUNDING: u8, const SHAPE: u8>(
        grid: &Grid,
        src: &[f32; BLOCK],
        scales: &Scales,
        amounts: &[u32; BLOCK],
        out: &mut [C; BLOCK],
    ) {
        let quotients = if SCALED { scales.divide(src) } else { *src };
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

impl<C: Code, const SCALED: bool> Pass for ToCodes<'_, C, SCALED> {
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
        if SCALED {
            self.scales.advance(simd, BLOCK);
        }
        prefetch::ahead(self.src, at, BLOCK);
        let (src, _) = self.src[at..at + BLOCK].as_chunks();
        let (dst, _) = self.dst[at..at + BLOCK].as_chunks_mut();
        Self::block::<ROUNDING, SHAPE>(grid, &src[0], &self.scales, amounts, &mut dst[0]);
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
        if SCALED {
            self.scales.advance(simd, count);
        }
        let src = padded(&self.src[at..at + count]);
        let mut dst = [C::default(); BLOCK];
        Self::block::<ROUNDING, SHAPE>(grid, &src, &self.scales, amounts, &mut dst);
        self.dst[at..at + count].copy_from_slice(&dst[..count]);
    }

    fn one(&mut self, i: usize, encode: impl Fn(f32) -> u32, _: impl Fn(u32) -> f32) {
        self.scales.advance(pulp::Scalar::new(), 1);
        let scale = self.scales.block()[0];
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
