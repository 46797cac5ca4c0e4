//! Slices of elements: the codec at the speed of memory.

use pulp::{Simd, WithSimd};

use crate::kernel::{
    Grid, NEAREST, NEAREST_AWAY, SIGNED, SIGNED_NUMBERS_ONLY, STOCHASTIC, TOWARD_ZERO,
    TWOS_COMPLEMENT,
};
use crate::{Format, Overflow, RandomBits, Rounding, Specials, codec};

/// A format, a rounding and an overflow behaviour, ready to be applied to slices. It equals the scalar [`codec`] bit for bit,
/// whatever the slice's length and wherever it starts.
///
/// Element `i` of a slice reads the random bits of index `start + i`, so a tensor may be cut into pieces at will. Roundings other
/// than [`Rounding::Stochastic`] read none: give them [`RandomBits::NONE`].
///
/// ```
/// use mantissa_formats::{Format, Overflow, RandomBits, Rounder, Rounding};
///
/// let rounder = Rounder::new(Format::E4M3, Rounding::Nearest, Overflow::Saturate);
/// let mut values = [0.3, -1.05, 1000.0];
/// rounder.round(RandomBits::NONE, 0, &mut values);
/// assert_eq!(values, [0.3125, -1.0, 448.0]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Rounder {
    format: Format,
    rounding: Rounding,
    overflow: Overflow,
    /// `None` where elements go through the scalar codec.
    grid: Option<Grid>,
}

impl Rounder {
    /// Prepares the constants of the loops.
    pub fn new(format: Format, rounding: Rounding, overflow: Overflow) -> Self {
        Self {
            format,
            rounding,
            overflow,
            grid: Grid::new(format, overflow),
        }
    }

    /// Replaces every value by the one it is rounded to.
    pub fn round(&self, random: RandomBits, start: u64, values: &mut [f32]) {
        self.run(random, start, InPlace(values));
    }

