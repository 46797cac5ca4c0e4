//! Names: printing and parsing formats, roundings and overflow behaviours.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Format, Overflow, Rounding};

/// A name that means nothing here, with the nearest one that does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {kind} `{name}`: {remedy}")]
pub struct UnknownName {
    /// What the name should have named, such as `format`.
    pub kind: &'static str,
    /// The name as it was given.
    pub name: String,
    /// What to write instead.
    pub remedy: String,
}

impl UnknownName {
    /// The error for `name`, which is none of `known`; it suggests the nearest of them, or lists them where none is near.
    pub fn new<'a>(
        kind: &'static str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        let nearest = known
            .iter()
            .map(|candidate| {
                (
                    strsim::jaro_winkler(&name.to_lowercase(), candidate),
                    candidate,
                )
            })
            .filter(|(similarity, _)| *similarity >= 0.7)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let remedy = match nearest {
            Some((_, nearest)) => format!("did you mean `{nearest}`?"),
            None => format!("it must be one of {}", known.join(", ")),
        };
        Self {
            kind,
            name: name.to_owned(),
            remedy,
        }
    }
}

/// Names other systems use for named formats.
const ALIASES: &[(&str, Format)] = &[
    ("f32", Format::FP32),
    ("float32", Format::FP32),
    ("tensorfloat32", Format::TF32),
    ("bfloat16", Format::BF16),
    ("f16", Format::FP16),
    ("float16", Format::FP16),
    ("half", Format::FP16),
    ("e4m3fn", Format::E4M3),
    ("float8_e4m3fn", Format::E4M3),
    ("float8_e4m3", Format::E4M3_IEEE),
    ("float8_e5m2", Format::E5M2),
    ("float8_e3m4", Format::E3M4),
    ("float8_e4m3fnuz", Format::E4M3FNUZ),
    ("float8_e5m2fnuz", Format::E5M2FNUZ),
    ("float8_e4m3b11fnuz", Format::E4M3B11FNUZ),
    ("e8m0fnu", Format::E8M0),
    ("float8_e8m0fnu", Format::E8M0),
    ("e2m3fn", Format::E2M3),
    ("float6_e2m3fn", Format::E2M3),
    ("e3m2fn", Format::E3M2),
    ("float6_e3m2fn", Format::E3M2),
    ("fp4", Format::E2M1),
    ("e2m1fn", Format::E2M1),
    ("float4_e2m1fn", Format::E2M1),
    ("i8", Format::INT8),
    ("i4", Format::INT4),
];

impl Format {
    /// The canonical name: that of [`Format::NAMED`], else `eXmY` (`eXmY-ieee` where another format is called `eXmY`) or `intN`.
    /// Parsing it gives the format back.
    pub fn name(&self) -> Cow<'static, str> {
        if let Some((name, _)) = Self::NAMED.iter().find(|(_, format)| format == self) {
            return Cow::Borrowed(name);
        }
        match *self {
            Self::Float {
                exponent_bits,
                mantissa_bits,
                ..
            } => {
                let widths = format!("e{exponent_bits}m{mantissa_bits}");
                // OCP's format of these widths has the plain name.
                if widths.parse() == Ok(*self) {
                    Cow::Owned(widths)
                } else {
                    Cow::Owned(widths + "-ieee")
                }
            }
            Self::Int { bits } => Cow::Owned(format!("int{bits}")),
            Self::PowerOfTwo => Cow::Borrowed("e8m0"),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}

/// Parses a canonical name, a common alias (`f16`, `e4m3fn`, `e8m0fnu`, …), `eXmY`, `eXmY-ieee` or `intN`, in any letter case.
impl FromStr for Format {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let lower = name.to_ascii_lowercase();
        let mut known = Self::NAMED.iter().chain(ALIASES);
        if let Some((_, format)) = known.find(|(known, _)| *known == lower) {
            return Ok(*format);
        }
        float_by_widths(&lower)
            .or_else(|| small_number(lower.strip_prefix("int")?).and_then(Self::int))
            .ok_or_else(|| unknown_format(name, &lower))
    }
}

/// `eXmY` or `eXmY-ieee` with X and Y in range.
fn float_by_widths(name: &str) -> Option<Format> {
    let widths = name.strip_suffix("-ieee").unwrap_or(name);
    let (exponent_bits, mantissa_bits) = widths.strip_prefix('e')?.split_once('m')?;
    Format::float(small_number(exponent_bits)?, small_number(mantissa_bits)?)
}

