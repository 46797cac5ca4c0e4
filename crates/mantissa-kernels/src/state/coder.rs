//! A piece of a moment, between codes and f32 numbers in the first cache.

use mantissa_formats::{Format, Overflow, RandomBits, Rounder};
use pulp::{Simd, WithSimd};

use super::Moment;
use super::expansion::{Power, exponent, of_steps};
use super::format::{Codes, PIECE, Scaling, StateFormat};
use super::map::Map;
use crate::vector::{dispatch, largest, smallest};

/// Amaxes below count as this, so that what is as small as a code gets times a scale is still positive.
const LEAST_AMAX: f32 = f32::from_bits((127 - 100) << 23);
/// Amaxes above count as this, 2¹²⁷, so that the largest code times a scale is finite. What lies above saturates.
const MOST_AMAX: f32 = f32::from_bits((127 + 127) << 23);

/// How the pieces of one buffer are coded.
#[derive(Clone, Copy)]
pub(super) struct Coder {
    codec: Codec,
    scaling: Scaling,
}

#[derive(Clone, Copy)]
enum Codec {
    Number {
        rounder: Rounder,
        /// The largest number with a code, the smallest with full precision, and the smallest positive one.
        largest: f32,
        normal: f32,
        smallest: f32,
        /// Whether positive numbers below the smallest are rounded up to it.
        stays_positive: bool,
    },
    Map(&'static Map),
}

/// The scales of the blocks of a piece, and their exponents where they are expanded.
pub(super) struct Blocks<'a> {
    pub(super) scales: &'a mut [f32],
    pub(super) exponents: &'a mut [u8],
}

/// The codes of a piece.
pub(super) enum CodeSlice<'a> {
    Halves(&'a mut [u16]),
    Bytes(&'a mut [u8]),
    /// Two in a byte, the first in its lower half.
    Nibbles(&'a mut [u8]),
}

impl Coder {
    pub(super) fn new(format: StateFormat, moment: Moment) -> Self {
        let codec = match format.codes {
            Codes::Number { format, rounding } => Codec::Number {
                rounder: Rounder::new(format, rounding, Overflow::Saturate),
                largest: format.max_finite(),
                normal: format.min_normal(),
                smallest: format.min_subnormal(),
                stays_positive: moment == Moment::Second,
            },
            map => Codec::Map(Map::of(map, moment)),
        };
        Self {
            codec,
            scaling: format.scaling,
        }
    }

    /// The code of zero.
    pub(super) fn zero(&self) -> u8 {
        match self.codec {
            Codec::Number { .. } => 0,
            Codec::Map(map) => map.zero(),
        }
    }

    /// Whether the scale depends on the whole tensor.
    pub(super) fn has_tensor_scale(&self) -> bool {
        self.scaling == Scaling::Tensor
    }

    /// The power of two that takes `amax` to the upper end of the format or below.
    pub(super) fn tensor_scale(&self, amax: f32) -> f32 {
        if amax == 0.0 {
            return 1.0;
        }
        let ratio = amax.max(LEAST_AMAX) / self.largest();
        let power = f32::from_bits(ratio.to_bits() & f32::INFINITY.to_bits());
        if power < ratio { 2.0 * power } else { power }
    }

    fn largest(&self) -> f32 {
        match self.codec {
            Codec::Number { largest, .. } => largest,
            Codec::Map(_) => 1.0,
        }
    }

    /// Writes the numbers that the codes of a piece stand for; `scale` is the tensor's.
    pub(super) fn decode(&self, codes: &CodeSlice, blocks: &Blocks, scale: f32, out: &mut [f32]) {
        let mut unpacked = [0; PIECE];
        let bytes = match codes {
            CodeSlice::Halves(_) => &[],
            CodeSlice::Bytes(bytes) => &**bytes,
            CodeSlice::Nibbles(nibbles) => {
                unpack(nibbles, &mut unpacked);
                &unpacked[..out.len()]
            }
        };
        match (&self.codec, codes) {
            (Codec::Number { rounder, .. }, CodeSlice::Halves(halves)) => {
                rounder.decode_u16(halves, out);
            }
            (Codec::Number { rounder, .. }, _) => rounder.decode_u8(bytes, out),
            (Codec::Map(map), _) => map.decode(bytes, out),
        }
        match self.scaling {
            Scaling::Unscaled => {}
            Scaling::Tensor => dispatch(Scale {
                values: out,
                size: usize::MAX,
                scales: &[scale],
            }),
            Scaling::Block {
                size,
                expanded: false,
            } => dispatch(Scale {
                values: out,
                size: size.into(),
                scales: blocks.scales,
            }),
            Scaling::Block { size, .. } => {
                let scales = blocks.scales.iter().zip(&*blocks.exponents);
                for (values, (scale, steps)) in out.chunks_mut(size.into()).zip(scales) {
                    dispatch(Power {
                        x: values,
                        before: self.largest().recip(),
                        after: *scale,
                        exponent: of_steps(*steps).recip(),
                    });
                }
            }
        }
    }

    /// Codes a piece of a tensor from its element `start` on, and leaves something in `values`.
    pub(super) fn encode(
        &self,
        values: &mut [f32],
        codes: &mut CodeSlice,
        blocks: &mut Blocks,
        scale: f32,
        random: RandomBits,
        start: u64,
    ) {
        match self.scaling {
            Scaling::Unscaled => {}
            Scaling::Tensor => dispatch(Scale {
                values,
                size: usize::MAX,
                scales: &[scale.recip()],
            }),
            Scaling::Block {
                size,
                expanded: false,
            } => dispatch(Fit {
                values,
                size: size.into(),
                largest: self.largest(),
                scales: blocks.scales,
            }),
            Scaling::Block { size, .. } => self.expand(values, size.into(), blocks),
        }
        match codes {
            CodeSlice::Halves(halves) => {
                if let Codec::Number { rounder, .. } = self.codec {
                    self.round_up(values);
                    rounder.encode_u16(random, start, values, halves);
                }
            }
            CodeSlice::Bytes(bytes) => self.encode_bytes(values, bytes, random, start),
            CodeSlice::Nibbles(nibbles) => {
                // An odd last code has a zero beside it.
                let mut unpacked = [0; PIECE];
                let bytes = &mut unpacked[..values.len()];
                self.encode_bytes(values, bytes, random, start);
                pack(&unpacked, nibbles);
            }
        }
    }

    fn encode_bytes(&self, values: &mut [f32], bytes: &mut [u8], random: RandomBits, start: u64) {
        match self.codec {
            Codec::Number { rounder, .. } => {
                self.round_up(values);
                rounder.encode_u8(random, start, values, bytes);
            }
            Codec::Map(map) => map.encode(values, bytes),
        }
    }

    /// Keeps positive numbers positive where they must be.
    fn round_up(&self, values: &mut [f32]) {
        if let Codec::Number {
            smallest,
            stays_positive: true,
            ..
        } = self.codec
        {
            dispatch(RoundUp { values, smallest });
        }
    }

    fn expand(&self, values: &mut [f32], size: usize, blocks: &mut Blocks) {
        let Codec::Number {
            largest, normal, ..
        } = self.codec
        else {
            return;
        };
        let range = largest / normal;
        let scales = blocks.scales.iter_mut().zip(&mut *blocks.exponents);
        for (values, (scale, steps)) in values.chunks_mut(size).zip(scales) {
            let (amax, amin) = dispatch(Extremes(values));
            if amax == 0.0 {
                (*scale, *steps) = (0.0, super::expansion::LEAST);
                continue;
            }
            *scale = amax.max(LEAST_AMAX);
            *steps = exponent(*scale, amin, range);
            dispatch(Power {
                x: values,
                before: scale.recip(),
                after: largest,
                exponent: of_steps(*steps),
            });
        }
    }
}

/// The largest magnitude in `values`, of those that count.
#[inline(always)]
pub(super) fn amax<S: Simd>(simd: S, values: &[f32]) -> f32 {
    // Of nothing but NaN there is no largest.
    largest(simd, values, f32::abs).clamp(0.0, MOST_AMAX)
}

/// Amax, and the smallest magnitude that is not zero.
struct Extremes<'a>(&'a [f32]);

impl WithSimd for Extremes<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (f32, f32) {
        let nonzero = |x: f32| if x == 0.0 { f32::INFINITY } else { x.abs() };
        (amax(simd, self.0), smallest(simd, self.0, nonzero))
    }
}

