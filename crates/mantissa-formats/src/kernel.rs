//! One element, without branches: the loop bodies of the slice codec, for the compiler to vectorise.
//!
//! A magnitude's f32 bit pattern is ordered like the magnitude itself. Two ways of rounding it follow from that:
//!
//! - To nearest: adding a power of two whose last bit is worth one step of the format leaves an f32 no bits below that step, and
//!   the hardware rounds them to nearest, ties to even. What was added is above the sum in bits by the number of steps, which is
//!   the code, but for the exponent. The step stays what it is below the smallest normal number, so subnormals are no case of
//!   their own.
//! - By an amount: adding to the bits that are dropped, whose carry may run into the exponent as it should, and a mask: of a
//!   constant width in the normal range, and of one bit more for every binade below it.

use crate::{Format, Overflow, Rounding, Specials, codec};

/// The ways of rounding as constant parameters, so that each has a loop of its own.
pub(crate) const NEAREST: u8 = 0;
/// Up where the dropped part and random bits carry together.
pub(crate) const STOCHASTIC: u8 = 1;
/// The same with one amount for all elements: one half (away from zero) or nothing (towards zero).
pub(crate) const DIRECTED: u8 = 2;

/// What kind of grid a format has, and how the sign joins the magnitude: constant parameters too.
///
/// As many exponent bits as f32, so that f32's own subnormals have the format's spacing. Signed.
pub(crate) const FULL_RANGE: u8 = 0;
/// Fewer exponent bits. Signed.
pub(crate) const NARROW: u8 = 1;
/// Fewer exponent bits; zero and NaN have no sign.
pub(crate) const SIGNED_NUMBERS_ONLY: u8 = 2;
/// The code of a negative number is the two's complement of its magnitude's.
pub(crate) const TWOS_COMPLEMENT: u8 = 3;

const SIGN: u32 = 1 << 31;
const INFINITY: u32 = f32::INFINITY.to_bits();
const MANTISSA_BITS: u32 = 23;

/// What the loops need to know of a format, a rounding and an overflow behaviour. Fields in f32 bits and in codes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub(crate) shape: u8,
    /// Mantissa bits that f32 has and the format has not.
    dropped: u32,
    /// The same, but not none: the last bit matters only past the largest integer.
    least_dropped: i32,
    /// What nearest rounding adds in a full range: just under half of the dropped range, and the lowest kept bit where one is
    /// dropped.
    below_half: u32,
    lowest_kept: u32,
    /// Magnitudes above this are as good as this.
    clamp: u32,
    /// The power of two from which on downwards the spacing stays the same, and the distance in bits from a magnitude's power of
    /// two to the one that rounds it.
    lowest_power: u32,
    to_rounding_power: u32,
    /// The spacing of the subnormals, 1 for integers.
    min_subnormal: f32,
    /// The exponent field of an f32 whose last bit is worth one smallest subnormal.
    unit_field: i32,
    /// Difference of the exponent biases in f32 bits.
    rebias_bits: u32,
    max_code: u32,
    /// What finite values and infinity become past the largest value.
    finite_overflow_code: u32,
    overflow_code: u32,
    /// What NaN becomes, apart from its sign, which is flipped where the format has no NaN.
    nan_code: u32,
    max_bits: u32,
    finite_overflow_bits: u32,
    overflow_bits: u32,
    nan_bits: u32,
    /// Codes whose values have the spacing of the subnormals; none where f32's own subnormals have it.
    subnormal_codes: u32,
    /// Bits of what the code just above the largest finite one stands for.
    past_max_bits: u32,
    /// From the sign of an f32 to that of the code.
    sign_shift: u32,
    sign_bit: u32,
    /// For integers in fixed point: the bits of the whole part with its sign, and the worth of one in units of the last place.
    whole_bits: u32,
    one: f32,
}

