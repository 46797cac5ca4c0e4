//! Parsing and printing of numerics.

use std::fmt;
use std::str::FromStr;

use mantissa_formats::{Format, Overflow, Rounding};

use crate::amax_policy::AmaxPolicy;
use crate::granularity::Granularity;
use crate::numerics::Numerics;
use crate::scale::ScaleKind;

/// Names that stand for a format, its blocks and their scales together: the concrete formats of OCP
/// Microscaling Formats (MX) v1.0, table 1, and NVIDIA's NVFP4.
pub const SHORTHANDS: [(&str, Format, Granularity, ScaleKind); 7] = [
    (
        "mxfp8",
        Format::E4M3,
        Granularity::Block(32),
        ScaleKind::E8M0,
    ),
    (
        "mxfp8-e5m2",
        Format::E5M2,
        Granularity::Block(32),
        ScaleKind::E8M0,
    ),
    (
        "mxfp6",
        Format::E2M3,
        Granularity::Block(32),
        ScaleKind::E8M0,
    ),
    (
        "mxfp6-e3m2",
        Format::E3M2,
        Granularity::Block(32),
        ScaleKind::E8M0,
    ),
    (
        "mxfp4",
        Format::E2M1,
        Granularity::Block(32),
        ScaleKind::E8M0,
    ),
    (
        "mxint8",
        Format::INT8,
        Granularity::Block(32),
        ScaleKind::E8M0,
    ),
    (
        "nvfp4",
        Format::E2M1,
        Granularity::Block(16),
        ScaleKind::TwoLevel,
    ),
];

/// What every error about a part of a numerics ends with.
const PARTS: &str = "after the format come a granularity (unscaled, tensor, channel, block<n>, \
     tile<r>x<c>), a scale kind (f32, pow2, e8m0, two-level), an amax policy (dynamic, delayed<n>), a rounding (nearest, stochastic, \
     toward-zero, nearest-away) and an overflow (saturate, special), each optional";

/// The words that `PARTS` lists, for the nearest one to a misspelt word.
const WORDS: [&str; 17] = [
    "unscaled",
    "tensor",
    "channel",
    "block",
    "tile",
    "f32",
    "pow2",
    "e8m0",
    "two-level",
    "dynamic",
    "delayed",
    "nearest",
    "stochastic",
    "toward-zero",
    "nearest-away",
    "saturate",
    "special",
];

/// A text that is not a numerics.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a numerics: {reason}")]
pub struct ParseNumericsError {
    /// What was to be parsed.
    pub text: String,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

impl FromStr for Numerics {
    type Err = ParseNumericsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|reason| ParseNumericsError {
            text: text.to_owned(),
            reason,
        })
    }
}

fn parse(text: &str) -> Result<Numerics, String> {
    let lowercase = text.trim().to_ascii_lowercase();
    let mut words = lowercase.split('/');
    let head = words.next().unwrap_or_default();
    let shorthand = SHORTHANDS.iter().find(|(name, ..)| *name == head);
    let (format, mut granularity, mut scale) = match shorthand {
        Some(&(_, format, granularity, scale)) => (format, Some(granularity), Some(scale)),
        None => (parse_format(head)?, None, None),
    };
    let (mut amax, mut rounding, mut overflow) = (None, None, None);
    for word in words {
        if let Ok(found) = word.parse::<Granularity>() {
            set("granularity", &mut granularity, found)?;
        } else if let Ok(found) = word.parse::<ScaleKind>() {
            set("scale kind", &mut scale, found)?;
        } else if let Ok(found) = word.parse::<AmaxPolicy>() {
            set("amax policy", &mut amax, found)?;
        } else if let Ok(found) = word.parse::<Rounding>() {
            set("rounding", &mut rounding, found)?;
        } else if let Ok(found) = word.parse::<Overflow>() {
            set("overflow", &mut overflow, found)?;
        } else {
            return Err(unknown_part(word));
        }
    }
    let default = default_of(format, granularity);
    let numerics = Numerics {
        format,
        granularity: default.granularity,
        scale: scale.unwrap_or(default.scale),
        amax: amax.unwrap_or(default.amax),
        rounding: rounding.unwrap_or(default.rounding),
        overflow: overflow.unwrap_or(default.overflow),
    };
    numerics.check()?;
    Ok(numerics)
}

/// The numerics of a format, and of a granularity if one is given, before anything else is said.
fn default_of(format: Format, granularity: Option<Granularity>) -> Numerics {
    let wide = format.bits() > 8;
    match granularity.unwrap_or(if wide {
        Granularity::Unscaled
    } else {
        Granularity::Tensor
    }) {
        Granularity::Unscaled => Numerics::unscaled(format),
        granularity => Numerics::scaled(format, granularity),
    }
}

fn set<T: fmt::Display + PartialEq>(
    what: &str,
    slot: &mut Option<T>,
    found: T,
) -> Result<(), String> {
    match slot {
        None => *slot = Some(found),
        Some(given) => return Err(format!("its {what} is already {given}; leave out {found}")),
    }
    Ok(())
}

fn parse_format(word: &str) -> Result<Format, String> {
    word.parse::<Format>().map_err(|error| {
        let nearest = nearest(word, SHORTHANDS.iter().map(|(name, ..)| *name));
        match nearest.filter(|_| word.starts_with('m') || word.starts_with('n')) {
            Some(name) => format!("`{word}` is no format; did you mean {name}?"),
            None => error.to_string(),
        }
    })
}

fn unknown_part(word: &str) -> String {
    // Sizes are left out of the comparison, so that `blok16` is near to `block`.
    let letters = word.trim_end_matches(|c: char| c.is_ascii_digit() || c == 'x');
    let hint = match nearest(letters, WORDS.iter().copied()) {
        Some("block") => "; did you mean block<n>, such as block32?".to_owned(),
        Some("delayed") => "; did you mean delayed<n>, such as delayed16?".to_owned(),
        Some("tile") => "; did you mean tile<r>x<c>, such as tile128x128?".to_owned(),
        Some(name) => format!("; did you mean {name}?"),
        None => String::new(),
    };
    format!("unknown part `{word}`{hint} ({PARTS})")
}

/// The candidate nearest to a word, if any is near enough to be meant.
fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        .min()
        .filter(|(distance, name)| *distance <= name.len().div_ceil(3))
        .map(|(_, name)| name)
}

impl fmt::Display for Numerics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = (self.format, self.granularity, self.scale);
        let shorthand = SHORTHANDS.iter().find(|(_, a, b, c)| (*a, *b, *c) == group);
        let default = default_of(self.format, Some(self.granularity));
        match shorthand {
            Some((name, ..)) => f.write_str(name)?,
            None => {
                write!(f, "{}", self.format)?;
                // Said also where it is the default, since a narrow format without it would leave a reader guessing.
                let implied = self.format.bits() > 8 && self.granularity == Granularity::Unscaled;
                if !implied {
                    write!(f, "/{}", self.granularity)?;
                }
                if self.scale != default.scale {
                    write!(f, "/{}", self.scale)?;
                }
            }
        }
        if self.amax != default.amax {
            write!(f, "/{}", self.amax)?;
        }
        if self.rounding != default.rounding {
            write!(f, "/{}", self.rounding)?;
        }
        if self.overflow != default.overflow {
            write!(f, "/{}", self.overflow)?;
        }
        Ok(())
    }
}

impl From<Numerics> for String {
    fn from(numerics: Numerics) -> String {
        numerics.to_string()
    }
}

impl TryFrom<String> for Numerics {
    type Error = ParseNumericsError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}
