//! Slices of elements: the codec at the speed of memory.

use crate::block_loop::{Amounts, Coding, Decoding};
use crate::kernel::{
    DIRECTED, FULL_RANGE, Grid, NARROW, NEAREST, SIGNED_NUMBERS_ONLY, STOCHASTIC, TWOS_COMPLEMENT,
};
use crate::pass::{Code, InPlace, Pass, ToCodes, ToValues};
use crate::scales::{One, Scales, Unscaled};
use crate::{Format, Overflow, RandomBits, Rounding, SimdLevel, codec};

/// A format, a rounding and an overflow behaviour, ready to be applied to slices. It equals the scalar [`codec`] bit for bit,
/// whatever the slice's length and wherever it starts, on every [`SimdLevel`].
///
/// Element `i` of a slice is rounded by the [amount](RandomBits::amount_at) of index `start + i`, so a tensor may be cut into pieces at will. Roundings other
/// than [`Rounding::Stochastic`] read none: give them [`RandomBits::NONE`].
///
/// Functions with a scale divide by it first. That is a true division, an f32 operation of its own, so they equal a loop of
/// divisions followed by the function without a scale.
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
    level: SimdLevel,
    /// `None` where elements go through the scalar codec.
    grid: Option<Grid>,
}

impl Rounder {
    /// Prepares the constants of the loops, for the widest vectors of this processor.
    pub fn new(format: Format, rounding: Rounding, overflow: Overflow) -> Self {
        Self {
            format,
            rounding,
            overflow,
            level: SimdLevel::best(),
            grid: Grid::new(format, rounding, overflow),
        }
    }

    /// The same on other vector instructions.
    pub const fn on(self, level: SimdLevel) -> Self {
        Self { level, ..self }
    }

    /// Replaces every value by the one it is rounded to.
    pub fn round(&self, random: RandomBits, start: u64, values: &mut [f32]) {
        self.run(random, start, InPlace::new(values, Unscaled));
    }

    /// Replaces every value by what it is rounded to after a division by its scale, times that scale: `values[i]` is divided
    /// by `scales[i / run]`.
    ///
    /// # Panics
    /// If there are fewer scales than runs.
    pub fn round_runs_in_place(
        &self,
        random: RandomBits,
        start: u64,
        values: &mut [f32],
        scales: &[f32],
        run: usize,
    ) {
        match *scales {
            [scale] if run >= values.len() => {
                self.run(
                    random,
                    start,
                    InPlace::new(values, One::new(self.format, scale)),
                );
            }
            _ => {
                let scales = Scales::new(self.format, scales, run, values.len());
                self.run(random, start, InPlace::new(values, scales));
            }
        }
    }

