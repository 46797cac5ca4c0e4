//! The definition: what code a value has, and what value a code has, one element at a time.
//!
//! Everything here is integer arithmetic on the bit patterns, so it holds for every f32, subnormals included, and for every
//! format. The slice codec of [`Rounder`](crate::Rounder) is tested to equal it bit for bit.

use crate::{Format, Overflow, Rounding, Specials};

const F32_MANTISSA_BITS: i32 = 23;
const F32_BIAS: i32 = 127;
const F32_INFINITY: u32 = f32::INFINITY.to_bits();

/// The value nearest to `x` in `format` under `rounding` and `overflow`: [`decode`] of [`encode`].
pub fn round(format: Format, x: f32, rounding: Rounding, overflow: Overflow, random: u32) -> f32 {
    decode(format, encode(format, x, rounding, overflow, random))
}

/// The code of `x`, right-aligned. `random` is read by [`Rounding::Stochastic`] only.
///
/// NaN keeps its sign and becomes the format's quiet NaN. In formats without one it becomes zero: of the opposite sign for
/// floating formats, as in ml_dtypes. `fnuz` and integer formats know no negative zero. [`Format::E8M0`] has no code for zero
/// and negative numbers: they become NaN.
pub fn encode(format: Format, x: f32, rounding: Rounding, overflow: Overflow, random: u32) -> u32 {
    match format {
        Format::Float { specials, .. } => {
            encode_float(format, specials, x, rounding, overflow, random)
        }
        Format::PowerOfTwo => encode_power_of_two(x, rounding, overflow, random),
        Format::Int { bits } => encode_int(bits, x, rounding, random),
    }
}

/// The value of a right-aligned code; bits above the format's width are ignored. Every NaN code gives the quiet NaN of its sign.
pub const fn decode(format: Format, code: u32) -> f32 {
    match format {
        Format::Float { specials, .. } => decode_float(format, specials, code),
        Format::PowerOfTwo => match code & 0xff {
            0xff => f32::NAN,
            exponent => exp2(exponent as i32 - F32_BIAS),
        },
        Format::Int { bits } => {
            let unused = 32 - bits as u32;
            (((code << unused) as i32) >> unused) as f32
        }
    }
}

fn encode_float(
    format: Format,
    specials: Specials,
    x: f32,
    rounding: Rounding,
    overflow: Overflow,
    random: u32,
) -> u32 {
    let sign_bit = 1 << (format.bits() - 1);
    let sign = if x.is_sign_negative() { sign_bit } else { 0 };
    let magnitude = if x.is_nan() {
        match nan_code(format) {
            Some(code) => code,
            None => return sign ^ sign_bit,
        }
    } else {
        let exact = x.is_finite();
        let code = finite_code(format, x, rounding, random);
        if code <= u64::from(max_code(format)) {
            code as u32
        } else if overflow == Overflow::Saturate || (rounding == Rounding::TowardZero && exact) {
            max_code(format)
        } else {
            overflow_code(format)
        }
    };
    match specials {
        Specials::NanAtNegativeZero if magnitude == sign_bit => sign_bit,
        Specials::NanAtNegativeZero if magnitude == 0 => 0,
        _ => sign | magnitude,
    }
}

/// The magnitude's code if the exponent field had no upper end.
fn finite_code(format: Format, x: f32, rounding: Rounding, random: u32) -> u64 {
    let (mantissa_bits, min_exponent) = grid(format);
    // Below the smallest normal number the spacing stays what it is there.
    let exponent = split(x).1.max(min_exponent);
    let fixed = in_units(x, exponent - mantissa_bits);
    // The leading bit of a normal `whole` adds the one that the exponent field of normal numbers starts from, and a carry out
    // of the mantissa moves on to the next exponent.
    let code = (((exponent - min_exponent) as u64) << mantissa_bits) + fixed.whole;
    code + u64::from(rounds_up(fixed.fraction, code & 1 == 1, rounding, random))
}

fn encode_int(bits: u8, x: f32, rounding: Rounding, random: u32) -> u32 {
    if x.is_nan() {
        return 0;
    }
    let max = u64::from(max_code(Format::Int { bits }));
    let magnitude = if x.abs() >= max as f32 {
        max
    } else {
        let fixed = in_units(x, 0);
        fixed.whole
            + u64::from(rounds_up(
                fixed.fraction,
                fixed.whole & 1 == 1,
                rounding,
                random,
            ))
    };
    let code = if x < 0.0 {
        (magnitude as u32).wrapping_neg()
    } else {
        magnitude as u32
    };
    code & ((1 << bits) - 1)
}

/// Nearest rounding is that of ml_dtypes: a tie goes up, and every f32 between 2^-127 and 2^-126 goes up too. What lies below
/// 2^-127 has no smaller neighbour and becomes it.
fn encode_power_of_two(x: f32, rounding: Rounding, overflow: Overflow, random: u32) -> u32 {
    const NAN: u32 = 0xff;
    const SMALLEST: u32 = exp2(-127).to_bits();
    let bits = x.to_bits();
    if x.is_nan() || x <= 0.0 {
        return NAN;
    }
    if bits <= SMALLEST {
        return 0;
    }
    let subnormal = bits < f32::MIN_POSITIVE.to_bits();
    // How far x is on its way from one power of two to the next, in 32 bits.
    let fraction = if subnormal {
        (bits - SMALLEST) << 10
    } else {
        bits << 9
    };
    let up = match rounding {
        Rounding::Nearest => subnormal || fraction >= 1 << 31,
        Rounding::NearestAway => fraction >= 1 << 31,
        Rounding::TowardZero => false,
        Rounding::Stochastic => fraction.checked_add(random).is_none(),
    };
    let code = (bits >> F32_MANTISSA_BITS) + u32::from(up);
    let finite = bits < F32_INFINITY;
    if code < NAN {
        code
    } else if overflow == Overflow::Saturate || (rounding == Rounding::TowardZero && finite) {
        NAN - 1
    } else {
        NAN
    }
}