/// A decimal number as a person writes a width: no sign, no leading zero.
fn small_number(digits: &str) -> Option<u8> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'));
    if plain { digits.parse().ok() } else { None }
}

fn unknown_format(name: &str, lower: &str) -> UnknownName {
    let widths = lower
        .strip_prefix('e')
        .and_then(|rest| rest.split_once('m'));
    if let Some((Some(_), Some(_))) = widths.map(|(x, y)| (small_number(x), small_number(y))) {
        return UnknownName {
            kind: "format",
            name: name.to_owned(),
            remedy: "eXmY takes 2 to 8 exponent bits and 0 to 23 mantissa bits".to_owned(),
        };
    }
    UnknownName::new("format", name, Format::NAMED.iter().map(|named| named.0))
}

macro_rules! named {
    ($type:ty, $kind:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let named = Self::NAMED.iter().find(|(_, value)| value == self);
                f.pad(named.map_or($kind, |named| named.0))
            }
        }

        impl FromStr for $type {
            type Err = UnknownName;

            fn from_str(name: &str) -> Result<Self, UnknownName> {
                let known = Self::NAMED
                    .iter()
                    .find(|(known, _)| known.eq_ignore_ascii_case(name));
                known.map(|named| named.1).ok_or_else(|| {
                    UnknownName::new($kind, name, Self::NAMED.iter().map(|named| named.0))
                })
            }
        }
    };
}

named!(Rounding, "rounding");
named!(Overflow, "overflow");

macro_rules! serde_as_name {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = Cow::<'de, str>::deserialize(deserializer)?;
                name.parse().map_err(de::Error::custom)
            }
        }
    };
}

serde_as_name!(Format);
serde_as_name!(Rounding);
serde_as_name!(Overflow);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_to_what_prints_it() {
        for (name, format) in Format::NAMED {
            assert_eq!(name.parse(), Ok(*format));
            assert_eq!(format.to_string(), *name);
        }
        for exponent_bits in 2..=8 {
            for mantissa_bits in 0..=23 {
                let format = Format::float(exponent_bits, mantissa_bits).unwrap();
                assert_eq!(format.to_string().parse(), Ok(format));
            }
        }
        assert_eq!("int5".parse(), Ok(Format::int(5).unwrap()));
        for (name, rounding) in Rounding::NAMED {
            assert_eq!(name.parse(), Ok(*rounding));
            assert_eq!(rounding.to_string(), *name);
        }
        for (name, overflow) in Overflow::NAMED {
            assert_eq!(name.parse(), Ok(*overflow));
            assert_eq!(overflow.to_string(), *name);
        }
    }

    #[test]
    fn aliases_and_letter_case_are_understood() {
        assert_eq!("E4M3FN".parse(), Ok(Format::E4M3));
        assert_eq!("f16".parse(), Ok(Format::FP16));
        assert_eq!("e8m0fnu".parse(), Ok(Format::E8M0));
        assert_eq!("e8m23".parse(), Ok(Format::FP32));
        assert_eq!("e5m10".parse(), Ok(Format::FP16));
    }

    #[test]
    fn an_unknown_name_is_answered_with_a_remedy() {
        let message = |name: &str| name.parse::<Format>().unwrap_err().to_string();
        assert_eq!(
            message("e4m3fm"),
            "unknown format `e4m3fm`: did you mean `e4m3`?"
        );
        assert_eq!(
            message("bf61"),
            "unknown format `bf61`: did you mean `bf16`?"
        );
        assert!(
            message("e9m3").ends_with("eXmY takes 2 to 8 exponent bits and 0 to 23 mantissa bits")
        );
        assert!(message("zzz").contains("it must be one of fp32, tf32"));
        for hostile in [
            "",
            "e",
            "em",
            "e+4m3",
            "e04m3",
            "e4m",
            "int",
            "int+8",
            "int99999999999",
            "é4m3",
        ] {
            assert!(hostile.parse::<Format>().is_err(), "{hostile}");
        }
        assert_eq!(
            "stochastik".parse::<Rounding>().unwrap_err().to_string(),
            "unknown rounding `stochastik`: did you mean `stochastic`?"
        );
    }
}
