//! One element, without branches: the loop bodies of the slice codec, for the compiler to vectorise.
//!
//! A magnitude's f32 bit pattern is ordered like the magnitude itself, and dropping its low bits rounds towards zero. So rounding is
//! one integer addition, whose carry may run into the exponent as it should, and one mask: of a constant width in the normal
//! range, and of one bit more for every binade below it, where the spacing of the format stays constant.

use crate::{Format, Overflow, Rounding, Specials, codec};

/// The roundings as constant parameters, so that each has a loop of its own.
pub(crate) const NEAREST: u8 = Rounding::Nearest as u8;
pub(crate) const STOCHASTIC: u8 = Rounding::Stochastic as u8;
pub(crate) const TOWARD_ZERO: u8 = Rounding::TowardZero as u8;
pub(crate) const NEAREST_AWAY: u8 = Rounding::NearestAway as u8;

/// How the sign joins the magnitude.
pub(crate) const SIGNED: u8 = 0;
/// Zero and NaN have no sign.
pub(crate) const SIGNED_NUMBERS_ONLY: u8 = 1;
/// The code of a negative number is the two's complement of its magnitude's.
pub(crate) const TWOS_COMPLEMENT: u8 = 2;

const SIGN: u32 = 1 << 31;
const INFINITY: u32 = f32::INFINITY.to_bits();
const MANTISSA_BITS: u32 = 23;

/// What the loops need to know of a format, an overflow behaviour included. Fields in f32 bits and in codes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    /// Mantissa bits that f32 has and the format has not.
    dropped: u32,
    /// What nearest rounding adds: just under half of the dropped range, and the lowest kept bit where one is dropped.
    below_half: u32,
    lowest_kept: u32,
    /// f32 bits where constant relative spacing begins: zero where f32's own subnormals have the format's spacing, above every
    /// number for integers.
    min_normal: u32,
    /// The spacing of the subnormals, 1 for integers.
    min_subnormal: f32,
    /// Adding this number leaves an f32 no bits below the smallest subnormal; the hardware rounds them to nearest.
    shifter: f32,
    /// The exponent field of an f32 whose last bit is worth one smallest subnormal; 0 where no exponent drops more bits than others.
    unit_field: i32,
    /// Difference of the exponent biases, in code units and in f32 bits.
    rebias_code: u32,
    rebias_bits: u32,
    max_code: u32,
    overflow_code: u32,
    nan_code: u32,
    max_bits: u32,
    overflow_bits: u32,
    nan_bits: u32,
    /// Codes whose values have the spacing of the subnormals; none where f32's own subnormals have it.
    subnormal_codes: u32,
    /// Bits of what the code just above the largest finite one stands for.
    past_max_bits: u32,
    /// Set where NaN becomes a zero of the opposite sign.
    nan_flips_sign: u32,
    /// From the sign of an f32 to that of the code.
    sign_shift: u32,
    sign_bit: u32,
}

impl Grid {
    /// `None` for [`Format::PowerOfTwo`], whose grid is another.
    pub(crate) fn new(format: Format, overflow: Overflow) -> Option<Self> {
        let (mantissa_bits, bias, full_range, signed_nan) = match format {
            Format::Float {
                exponent_bits,
                mantissa_bits,
                bias,
                specials,
            } => (
                u32::from(mantissa_bits),
                i32::from(bias),
                exponent_bits == 8,
                specials == Specials::None,
            ),
            Format::Int { .. } => (MANTISSA_BITS, 127, false, false),
            Format::PowerOfTwo => return None,
        };
        let dropped = MANTISSA_BITS - mantissa_bits;
        let half = (1u32 << dropped) >> 1;
        // Where it is not used it must not be tiny either: arithmetic on f32's subnormals is slow.
        let min_subnormal = if full_range {
            1.0
        } else {
            format.min_subnormal()
        };
        let max_code = codec::max_code(format);
        let nan_code = codec::nan_code(format).unwrap_or(0);
        let overflow_code = match overflow {
            Overflow::Saturate => max_code,
            Overflow::Special => codec::overflow_code(format),
        };
        let rebias = (127 - bias) as u32;
        Some(Self {
            dropped,
            below_half: half.saturating_sub(1),
            lowest_kept: u32::from(dropped > 0),
            min_normal: match format {
                Format::Int { .. } => !0 >> 1,
                _ if full_range => 0,
                _ => format.min_normal().to_bits(),
            },
            min_subnormal,
            shifter: if full_range {
                0.0
            } else {
                min_subnormal * codec::exp2(23)
            },
            unit_field: if full_range {
                0
            } else {
                (min_subnormal.to_bits() >> MANTISSA_BITS) as i32 + MANTISSA_BITS as i32
            },
            rebias_code: rebias << mantissa_bits,
            rebias_bits: rebias << MANTISSA_BITS,
            max_code,
            overflow_code,
            nan_code,
            max_bits: format.max_finite().to_bits(),
            overflow_bits: codec::decode(format, overflow_code).to_bits(),
            nan_bits: codec::decode(format, nan_code).to_bits(),
            subnormal_codes: if full_range { 0 } else { 1 << mantissa_bits },
            past_max_bits: if format.has_infinity() {
                INFINITY
            } else {
                f32::NAN.to_bits()
            },
            nan_flips_sign: if signed_nan { SIGN } else { 0 },
            sign_shift: 32 - format.bits(),
            sign_bit: 1 << (format.bits() - 1),
        })
    }