/// A magnitude in fixed point: `whole + fraction / 2^32` (bits below that are dropped).
struct Fixed {
    whole: u64,
    fraction: u32,
}

/// |x| in multiples of `2^unit_exponent`.
fn in_units(x: f32, unit_exponent: i32) -> Fixed {
    let (significand, exponent) = split(x);
    // Never negative: a unit is at least the worth of the significand's last bit.
    let shift = unit_exponent - (exponent - F32_MANTISSA_BITS);
    let fixed = u64::from(significand) << 32 >> shift.min(63);
    Fixed {
        whole: fixed >> 32,
        fraction: fixed as u32,
    }
}

/// Whether a magnitude this far (in units of 2^-32) above the code below it goes to the code above: exactly when the fraction plus
/// a rounding-dependent amount carries.
fn rounds_up(fraction: u32, odd: bool, rounding: Rounding, random: u32) -> bool {
    let amount = match rounding {
        // Just under one half, or one half where the tie must go up to be even.
        Rounding::Nearest => 0x7fff_ffff + u32::from(odd),
        Rounding::NearestAway => 0x8000_0000,
        Rounding::TowardZero => 0,
        Rounding::Stochastic => random,
    };
    fraction.checked_add(amount).is_none()
}

/// `|x| = significand * 2^(exponent - 23)`, with the leading bit at 23 for normal numbers.
fn split(x: f32) -> (u32, i32) {
    let bits = x.to_bits() & !(1 << 31);
    let field = bits >> F32_MANTISSA_BITS;
    let mantissa = bits & ((1 << F32_MANTISSA_BITS) - 1);
    match field {
        0 => (mantissa, 1 - F32_BIAS),
        _ => (mantissa | 1 << F32_MANTISSA_BITS, field as i32 - F32_BIAS),
    }
}

/// Mantissa bits and the exponent of the smallest normal number.
const fn grid(format: Format) -> (i32, i32) {
    match format {
        Format::Float {
            mantissa_bits,
            bias,
            ..
        } => (mantissa_bits as i32, 1 - bias as i32),
        Format::PowerOfTwo => (0, -127),
        Format::Int { .. } => (0, 0),
    }
}

/// The code of the largest finite value.
pub(crate) const fn max_code(format: Format) -> u32 {
    let magnitudes = 1 << (format.bits() - 1);
    match format {
        Format::Float {
            mantissa_bits,
            specials,
            ..
        } => match specials {
            Specials::Ieee => magnitudes - (1 << mantissa_bits) - 1,
            Specials::Nan => magnitudes - 2,
            Specials::NanAtNegativeZero | Specials::None => magnitudes - 1,
        },
        Format::PowerOfTwo => 0xfe,
        Format::Int { .. } => magnitudes - 1,
    }
}

/// The code that quiet NaN is coded as, without its sign (`fnuz`: with it).
pub(crate) const fn nan_code(format: Format) -> Option<u32> {
    let sign_bit = 1 << (format.bits() - 1);
    match format {
        Format::Float {
            mantissa_bits,
            specials,
            ..
        } => match specials {
            Specials::Ieee => Some(sign_bit - (1 << mantissa_bits) + (1 << (mantissa_bits - 1))),
            Specials::Nan => Some(sign_bit - 1),
            Specials::NanAtNegativeZero => Some(sign_bit),
            Specials::None => None,
        },
        Format::PowerOfTwo => Some(0xff),
        Format::Int { .. } => None,
    }
}

/// What a value past the largest becomes under [`Overflow::Special`], without its sign.
pub(crate) const fn overflow_code(format: Format) -> u32 {
    match (format.has_infinity(), nan_code(format)) {
        (true, _) => max_code(format) + 1,
        (false, Some(nan)) => nan,
        (false, None) => max_code(format),
    }
}

const fn decode_float(format: Format, specials: Specials, code: u32) -> f32 {
    let sign_bit = 1u32 << (format.bits() - 1);
    let negative = code & sign_bit != 0;
    let magnitude = code & (sign_bit - 1);
    let max = max_code(format);
    let value = if matches!(specials, Specials::NanAtNegativeZero) && negative && magnitude == 0 {
        return f32::NAN;
    } else if magnitude <= max {
        decode_magnitude(format, magnitude)
    } else if format.has_infinity() && magnitude == max + 1 {
        f32::INFINITY
    } else {
        f32::NAN
    };
    if negative { -value } else { value }
}

/// The finite value of a code without its sign: its significand times a power of two, both exact.
const fn decode_magnitude(format: Format, code: u32) -> f32 {
    let (mantissa_bits, min_exponent) = grid(format);
    let field = code >> mantissa_bits;
    let mantissa = code & ((1 << mantissa_bits) - 1);
    let (significand, exponent) = match field {
        0 => (mantissa, min_exponent),
        _ => (
            mantissa | 1 << mantissa_bits,
            min_exponent + field as i32 - 1,
        ),
    };
    significand as f32 * exp2(exponent - mantissa_bits)
}

/// Two to an integer power from -149 to 127.
pub(crate) const fn exp2(exponent: i32) -> f32 {
    assert!(exponent >= -149 && exponent <= 127);
    f32::from_bits(if exponent >= 1 - F32_BIAS {
        ((exponent + F32_BIAS) as u32) << F32_MANTISSA_BITS
    } else {
        1 << (exponent + 149)
    })
}