/// Multiplies every block of `size` values with its scale.
struct Scale<'a> {
    values: &'a mut [f32],
    size: usize,
    scales: &'a [f32],
}

impl WithSimd for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (values, scale) in self.values.chunks_mut(self.size).zip(self.scales) {
            for x in values {
                *x *= scale;
            }
        }
    }
}

/// Divides every block of `size` values by a scale that leaves none above `largest`.
struct Fit<'a> {
    values: &'a mut [f32],
    size: usize,
    largest: f32,
    scales: &'a mut [f32],
}

impl WithSimd for Fit<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (values, scale) in self.values.chunks_mut(self.size).zip(self.scales) {
            let amax = amax(simd, values);
            if amax == 0.0 {
                *scale = 0.0;
                continue;
            }
            *scale = amax.max(LEAST_AMAX) / self.largest;
            let inverse = scale.recip();
            for x in values {
                *x *= inverse;
            }
        }
    }
}

/// Rounds what is positive up to the smallest number with a code.
struct RoundUp<'a> {
    values: &'a mut [f32],
    smallest: f32,
}

impl WithSimd for RoundUp<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for x in self.values {
            let is_lost = *x > 0.0 && *x < self.smallest;
            *x = if is_lost { self.smallest } else { *x };
        }
    }
}

fn unpack(nibbles: &[u8], out: &mut [u8; PIECE]) {
    for (pair, out) in nibbles.iter().zip(out.as_chunks_mut::<2>().0) {
        *out = [pair & 0xf, pair >> 4];
    }
}

fn pack(codes: &[u8; PIECE], nibbles: &mut [u8]) {
    for (nibble, [low, high]) in nibbles.iter_mut().zip(codes.as_chunks::<2>().0) {
        *nibble = low | high << 4;
    }
}

/// Whether an exponent is one that [`Coder`] makes.
pub(super) fn is_exponent(steps: u8) -> bool {
    steps >= super::expansion::LEAST
}

/// The number format of the codes, if they are numbers and not places in a map.
pub(super) fn number_format(format: StateFormat) -> Option<Format> {
    match format.codes {
        Codes::Number { format, .. } => Some(format),
        Codes::Dynamic8 | Codes::Dynamic4 => None,
    }
}
