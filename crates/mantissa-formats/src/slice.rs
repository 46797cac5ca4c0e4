//! Slices of elements: the codec at the speed of memory.

use crate::{Format, Overflow, RandomBits, Rounding, codec};

/// A format, a rounding and an overflow behaviour, ready to be applied to slices. It equals the scalar codec bit for bit, whatever
/// the slice's length and wherever it starts.
///
/// Element `i` of a slice reads the random bits of index `start + i`, so a tensor may be cut into pieces at will. Roundings other
/// than [`Rounding::Stochastic`] read none: give them [`RandomBits::NONE`].
#[derive(Clone, Debug)]
pub struct Rounder {
    format: Format,
    rounding: Rounding,
    overflow: Overflow,
}

impl Rounder {
    /// Prepares the constants and the decoding table.
    pub fn new(format: Format, rounding: Rounding, overflow: Overflow) -> Self {
        Self {
            format,
            rounding,
            overflow,
        }
    }

    /// Replaces every value by the one it is rounded to.
    pub fn round(&self, random: RandomBits, start: u64, values: &mut [f32]) {
        for (i, value) in values.iter_mut().enumerate() {
            *value = codec::round(
                self.format,
                *value,
                self.rounding,
                self.overflow,
                random.at(start + i as u64),
            );
        }
    }

    /// Writes the codes of `src`.
    ///
    /// # Panics
    /// If the lengths differ or the format is wider than 8 bits.
    pub fn encode_u8(&self, random: RandomBits, start: u64, src: &[f32], dst: &mut [u8]) {
        assert_eq!(src.len(), dst.len());
        assert!(self.format.bits() <= 8);
        for (i, (x, code)) in src.iter().zip(dst).enumerate() {
            *code = codec::encode(
                self.format,
                *x,
                self.rounding,
                self.overflow,
                random.at(start + i as u64),
            ) as u8;
        }
    }

    /// Writes the codes of `src`.
    ///
    /// # Panics
    /// If the lengths differ or the format is wider than 16 bits.
    pub fn encode_u16(&self, random: RandomBits, start: u64, src: &[f32], dst: &mut [u16]) {
        assert_eq!(src.len(), dst.len());
        assert!(self.format.bits() <= 16);
        for (i, (x, code)) in src.iter().zip(dst).enumerate() {
            *code = codec::encode(
                self.format,
                *x,
                self.rounding,
                self.overflow,
                random.at(start + i as u64),
            ) as u16;
        }
    }

    /// Writes the values of `codes`.
    ///
    /// # Panics
    /// If the lengths differ or the format is wider than 8 bits.
    pub fn decode_u8(&self, codes: &[u8], dst: &mut [f32]) {
        assert_eq!(codes.len(), dst.len());
        for (code, x) in codes.iter().zip(dst) {
            *x = codec::decode(self.format, u32::from(*code));
        }
    }

    /// Writes the values of `codes`.
    ///
    /// # Panics
    /// If the lengths differ or the format is wider than 16 bits.
    pub fn decode_u16(&self, codes: &[u16], dst: &mut [f32]) {
        assert_eq!(codes.len(), dst.len());
        for (code, x) in codes.iter().zip(dst) {
            *x = codec::decode(self.format, u32::from(*code));
        }
    }
}