    /// Writes what `src[i] / scale` is rounded to; a scale of 1 skips the division.
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
        if scale == 1.0 {
            self.run(random, start, ToValues::<_, false>::new(src, out, Unscaled));
        } else {
            self.round_runs(random, start, src, &[scale], usize::MAX, out);
        }
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
        if scale == 1.0 {
            self.round_scaled(random, start, src, scale, out);
        } else {
            self.round_runs_back(random, start, src, &[scale], usize::MAX, out);
        }
    }

    /// [`round_scaled`](Self::round_scaled) with a scale for each run of `run` elements: `src[i]` is divided by
    /// `scales[i / run]`.
    ///
    /// # Panics
    /// If the lengths differ, or there are fewer scales than runs.
    pub fn round_runs(
        &self,
        random: RandomBits,
        start: u64,
        src: &[f32],
        scales: &[f32],
        run: usize,
        out: &mut [f32],
    ) {
        self.check(src.len(), out.len(), 32);
        match *scales {
            [scale] if run >= src.len() => {
                let scale = One::new(self.format, scale);
                self.run(random, start, ToValues::<_, false>::new(src, out, scale));
            }
            _ => {
                let scales = Scales::new(self.format, scales, run, src.len());
                self.run(random, start, ToValues::<_, false>::new(src, out, scales));
            }
        }
    }

    /// [`round_scaled_back`](Self::round_scaled_back) with a scale for each run of `run` elements: `src[i]` is divided by
    /// `scales[i / run]` and what it is rounded to is multiplied by it.
    ///
    /// # Panics
    /// If the lengths differ, or there are fewer scales than runs.
    pub fn round_runs_back(
        &self,
        random: RandomBits,
        start: u64,
        src: &[f32],
        scales: &[f32],
        run: usize,
        out: &mut [f32],
    ) {
        self.check(src.len(), out.len(), 32);
        match *scales {
            [scale] if run >= src.len() => {
                let scale = One::new(self.format, scale);
                self.run(random, start, ToValues::<_, true>::new(src, out, scale));
            }
            _ => {
                let scales = Scales::new(self.format, scales, run, src.len());
                self.run(random, start, ToValues::<_, true>::new(src, out, scales));
            }
        }
    }

    /// Writes the codes of `src`, right-aligned.
    ///
    /// # Panics
    /// If the lengths differ or the format is wider than 8 bits.
    pub fn encode_u8(&self, random: RandomBits, start: u64, src: &[f32], dst: &mut [u8]) {
        self.check(src.len(), dst.len(), 8);
        self.run(random, start, ToCodes::<u8, _>::new(src, dst, Unscaled));
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
        if scale == 1.0 {
            self.encode_u8(random, start, src, dst);
        } else {
            self.encode_runs_u8(random, start, src, &[scale], usize::MAX, dst);
        }
    }

    /// [`encode_scaled_u8`](Self::encode_scaled_u8) with a scale for each run of `run` elements: `src[i]` is divided by
    /// `scales[i / run]`.
    ///
    /// # Panics
    /// If the lengths differ, there are fewer scales than runs, or the format is wider than 8 bits.
    pub fn encode_runs_u8(
        &self,
        random: RandomBits,
        start: u64,
        src: &[f32],
        scales: &[f32],
        run: usize,
        dst: &mut [u8],
    ) {
        self.check(src.len(), dst.len(), 8);
        match *scales {
            [scale] if run >= src.len() => {
                let scale = One::new(self.format, scale);
                self.run(random, start, ToCodes::<u8, _>::new(src, dst, scale));
            }
            _ => {
                let scales = Scales::new(self.format, scales, run, src.len());
                self.run(random, start, ToCodes::<u8, _>::new(src, dst, scales));
            }
        }
    }

    /// Writes the codes of `src`, right-aligned.
    ///
    /// # Panics
    /// If the lengths differ or the format is wider than 16 bits.
    pub fn encode_u16(&self, random: RandomBits, start: u64, src: &[f32], dst: &mut [u16]) {
        self.check(src.len(), dst.len(), 16);
        self.run(random, start, ToCodes::<u16, _>::new(src, dst, Unscaled));
    }

    /// Writes the values of `codes`.
    ///
    /// # Panics
    /// If the lengths differ or the format is wider than 8 bits.
    pub fn decode_u8(&self, codes: &[u8], dst: &mut [f32]) {
        self.check(codes.len(), dst.len(), 8);
        self.decode::<_, false>(codes, 1.0, dst);
    }

    /// Writes the values of `codes` times `scale`; a scale of 1 skips the multiplication.
    ///
    /// # Panics
    /// If the lengths differ or the format is wider than 8 bits.
    pub fn decode_scaled_u8(&self, codes: &[u8], scale: f32, out: &mut [f32]) {
        self.check(codes.len(), out.len(), 8);
        if scale == 1.0 {
            self.decode::<_, false>(codes, scale, out);
        } else {
            self.decode::<_, true>(codes, scale, out);
        }
    }

    /// Writes the values of `codes`.
    ///
    /// # Panics
    /// If the lengths differ or the format is wider than 16 bits.
    pub fn decode_u16(&self, codes: &[u16], dst: &mut [f32]) {
        self.check(codes.len(), dst.len(), 16);
        self.decode::<_, false>(codes, 1.0, dst);
    }

    fn check(&self, src: usize, dst: usize, bits: u32) {
        assert_eq!(src, dst, "source and destination differ in length");
        assert!(
            self.format.bits() <= bits,
            "{} does not fit {bits} bits",
            self.format
        );
    }

    fn decode<C: Code, const SCALED: bool>(&self, codes: &[C], scale: f32, dst: &mut [f32]) {
        let Some(grid) = &self.grid else {
            for (code, x) in codes.iter().zip(dst) {
                let value = codec::decode(self.format, (*code).into());
                *x = if SCALED { value * scale } else { value };
            }
            return;
        };
        macro_rules! decode {
            ($shape:ident) => {
                self.level.dispatch(Decoding::<C, SCALED, $shape> {
                    grid,
                    codes,
                    scale,
                    dst,
                })
            };
        }
        match grid.shape {
            SIGNED_NUMBERS_ONLY => decode!(SIGNED_NUMBERS_ONLY),
            TWOS_COMPLEMENT => decode!(TWOS_COMPLEMENT),
            // A full range makes no difference to decoding.
            _ => decode!(NARROW),
        }
    }

    /// Runs the pass on the loop for this format and rounding.
    fn run(&self, random: RandomBits, start: u64, pass: impl Pass) {
        let Some(grid) = &self.grid else {
            return self.run_by_reference(random, start, pass);
        };
        let amount = match self.rounding {
            Rounding::NearestAway => 1 << 31,
            _ => 0,
        };
        let start = match self.rounding {
            Rounding::Stochastic => random.place(start),
            _ => start,
        };
        let amounts = Amounts {
            amount,
            random,
            start,
        };
        match self.rounding {
            Rounding::Nearest => self.run_loop::<NEAREST>(grid, amounts, pass),
            Rounding::Stochastic => self.run_loop::<STOCHASTIC>(grid, amounts, pass),
            Rounding::TowardZero | Rounding::NearestAway => {
                self.run_loop::<DIRECTED>(grid, amounts, pass);
            }
        }
    }

    fn run_loop<const ROUNDING: u8>(&self, grid: &Grid, amounts: Amounts, pass: impl Pass) {
        macro_rules! run {
            ($shape:ident) => {
                self.level.dispatch(Coding::<_, ROUNDING, $shape> {
                    grid,
                    amounts,
                    pass,
                })
            };
        }
        match grid.shape {
            FULL_RANGE => run!(FULL_RANGE),
            NARROW => run!(NARROW),
            SIGNED_NUMBERS_ONLY => run!(SIGNED_NUMBERS_ONLY),
            _ => run!(TWOS_COMPLEMENT),
        }
    }

    fn run_by_reference(&self, random: RandomBits, start: u64, mut pass: impl Pass) {
        for i in 0..pass.len() {
            let bits = match self.rounding {
                Rounding::Stochastic => random.amount_at(start.wrapping_add(i as u64)),
                _ => 0,
            };
            pass.one(
                i,
                |x| codec::encode(self.format, x, self.rounding, self.overflow, bits),
                |code| codec::decode(self.format, code),
            );
        }
    }
}