    /// The f32 on the grid that `x` becomes.
    #[inline(always)]
    pub(crate) fn round<const ROUNDING: u8, const SIGNS: u8>(&self, x: f32, random: u32) -> f32 {
        let magnitude = x.to_bits() & !SIGN;
        let rounded = self.round_magnitude::<ROUNDING>(magnitude, random);
        let limits = (self.max_bits, self.overflow_bits, self.nan_bits);
        let rounded = apply_limits::<ROUNDING>(magnitude, rounded, limits);
        f32::from_bits(rounded | self.sign::<SIGNS>(x, rounded, self.max_bits))
    }

    /// The code that `x` becomes.
    #[inline(always)]
    pub(crate) fn encode<const ROUNDING: u8, const SIGNS: u8>(&self, x: f32, random: u32) -> u32 {
        let magnitude = x.to_bits() & !SIGN;
        let rounded = self.round_magnitude::<ROUNDING>(magnitude, random);
        let normal = (rounded >> self.dropped).wrapping_sub(self.rebias_code);
        let shifted = f32::from_bits(rounded) + self.shifter;
        let subnormal = shifted.to_bits().wrapping_sub(self.shifter.to_bits());
        let code = if rounded < self.min_normal {
            subnormal
        } else {
            normal
        };
        let limits = (self.max_code, self.overflow_code, self.nan_code);
        let code = apply_limits::<ROUNDING>(magnitude, code, limits);
        if SIGNS == TWOS_COMPLEMENT {
            let negative = ((x.to_bits() as i32) >> 31) as u32;
            (code ^ negative).wrapping_sub(negative) & (2 * self.sign_bit - 1)
        } else {
            code | self.sign::<SIGNS>(x, code, self.max_code) >> self.sign_shift
        }
    }

    /// The value of a code.
    #[inline(always)]
    pub(crate) fn decode<const SIGNS: u8>(&self, code: u32) -> f32 {
        if SIGNS == TWOS_COMPLEMENT {
            return (((code << self.sign_shift) as i32) >> self.sign_shift) as f32;
        }
        let magnitude = code & (self.sign_bit - 1);
        let sign = code & self.sign_bit;
        let subnormal = (magnitude as i32 as f32 * self.min_subnormal).to_bits();
        let normal = (magnitude << self.dropped).wrapping_add(self.rebias_bits);
        let finite = if magnitude < self.subnormal_codes {
            subnormal
        } else {
            normal
        };
        let special = if magnitude == self.max_code + 1 {
            self.past_max_bits
        } else {
            f32::NAN.to_bits()
        };
        let value = if magnitude > self.max_code {
            special
        } else {
            finite
        };
        if SIGNS == SIGNED_NUMBERS_ONLY && magnitude == 0 && sign != 0 {
            return f32::NAN;
        }
        f32::from_bits(value | sign << self.sign_shift)
    }

    /// The bits of the magnitude on a grid without upper end.
    #[inline(always)]
    fn round_magnitude<const ROUNDING: u8>(&self, magnitude: u32, random: u32) -> u32 {
        let amount = match ROUNDING {
            NEAREST => return self.round_to_nearest(magnitude),
            STOCHASTIC => random,
            NEAREST_AWAY => 1 << 31,
            _ => 0,
        };
        // One more bit is dropped for every binade below the smallest normal number.
        let exponent_field = (magnitude >> MANTISSA_BITS) as i32;
        let dropped = (self.unit_field - exponent_field).max(self.dropped as i32) as u32;
        let carry_in = amount.checked_shr(32u32.wrapping_sub(dropped)).unwrap_or(0);
        let kept = u32::MAX.checked_shl(dropped).unwrap_or(0);
        let fine = magnitude.wrapping_add(carry_in) & kept;
        // Where the hidden bit is dropped as well, all that is left is a fraction of the smallest subnormal.
        let significand = magnitude << 8 | 1 << 31;
        let fraction = significand
            .checked_shr(dropped.wrapping_sub(24))
            .unwrap_or(0);
        let coarse = if fraction > !amount {
            self.min_subnormal.to_bits()
        } else {
            0
        };
        if dropped > MANTISSA_BITS {
            coarse
        } else {
            fine
        }
    }

    #[inline(always)]
    fn round_to_nearest(&self, magnitude: u32) -> u32 {
        let carry_in = self.below_half + ((magnitude >> self.dropped) & self.lowest_kept);
        let normal = (magnitude + carry_in) >> self.dropped << self.dropped;
        let subnormal = (f32::from_bits(magnitude) + self.shifter) - self.shifter;
        if magnitude < self.min_normal {
            subnormal.to_bits()
        } else {
            normal
        }
    }

    /// The f32 sign that the result carries, if any.
    #[inline(always)]
    fn sign<const SIGNS: u8>(&self, x: f32, result: u32, max: u32) -> u32 {
        let bits = x.to_bits();
        let sign = bits & SIGN;
        if SIGNS == SIGNED {
            if bits & !SIGN > INFINITY {
                sign ^ self.nan_flips_sign
            } else {
                sign
            }
        } else if result.wrapping_sub(1) < max {
            sign
        } else {
            0
        }
    }
}

/// What becomes of results past `max` and of NaN, in codes as in f32 bits.
#[inline(always)]
fn apply_limits<const ROUNDING: u8>(
    magnitude: u32,
    result: u32,
    (max, overflow, nan): (u32, u32, u32),
) -> u32 {
    // Towards zero, only infinity itself overflows.
    let past = if ROUNDING == TOWARD_ZERO && magnitude != INFINITY {
        max
    } else {
        overflow
    };
    let limited = if result > max { past } else { result };
    if magnitude > INFINITY { nan } else { limited }
}