    /// Writes what `src[i] / scale` is rounded to. The division is a true one, as an f32 operation; a scale of 1 skips it.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn round_scaled(
        &self,
        random: RandomBits,
        start: u64,
        src: &[f32],
        scale: f32,
        out: &mut [f32],
    ) {
        self.check(src.len(), out.len(), 32);
        let elements = Scaled::<false> { src, scale, out };
        self.run(random, start, elements);
    }

    /// Writes what `src[i] / scale` is rounded to, times `scale`: what [`round_scaled`](Self::round_scaled) and a
    /// multiplication give, in one pass.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn round_scaled_back(
        &self,
        random: RandomBits,
        start: u64,
        src: &[f32],
        scale: f32,
        out: &mut [f32],
    ) {
        self.check(src.len(), out.len(), 32);
        let elements = Scaled::<true> { src, scale, out };
        self.run(random, start, elements);
    }

    /// Writes the codes of `src[i] / scale`, right-aligned: those of `int8` are two's complement bytes.
    ///
    /// # Panics
    /// If the lengths differ or the format is wider than 8 bits.
    pub fn encode_scaled_u8(
        &self,
        random: RandomBits,
        start: u64,
        src: &[f32],
        scale: f32,
        dst: &mut [u8],
    ) {
        self.check(src.len(), dst.len(), 8);
        self.run(random, start, ToCodes { src, scale, dst });
    }

    /// Writes the values of `codes` times `scale`.
    ///
    /// # Panics
    /// If the lengths differ or the format is wider than 8 bits.
    pub fn decode_scaled_u8(&self, codes: &[u8], scale: f32, out: &mut [f32]) {
        self.decode_u8(codes, out);
        for x in out {
            *x *= scale;
        }
    }

    /// Writes the codes of `src`, right-aligned.
    ///
    /// # Panics
    /// If the lengths differ or the format is wider than 8 bits.
    pub fn encode_u8(&self, random: RandomBits, start: u64, src: &[f32], dst: &mut [u8]) {
        self.check(src.len(), dst.len(), 8);
        self.run(
            random,
            start,
            ToCodes {
                src,
                scale: 1.0,
                dst,
            },
        );
    }

    /// Writes the codes of `src`, right-aligned.
    ///
    /// # Panics
    /// If the lengths differ or the format is wider than 16 bits.
    pub fn encode_u16(&self, random: RandomBits, start: u64, src: &[f32], dst: &mut [u16]) {
        self.check(src.len(), dst.len(), 16);
        self.run(
            random,
            start,
            ToCodes {
                src,
                scale: 1.0,
                dst,
            },
        );
    }

    /// Writes the values of `codes`.
    ///
    /// # Panics
    /// If the lengths differ or the format is wider than 8 bits.
    pub fn decode_u8(&self, codes: &[u8], dst: &mut [f32]) {
        self.check(codes.len(), dst.len(), 8);
        self.decode(codes, dst);
    }

    /// Writes the values of `codes`.
    ///
    /// # Panics
    /// If the lengths differ or the format is wider than 16 bits.
    pub fn decode_u16(&self, codes: &[u16], dst: &mut [f32]) {
        self.check(codes.len(), dst.len(), 16);
        self.decode(codes, dst);
    }

    fn decode(&self, codes: &[impl Code], dst: &mut [f32]) {
        let unit = pulp::Arch::new();
        match (&self.grid, self.signs()) {
            (Some(grid), SIGNED) => unit.dispatch(DecodeLoop::<_, SIGNED> { grid, codes, dst }),
            (Some(grid), SIGNED_NUMBERS_ONLY) => {
                unit.dispatch(DecodeLoop::<_, SIGNED_NUMBERS_ONLY> { grid, codes, dst })
            }
            (Some(grid), _) => unit.dispatch(DecodeLoop::<_, TWOS_COMPLEMENT> { grid, codes, dst }),
            (None, _) => {
                for (code, x) in codes.iter().zip(dst) {
                    *x = codec::decode(self.format, (*code).into());
                }
            }
        }
    }

    fn check(&self, src: usize, dst: usize, bits: u32) {
        assert_eq!(src, dst, "source and destination differ in length");
        assert!(
            self.format.bits() <= bits,
            "{} does not fit {bits} bits",
            self.format
        );
    }

    fn signs(&self) -> u8 {
        match self.format {
            Format::Int { .. } => TWOS_COMPLEMENT,
            Format::Float {
                specials: Specials::NanAtNegativeZero,
                ..
            } => SIGNED_NUMBERS_ONLY,
            _ => SIGNED,
        }
    }

    /// Runs the loop for this format and rounding over `elements`.
    fn run(&self, random: RandomBits, start: u64, elements: impl Elements) {
        match self.rounding {
            Rounding::Nearest => self.run_rounding::<NEAREST>(random, start, elements),
            Rounding::Stochastic => self.run_rounding::<STOCHASTIC>(random, start, elements),
            Rounding::TowardZero => self.run_rounding::<TOWARD_ZERO>(random, start, elements),
            Rounding::NearestAway => self.run_rounding::<NEAREST_AWAY>(random, start, elements),
        }
    }

    fn run_rounding<const ROUNDING: u8>(
        &self,
        random: RandomBits,
        start: u64,
        mut elements: impl Elements,
    ) {
        match (&self.grid, self.signs()) {
            (Some(grid), SIGNED) => run_loop::<ROUNDING, SIGNED>(grid, random, start, elements),
            (Some(grid), SIGNED_NUMBERS_ONLY) => {
                run_loop::<ROUNDING, SIGNED_NUMBERS_ONLY>(grid, random, start, elements)
            }
            (Some(grid), _) => run_loop::<ROUNDING, TWOS_COMPLEMENT>(grid, random, start, elements),
            (None, _) => {
                for i in 0..elements.len() {
                    let bits = if ROUNDING == STOCHASTIC {
                        random.at(start.wrapping_add(i as u64))
                    } else {
                        0
                    };
                    let encode =
                        |x| codec::encode(self.format, x, self.rounding, self.overflow, bits);
                    elements.one_by_reference(i, self.format, encode);
                }
            }
        }
    }
}

/// Runs the loop on the best vector unit of the processor.
fn run_loop<const ROUNDING: u8, const SIGNS: u8>(
    grid: &Grid,
    random: RandomBits,
    start: u64,
    elements: impl Elements,
) {
    pulp::Arch::new().dispatch(Loop::<_, ROUNDING, SIGNS> {
        grid,
        random,
        start,
        elements,
    });
}

/// The loop over elements for any vector unit. (A closure would leave it out of line, compiled for none.)
struct Loop<'a, E, const ROUNDING: u8, const SIGNS: u8> {
    grid: &'a Grid,
    random: RandomBits,
    start: u64,
    elements: E,
}

impl<E: Elements, const ROUNDING: u8, const SIGNS: u8> WithSimd for Loop<'_, E, ROUNDING, SIGNS> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        // A copy that nothing else can see, so that its fields stay in registers.
        let grid = *self.grid;
        if ROUNDING == STOCHASTIC {
            self.random.for_each_block(
                self.start,
                self.elements.len(),
                #[inline(always)]
                |at, bits| self.elements.some::<ROUNDING, SIGNS>(&grid, at, bits),
            );
        } else {
            self.elements.all::<ROUNDING, SIGNS>(&grid);
        }
    }
}

