//! Formats as plain data: reading [`Format::NAMED`] is reading the specifications.

use crate::codec;

/// How one element is coded: everything the codec needs to know, and nothing else.
///
/// The named formats are constants; [`Format::float`] and [`Format::int`] make any other, and so does parsing a name such as
/// `e6m9`. Two formats are equal exactly when they code every value alike.
///
/// ```
/// use mantissa_formats::Format;
///
/// assert_eq!(Format::E4M3.max_finite(), 448.0);
/// assert_eq!("e4m3".parse(), Ok(Format::E4M3));
/// assert_eq!("e6m9".parse::<Format>().unwrap().bits(), 16);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Sign, exponent, mantissa, with subnormals. A code whose exponent field `e` is not zero stands for
    /// `2^(e - bias) * (1 + m / 2^mantissa_bits)`, one whose field is zero for `2^(1 - bias) * m / 2^mantissa_bits`.
    #[non_exhaustive]
    Float {
        /// Width of the exponent field, 2 to 8.
        exponent_bits: u8,
        /// Width of the mantissa field, 0 to 23.
        mantissa_bits: u8,
        /// What is subtracted from the exponent field.
        bias: i16,
        /// Which codes are not finite numbers.
        specials: Specials,
    },
    /// Eight bits of exponent and nothing else: code `c` stands for `2^(c - 127)`, code `ff` for NaN. No sign, no zero.
    /// The scale of the OCP Microscaling (MX) formats.
    PowerOfTwo,
    /// Two's complement integers whose codes are used symmetrically, `-(2^(bits-1) - 1)` to `2^(bits-1) - 1`.
    #[non_exhaustive]
    Int {
        /// Width of the code, 2 to 8.
        bits: u8,
    },
}

/// Which codes of a floating format stand for infinity and NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Specials {
    /// The highest exponent holds infinity (mantissa zero) and NaN (any other mantissa), as in IEEE 754.
    Ieee,
    /// Only the code with all bits set, of either sign, is NaN: the `fn` formats of OCP OFP8.
    Nan,
    /// The code of negative zero is NaN, so zero has no sign: the `fnuz` formats.
    NanAtNegativeZero,
    /// Every code is a finite number: the FP6 and FP4 formats of OCP MX.
    None,
}

const fn float(exponent_bits: u8, mantissa_bits: u8, bias: i16, specials: Specials) -> Format {
    Format::Float {
        exponent_bits,
        mantissa_bits,
        bias,
        specials,
    }
}

impl Format {
    /// IEEE 754 binary32: every f32 is its own code.
    pub const FP32: Self = float(8, 23, 127, Specials::Ieee);
    /// NVIDIA's TensorFloat-32: the range of f32 with the precision of FP16, in 19 bits.
    pub const TF32: Self = float(8, 10, 127, Specials::Ieee);
    /// Google's bfloat16: the upper half of an f32.
    pub const BF16: Self = float(8, 7, 127, Specials::Ieee);
    /// IEEE 754 binary16.
    pub const FP16: Self = float(5, 10, 15, Specials::Ieee);
    /// OCP OFP8 E5M2: the upper half of an FP16; max 57344.
    pub const E5M2: Self = float(5, 2, 15, Specials::Ieee);
    /// OCP OFP8 E4M3 (`e4m3fn`): no infinity; max 448.
    pub const E4M3: Self = float(4, 3, 7, Specials::Nan);
    /// The IEEE-like E4M3, with infinity; max 240.
    pub const E4M3_IEEE: Self = float(4, 3, 7, Specials::Ieee);
    /// The IEEE-like E3M4; max 15.5.
    pub const E3M4: Self = float(3, 4, 3, Specials::Ieee);
    /// AMD's and Graphcore's E4M3 with one NaN and no negative zero; max 240.
    pub const E4M3FNUZ: Self = float(4, 3, 8, Specials::NanAtNegativeZero);
    /// AMD's and Graphcore's E5M2 with one NaN and no negative zero; max 57344.
    pub const E5M2FNUZ: Self = float(5, 2, 16, Specials::NanAtNegativeZero);
    /// E4M3 with bias 11, one NaN and no negative zero (Sun et al. 2019, HFP8); max 30.
    pub const E4M3B11FNUZ: Self = float(4, 3, 11, Specials::NanAtNegativeZero);
    /// OCP MX scale: powers of two from 2^-127 to 2^127.
    pub const E8M0: Self = Self::PowerOfTwo;
    /// OCP MX FP6 with three mantissa bits; max 7.5.
    pub const E2M3: Self = float(2, 3, 1, Specials::None);
    /// OCP MX FP6 with two mantissa bits; max 28.
    pub const E3M2: Self = float(3, 2, 3, Specials::None);
    /// OCP MX FP4; max 6.
    pub const E2M1: Self = float(2, 1, 1, Specials::None);
    /// Integers from -127 to 127.
    pub const INT8: Self = Self::Int { bits: 8 };
    /// Integers from -7 to 7.
    pub const INT4: Self = Self::Int { bits: 4 };