impl Grid {
    /// `None` for [`Format::PowerOfTwo`], whose grid is another, and for two kinds of narrow formats that nobody named: with all
    /// mantissa bits of f32, no power of two leaves them and no more; with none, the last bit of a significand does not say
    /// whether the code is even.
    pub(crate) fn new(format: Format, rounding: Rounding, overflow: Overflow) -> Option<Self> {
        let (mantissa_bits, bias, shape) = match format {
            Format::Float {
                exponent_bits,
                mantissa_bits,
                bias,
                specials,
            } => {
                let shape = match specials {
                    Specials::NanAtNegativeZero => SIGNED_NUMBERS_ONLY,
                    _ if exponent_bits == 8 => FULL_RANGE,
                    _ => NARROW,
                };
                (u32::from(mantissa_bits), i32::from(bias), shape)
            }
            Format::Int { .. } => (MANTISSA_BITS, 127, TWOS_COMPLEMENT),
            Format::PowerOfTwo => return None,
        };
        let dropped = MANTISSA_BITS - mantissa_bits;
        let integer = shape == TWOS_COMPLEMENT;
        if shape != FULL_RANGE && !integer && (dropped == 0 || mantissa_bits == 0) {
            return None;
        }
        let half = (1u32 << dropped) >> 1;
        let min_subnormal = match shape {
            // Not used, and not tiny either: arithmetic on f32's subnormals is slow.
            FULL_RANGE => 1.0,
            _ => format.min_subnormal(),
        };
        let max_code = codec::max_code(format);
        let overflow_code = match overflow {
            Overflow::Saturate => max_code,
            Overflow::Special => codec::overflow_code(format),
        };
        let finite_overflow_code = match rounding {
            Rounding::TowardZero => max_code,
            _ => overflow_code,
        };
        let sign_bit = 1 << (format.bits() - 1);
        // Without a NaN in the format, zero takes the sign that NaN had not.
        let (nan_code, nan_bits) = match codec::nan_code(format) {
            Some(code) => (code, codec::decode(format, code).to_bits()),
            None if integer => (0, 0),
            None => (sign_bit, SIGN),
        };
        let bits = |code| codec::decode(format, code).to_bits();
        let max_bits = bits(max_code);
        Some(Self {
            shape,
            dropped,
            least_dropped: dropped.max(1) as i32,
            below_half: half.saturating_sub(1),
            lowest_kept: u32::from(dropped > 0),
            clamp: if overflow_code == max_code {
                max_bits
            } else {
                // Past every value that might still be rounded to the largest one.
                (max_bits & INFINITY) + (1 << MANTISSA_BITS)
            },
            lowest_power: match shape {
                TWOS_COMPLEMENT => codec::exp2(MANTISSA_BITS as i32).to_bits(),
                _ => format.min_normal().to_bits(),
            },
            to_rounding_power: dropped << MANTISSA_BITS,
            min_subnormal,
            unit_field: (min_subnormal.to_bits() >> MANTISSA_BITS) as i32 + MANTISSA_BITS as i32,
            rebias_bits: ((127 - bias) as u32) << MANTISSA_BITS,
            max_code,
            finite_overflow_code,
            overflow_code,
            nan_code,
            max_bits,
            finite_overflow_bits: bits(finite_overflow_code),
            overflow_bits: bits(overflow_code),
            nan_bits,
            subnormal_codes: match shape {
                FULL_RANGE => 0,
                _ => 1 << mantissa_bits,
            },
            past_max_bits: if format.has_infinity() {
                INFINITY
            } else {
                f32::NAN.to_bits()
            },
            sign_shift: 32 - format.bits(),
            sign_bit,
            whole_bits: format.bits(),
            one: codec::exp2(32 - format.bits() as i32),
        })
    }

    /// The f32 on the grid that `x` becomes.
    #[inline(always)]
    pub(crate) fn round<const ROUNDING: u8, const SHAPE: u8>(&self, x: f32, amount: u32) -> f32 {
        let magnitude = x.to_bits() & !SIGN;
        if ROUNDING == STOCHASTIC && SHAPE == TWOS_COMPLEMENT {
            let rounded = self.whole_by_amount(magnitude, amount) as i32 as f32;
            let sign = self.sign::<SHAPE>(x, rounded.to_bits(), self.max_bits);
            return f32::from_bits(rounded.to_bits() ^ sign);
        }
        let rounded = if ROUNDING == NEAREST && SHAPE != FULL_RANGE {
            let clamped = magnitude.min(self.clamp);
            let power = f32::from_bits(self.rounding_power::<SHAPE>(clamped));
            ((f32::from_bits(clamped) + power) - power).to_bits()
        } else {
            self.round_bits::<ROUNDING, SHAPE>(magnitude, amount)
        };
        let past = self.past::<ROUNDING>(magnitude, self.finite_overflow_bits, self.overflow_bits);
        let limited = if rounded > self.max_bits {
            past
        } else {
            rounded
        };
        let limited = if magnitude > INFINITY {
            self.nan_bits
        } else {
            limited
        };
        f32::from_bits(limited ^ self.sign::<SHAPE>(x, limited, self.max_bits))
    }

    /// The code that `x` becomes.
    #[inline(always)]
    pub(crate) fn encode<const ROUNDING: u8, const SHAPE: u8>(&self, x: f32, amount: u32) -> u32 {
        let magnitude = x.to_bits() & !SIGN;
        if ROUNDING == STOCHASTIC && SHAPE == TWOS_COMPLEMENT {
            return self.with_sign(self.whole_by_amount(magnitude, amount), x);
        }
        let code = if SHAPE == FULL_RANGE {
            self.round_bits::<ROUNDING, SHAPE>(magnitude, amount) >> self.dropped
        } else {
            let mut clamped = magnitude.min(self.clamp);
            if ROUNDING != NEAREST {
                clamped = self.round_bits::<ROUNDING, SHAPE>(clamped, amount);
            }
            let power = self.rounding_power::<SHAPE>(clamped);
            let sum = f32::from_bits(clamped) + f32::from_bits(power);
            let steps = sum.to_bits().wrapping_sub(power);
            let above_lowest = power - self.to_rounding_power - self.lowest_power;
            steps.wrapping_add(above_lowest >> self.dropped)
        };
        let past = self.past::<ROUNDING>(magnitude, self.finite_overflow_code, self.overflow_code);
        let code = if code > self.max_code { past } else { code };
        let code = if magnitude > INFINITY {
            self.nan_code
        } else {
            code
        };
        if SHAPE == TWOS_COMPLEMENT {
            self.with_sign(code, x)
        } else {
            code ^ self.sign::<SHAPE>(x, code, self.max_code) >> self.sign_shift
        }
    }