/// The decoding loop for any vector unit.
struct DecodeLoop<'a, C, const SIGNS: u8> {
    grid: &'a Grid,
    codes: &'a [C],
    dst: &'a mut [f32],
}

impl<C: Code, const SIGNS: u8> WithSimd for DecodeLoop<'_, C, SIGNS> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let grid = *self.grid;
        for (code, x) in self.codes.iter().zip(self.dst) {
            *x = grid.decode::<SIGNS>((*code).into());
        }
    }
}

/// Where elements come from and what becomes of them.
trait Elements {
    fn len(&self) -> usize;
    /// Every element, without random bits.
    fn all<const ROUNDING: u8, const SIGNS: u8>(&mut self, grid: &Grid);
    /// As many elements from `at` on as there are random words.
    fn some<const ROUNDING: u8, const SIGNS: u8>(&mut self, grid: &Grid, at: usize, random: &[u32]);
    /// Element `i`, by the scalar codec.
    fn one_by_reference(&mut self, i: usize, format: Format, encode: impl Fn(f32) -> u32);
}

struct InPlace<'a>(&'a mut [f32]);

impl Elements for InPlace<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn all<const ROUNDING: u8, const SIGNS: u8>(&mut self, grid: &Grid) {
        for x in self.0.iter_mut() {
            *x = grid.round::<ROUNDING, SIGNS>(*x, 0);
        }
    }

    #[inline(always)]
    fn some<const ROUNDING: u8, const SIGNS: u8>(
        &mut self,
        grid: &Grid,
        at: usize,
        random: &[u32],
    ) {
        for (x, random) in self.0[at..at + random.len()].iter_mut().zip(random) {
            *x = grid.round::<ROUNDING, SIGNS>(*x, *random);
        }
    }

    fn one_by_reference(&mut self, i: usize, format: Format, encode: impl Fn(f32) -> u32) {
        self.0[i] = codec::decode(format, encode(self.0[i]));
    }
}

/// To values of elements divided by a scale, and with `BACK` multiplied by it again.
struct Scaled<'a, const BACK: bool> {
    src: &'a [f32],
    scale: f32,
    out: &'a mut [f32],
}

impl<const BACK: bool> Scaled<'_, BACK> {
    #[inline(always)]
    fn back(&self, x: f32) -> f32 {
        if BACK { x * self.scale } else { x }
    }
}

impl<const BACK: bool> Elements for Scaled<'_, BACK> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.src.len()
    }

    #[inline(always)]
    fn all<const ROUNDING: u8, const SIGNS: u8>(&mut self, grid: &Grid) {
        for i in 0..self.src.len().min(self.out.len()) {
            let rounded = grid.round::<ROUNDING, SIGNS>(self.src[i] / self.scale, 0);
            self.out[i] = self.back(rounded);
        }
    }

    #[inline(always)]
    fn some<const ROUNDING: u8, const SIGNS: u8>(
        &mut self,
        grid: &Grid,
        at: usize,
        random: &[u32],
    ) {
        for (i, random) in (at..).zip(random) {
            let rounded = grid.round::<ROUNDING, SIGNS>(self.src[i] / self.scale, *random);
            self.out[i] = self.back(rounded);
        }
    }

    fn one_by_reference(&mut self, i: usize, format: Format, encode: impl Fn(f32) -> u32) {
        let rounded = codec::decode(format, encode(self.src[i] / self.scale));
        self.out[i] = self.back(rounded);
    }
}

/// To codes of elements divided by a scale.
struct ToCodes<'a, C> {
    src: &'a [f32],
    scale: f32,
    dst: &'a mut [C],
}

/// An integer that holds codes.
trait Code: Copy + Into<u32> {
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

impl<C: Code> Elements for ToCodes<'_, C> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.src.len()
    }

    #[inline(always)]
    fn all<const ROUNDING: u8, const SIGNS: u8>(&mut self, grid: &Grid) {
        for (x, code) in self.src.iter().zip(self.dst.iter_mut()) {
            *code = C::holding(grid.encode::<ROUNDING, SIGNS>(*x / self.scale, 0));
        }
    }

    #[inline(always)]
    fn some<const ROUNDING: u8, const SIGNS: u8>(
        &mut self,
        grid: &Grid,
        at: usize,
        random: &[u32],
    ) {
        let range = at..at + random.len();
        let pairs = self.src[range.clone()].iter().zip(&mut self.dst[range]);
        for ((x, code), random) in pairs.zip(random) {
            *code = C::holding(grid.encode::<ROUNDING, SIGNS>(*x / self.scale, *random));
        }
    }

    fn one_by_reference(&mut self, i: usize, _: Format, encode: impl Fn(f32) -> u32) {
        self.dst[i] = C::holding(encode(self.src[i] / self.scale));
    }
}