    /// Every named format under its canonical name, widest range of use first.
    pub const NAMED: &[(&str, Self)] = &[
        ("fp32", Self::FP32),
        ("tf32", Self::TF32),
        ("bf16", Self::BF16),
        ("fp16", Self::FP16),
        ("e5m2", Self::E5M2),
        ("e4m3", Self::E4M3),
        ("e4m3-ieee", Self::E4M3_IEEE),
        ("e3m4", Self::E3M4),
        ("e4m3fnuz", Self::E4M3FNUZ),
        ("e5m2fnuz", Self::E5M2FNUZ),
        ("e4m3b11fnuz", Self::E4M3B11FNUZ),
        ("e8m0", Self::E8M0),
        ("e2m3", Self::E2M3),
        ("e3m2", Self::E3M2),
        ("e2m1", Self::E2M1),
        ("int8", Self::INT8),
        ("int4", Self::INT4),
    ];

    /// The IEEE-like format with this many exponent (2 to 8) and mantissa (0 to 23) bits; `None` outside these ranges.
    ///
    /// Without mantissa bits the highest exponent has room for one special only, and that is NaN: an overflow stays visible.
    pub const fn float(exponent_bits: u8, mantissa_bits: u8) -> Option<Self> {
        if exponent_bits < 2 || exponent_bits > 8 || mantissa_bits > 23 {
            return None;
        }
        let specials = if mantissa_bits == 0 {
            Specials::Nan
        } else {
            Specials::Ieee
        };
        Some(float(
            exponent_bits,
            mantissa_bits,
            (1 << (exponent_bits - 1)) - 1,
            specials,
        ))
    }

    /// The integer format of this width (2 to 8 bits); `None` outside this range.
    pub const fn int(bits: u8) -> Option<Self> {
        if bits >= 2 && bits <= 8 {
            Some(Self::Int { bits })
        } else {
            None
        }
    }

    /// Width of a code. Codes are right-aligned in whatever holds them.
    pub const fn bits(&self) -> u32 {
        match *self {
            Self::Float {
                exponent_bits,
                mantissa_bits,
                ..
            } => 1 + exponent_bits as u32 + mantissa_bits as u32,
            Self::PowerOfTwo => 8,
            Self::Int { bits } => bits as u32,
        }
    }

    /// The largest finite value.
    pub const fn max_finite(&self) -> f32 {
        codec::decode(*self, codec::max_code(*self))
    }

    /// The smallest positive value with full precision; 1 for integers.
    pub const fn min_normal(&self) -> f32 {
        match *self {
            Self::Float { bias, .. } => codec::exp2(1 - bias as i32),
            Self::PowerOfTwo => codec::exp2(-127),
            Self::Int { .. } => 1.0,
        }
    }

    /// The smallest positive value: the spacing of the subnormals where there are any, else [`min_normal`](Self::min_normal).
    pub const fn min_subnormal(&self) -> f32 {
        match *self {
            Self::Float {
                mantissa_bits,
                bias,
                ..
            } => codec::exp2(1 - bias as i32 - mantissa_bits as i32),
            Self::PowerOfTwo | Self::Int { .. } => self.min_normal(),
        }
    }

    /// The distance from 1 to the next larger value.
    pub const fn epsilon(&self) -> f32 {
        match *self {
            Self::Float { mantissa_bits, .. } => codec::exp2(-(mantissa_bits as i32)),
            Self::PowerOfTwo | Self::Int { .. } => 1.0,
        }
    }

    /// The smallest magnitude that nearest rounding takes past [`max_finite`](Self::max_finite); infinity where no f32 is.
    ///
    /// Overflow begins here and not at the largest value: at 61440 for E5M2, whose tie goes up, and just above 464 for E4M3,
    /// whose tie goes down to 448.
    pub const fn overflow_threshold(&self) -> f32 {
        match *self {
            Self::Float { mantissa_bits, .. } => {
                let max = self.max_finite().to_bits();
                if mantissa_bits >= 23 {
                    return f32::from_bits(max + 1);
                }
                let tie = max + (1 << (22 - mantissa_bits as u32));
                // An odd largest code loses the tie to the even one past it.
                f32::from_bits(if codec::max_code(*self) & 1 == 1 {
                    tie
                } else {
                    tie + 1
                })
            }
            Self::PowerOfTwo => 1.5 * codec::exp2(127),
            Self::Int { .. } => self.max_finite() + 0.5,
        }
    }