    /// The value of a code.
    #[inline(always)]
    pub(crate) fn decode<const SHAPE: u8>(&self, code: u32) -> f32 {
        if SHAPE == TWOS_COMPLEMENT {
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
        if SHAPE == SIGNED_NUMBERS_ONLY && magnitude == 0 && sign != 0 {
            return f32::NAN;
        }
        f32::from_bits(value | sign << self.sign_shift)
    }

    /// The two's complement of an integer if `x` is negative.
    #[inline(always)]
    fn with_sign(&self, integer: u32, x: f32) -> u32 {
        let negative = ((x.to_bits() as i32) >> 31) as u32;
        (integer ^ negative).wrapping_sub(negative) & (2 * self.sign_bit - 1)
    }

    /// The integer that a magnitude becomes by an amount whose last bits, as many as the format has, are zeros: what fixed point
    /// drops of the magnitude is below the amount's last bit, and makes no carry.
    #[inline(always)]
    fn whole_by_amount(&self, magnitude: u32, amount: u32) -> u32 {
        let clamped = f32::from_bits(magnitude.min(self.max_bits));
        // SAFETY: neither NaN nor infinity is below the largest integer, which times `one` is less than 2^31.
        #[allow(unsafe_code)]
        let fixed: i32 = unsafe { (clamped * self.one).to_int_unchecked() };
        let whole = (fixed as u32 + (amount >> self.whole_bits)) >> (32 - self.whole_bits);
        if magnitude > INFINITY { 0 } else { whole }
    }

    /// The power of two that leaves this magnitude no bits below one step of the grid.
    #[inline(always)]
    fn rounding_power<const SHAPE: u8>(&self, magnitude: u32) -> u32 {
        if SHAPE == TWOS_COMPLEMENT {
            // Integers of 8 bits are all below it.
            return self.lowest_power;
        }
        (magnitude & INFINITY).max(self.lowest_power) + self.to_rounding_power
    }

    /// The bits of the magnitude on a grid without upper end: by an amount, and to nearest in a full range.
    #[inline(always)]
    fn round_bits<const ROUNDING: u8, const SHAPE: u8>(&self, magnitude: u32, amount: u32) -> u32 {
        if SHAPE == FULL_RANGE {
            let carry_in = match ROUNDING {
                NEAREST => self.below_half + ((magnitude >> self.dropped) & self.lowest_kept),
                // Two shifts, for none may be by all 32 bits.
                _ => amount >> 1 >> (31 - self.dropped),
            };
            return (magnitude + carry_in) >> self.dropped << self.dropped;
        }
        // One more bit is dropped for every binade below the smallest normal number.
        let exponent_field = (magnitude >> MANTISSA_BITS) as i32;
        let dropped = (self.unit_field - exponent_field).max(self.least_dropped) as u32;
        if dropped > MANTISSA_BITS {
            // The hidden bit is dropped as well, and all that is left is a fraction of the smallest subnormal.
            let significand = magnitude << 8 | 1 << 31;
            let fraction = significand
                .checked_shr(dropped.wrapping_sub(24))
                .unwrap_or(0);
            return if fraction > !amount {
                self.min_subnormal.to_bits()
            } else {
                0
            };
        }
        let carry_in = amount.wrapping_shr(32u32.wrapping_sub(dropped));
        magnitude.wrapping_add(carry_in) & u32::MAX.wrapping_shl(dropped)
    }

    /// What a value past the largest one becomes. Only rounding towards zero does not take infinity and finite values to the same.
    #[inline(always)]
    fn past<const ROUNDING: u8>(&self, magnitude: u32, finite: u32, infinite: u32) -> u32 {
        if ROUNDING == DIRECTED && magnitude != INFINITY {
            finite
        } else {
            infinite
        }
    }

    /// The f32 sign that the result carries, if any.
    #[inline(always)]
    fn sign<const SHAPE: u8>(&self, x: f32, result: u32, max: u32) -> u32 {
        let sign = x.to_bits() & SIGN;
        if SHAPE == FULL_RANGE || SHAPE == NARROW || result.wrapping_sub(1) < max {
            sign
        } else {
            0
        }
    }
}