    /// Whether some code is infinity.
    pub const fn has_infinity(&self) -> bool {
        matches!(
            self,
            Self::Float {
                specials: Specials::Ieee,
                ..
            }
        )
    }

    /// Whether some code is NaN.
    pub const fn has_nan(&self) -> bool {
        match self {
            Self::Float { specials, .. } => !matches!(specials, Specials::None),
            Self::PowerOfTwo => true,
            Self::Int { .. } => false,
        }
    }

    /// Whether zero has a code of its own for each sign.
    pub const fn has_negative_zero(&self) -> bool {
        match self {
            Self::Float { specials, .. } => !matches!(specials, Specials::NanAtNegativeZero),
            Self::PowerOfTwo | Self::Int { .. } => false,
        }
    }

    /// Whether the format holds negative numbers.
    pub const fn is_signed(&self) -> bool {
        !matches!(self, Self::PowerOfTwo)
    }

    /// Whether the values are integers.
    pub const fn is_integer(&self) -> bool {
        matches!(self, Self::Int { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: ml_dtypes 0.6.0 `finfo` (int, tf32: their definitions).
    #[test]
    fn constants_are_those_of_the_oracle() {
        let e = codec::exp2;
        let table = [
            (Format::FP32, 32, f32::MAX, e(-126), e(-149), e(-23)),
            (Format::TF32, 19, 3.401_162_1e38, e(-126), e(-136), e(-10)),
            (Format::BF16, 16, 3.389_531_4e38, e(-126), e(-133), e(-7)),
            (Format::FP16, 16, 65504.0, e(-14), e(-24), e(-10)),
            (Format::E5M2, 8, 57344.0, e(-14), e(-16), e(-2)),
            (Format::E4M3, 8, 448.0, e(-6), e(-9), e(-3)),
            (Format::E4M3_IEEE, 8, 240.0, e(-6), e(-9), e(-3)),
            (Format::E3M4, 8, 15.5, e(-2), e(-6), e(-4)),
            (Format::E4M3FNUZ, 8, 240.0, e(-7), e(-10), e(-3)),
            (Format::E5M2FNUZ, 8, 57344.0, e(-15), e(-17), e(-2)),
            (Format::E4M3B11FNUZ, 8, 30.0, e(-10), e(-13), e(-3)),
            (Format::E8M0, 8, e(127), e(-127), e(-127), 1.0),
            (Format::E2M3, 6, 7.5, 1.0, 0.125, e(-3)),
            (Format::E3M2, 6, 28.0, 0.25, 0.0625, e(-2)),
            (Format::E2M1, 4, 6.0, 1.0, 0.5, 0.5),
            (Format::INT8, 8, 127.0, 1.0, 1.0, 1.0),
            (Format::INT4, 4, 7.0, 1.0, 1.0, 1.0),
        ];
        assert_eq!(
            table.map(|row| row.0).as_slice(),
            Format::NAMED
                .iter()
                .map(|named| named.1)
                .collect::<Vec<_>>()
        );
        for (format, bits, max_finite, min_normal, min_subnormal, epsilon) in table {
            assert_eq!(format.bits(), bits, "{format}");
            assert_eq!(format.max_finite(), max_finite, "{format}");
            assert_eq!(format.min_normal(), min_normal, "{format}");
            assert_eq!(format.min_subnormal(), min_subnormal, "{format}");
            assert_eq!(format.epsilon(), epsilon, "{format}");
        }
    }

    #[test]
    fn overflow_begins_past_the_largest_value() {
        assert_eq!(Format::E4M3.overflow_threshold(), 464f32.next_up());
        assert_eq!(Format::E5M2.overflow_threshold(), 61440.0);
        assert_eq!(Format::FP16.overflow_threshold(), 65520.0);
        assert_eq!(Format::FP32.overflow_threshold(), f32::INFINITY);
        assert_eq!(Format::INT8.overflow_threshold(), 127.5);
    }

    #[test]
    fn widths_outside_the_range_make_no_format() {
        assert_eq!(Format::float(1, 3), None);
        assert_eq!(Format::float(9, 3), None);
        assert_eq!(Format::float(5, 24), None);
        assert_eq!(Format::int(1), None);
        assert_eq!(Format::int(9), None);
        assert_eq!(Format::float(5, 2), Some(Format::E5M2));
    }
}
