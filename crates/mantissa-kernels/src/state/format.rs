//! How the elements of a moment are coded: a value, and its text form.

use std::fmt;
use std::str::FromStr;

use mantissa_formats::{Format, Rounding, UnknownName};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Elements that are decoded, updated and coded together: in the first cache, and whole blocks of every format.
pub(super) const PIECE: usize = 1024;
/// Elements that may share a scale, which must be a power of two.
const BLOCKS: std::ops::RangeInclusive<u16> = 16..=PIECE as u16;

/// How the elements of a moment are coded. The text form names format, granularity and what else there is, parted by slashes:
///
/// | text | codes | scale |
/// |---|---|---|
/// | `fp32`, `bf16`, `fp16` | the format's | none |
/// | `fp16/tensor`, `e4m3/tensor` | the format's | the power of two that brings the tensor's amax to the upper end ([FP8-LM](https://arxiv.org/abs/2310.18313)) |
/// | `e4m3/block256` | the format's | one for each 256 elements, amax over the largest code |
/// | `e4m3/block128/expanded`, `e5m2/block128/expanded` | the format's, of magnitudes raised to a power | the block's amax, and the power that stretches the block's range over the format's ([COAT](https://arxiv.org/abs/2410.19313)) |
/// | `dynamic8/block256` | an index into the dynamic map of [8-bit optimizers](https://arxiv.org/abs/2110.02861), which has a sign for the first moment and none for the second | the block's amax |
/// | `dynamic4/block128` | half a byte: for the first moment the dynamic map of 16 values, for the second 1/16, 2/16 … 1 | the block's amax |
///
/// All but the dynamic maps round to nearest, or, with `/stochastic` at the end, stochastically: a second moment of few mantissa
/// bits else stands still, since it changes by less than half a step at a time. `dynamic8` alone means `dynamic8/block256`,
/// `dynamic4` means `dynamic4/block128`, which are the published ones.
///
/// ```
/// use mantissa_kernels::state::StateFormat;
///
/// let coat: StateFormat = "e4m3/block128/expanded".parse()?;
/// assert_eq!(coat.bytes(1280), 1280 + 10 * (4 + 1));
/// let error = "dynamic8/tensor".parse::<StateFormat>().unwrap_err();
/// assert!(error.to_string().contains("a dynamic map has a scale for each block"));
/// # Ok::<(), mantissa_kernels::state::StateFormatError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StateFormat {
    pub(super) codes: Codes,
    pub(super) scaling: Scaling,
}

/// What a code stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Codes {
    /// A number of the format.
    Number { format: Format, rounding: Rounding },
    /// A place in a map of 256 values.
    Dynamic8,
    /// A place in a map of 16 values.
    Dynamic4,
}

/// Which elements share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Scaling {
    Unscaled,
    Tensor,
    Block {
        size: u16,
        /// Whether magnitudes are raised to a power first.
        expanded: bool,
    },
}

/// A text that is no state format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no state format: {problem}")]
pub struct StateFormatError {
    /// The text.
    pub text: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

impl StateFormat {
    /// Every element as it is.
    pub const FP32: Self = Self {
        codes: Codes::Number {
            format: Format::FP32,
            rounding: Rounding::Nearest,
        },
        scaling: Scaling::Unscaled,
    };

    /// The formats that systems publish, with what they are: for lists and messages.
    pub const PUBLISHED: &[(&str, &str)] = &[
        ("fp32", "4 bytes an element, the default"),
        ("bf16", "2 bytes; second moments want bf16/stochastic"),
        (
            "fp16",
            "2 bytes, without a scale: second moments below 6e-8 are rounded up",
        ),
        ("fp16/tensor", "2 bytes, one scale: FP8-LM's second moment"),
        ("e4m3/tensor", "1 byte, one scale: FP8-LM's first moment"),
        (
            "e4m3/block256",
            "1 byte, a scale for each 256: torchao's AdamWFp8",
        ),
        (
            "e4m3/block128/expanded",
            "1 byte, the range of each 128 stretched: COAT",
        ),
        (
            "e5m2/block128/expanded",
            "1 byte, of more range and less precision: COAT",
        ),
        (
            "dynamic8/block256",
            "1 byte, the dynamic map of bitsandbytes",
        ),
        ("dynamic4/block128", "half a byte, the maps of torchao"),
    ];

    /// Bytes that `len` elements take, with their scales.
    pub const fn bytes(&self, len: usize) -> usize {
        let scales = self.scale_count(len);
        let exponents = if self.is_expanded() { scales } else { 0 };
        self.code_bytes(len) + 4 * scales + exponents
    }

    /// Bytes of the codes of `len` elements.
    pub(super) const fn code_bytes(&self, len: usize) -> usize {
        (len * self.bits()).div_ceil(8)
    }

    /// Width of a code.
    pub(super) const fn bits(&self) -> usize {
        match self.codes {
            Codes::Number { format, .. } => format.bits() as usize,
            Codes::Dynamic8 => 8,
            Codes::Dynamic4 => 4,
        }
    }

    /// How many scales `len` elements have.
    pub(super) const fn scale_count(&self, len: usize) -> usize {
        match self.scaling {
            Scaling::Unscaled => 0,
            Scaling::Tensor => 1,
            Scaling::Block { size, .. } => len.div_ceil(size as usize),
        }
    }

    pub(super) const fn is_expanded(&self) -> bool {
        matches!(self.scaling, Scaling::Block { expanded: true, .. })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split('/').peekable();
        let name = parts.next().unwrap_or_default();
        let (dynamic, usual_block) = match name {
            "dynamic8" => (Some(Codes::Dynamic8), 256),
            "dynamic4" => (Some(Codes::Dynamic4), 128),
            _ => (None, 0),
        };
        let block = |expanded| Scaling::Block {
            size: usual_block,
            expanded,
        };
        let mut scaling = match dynamic {
            Some(_) => block(false),
            None => Scaling::Unscaled,
        };
        if let Some(granularity) =
            parts.next_if(|part| *part == "tensor" || part.starts_with("block"))
        {
            scaling = match granularity.strip_prefix("block") {
                None => Scaling::Tensor,
                Some(size) => Scaling::Block {
                    size: block_size(size)?,
                    expanded: parts.next_if_eq(&"expanded").is_some(),
                },
            };
        }
        let rounding = match parts.next() {
            None => Rounding::Nearest,
            Some("nearest") => Rounding::Nearest,
            Some("stochastic") => Rounding::Stochastic,
            Some("expanded") => {
                return Err("`expanded` follows a block, as in e4m3/block128/expanded".into());
            }
            Some(other) => {
                return Err(UnknownName::new(
                    "part",
                    other,
                    ["tensor", "block128", "expanded", "stochastic"],
                )
                .to_string());
            }
        };
        if let Some(rest) = parts.next() {
            return Err(format!(
                "nothing follows the rounding, and here `{rest}` does"
            ));
        }
        let codes = match dynamic {
            Some(codes) => {
                check_dynamic(scaling, rounding)?;
                codes
            }
            None => {
                let format = number(name)?;
                check_number(format, scaling)?;
                Codes::Number { format, rounding }
            }
        };
        Ok(Self { codes, scaling })
    }
}

fn block_size(text: &str) -> Result<u16, String> {
    let size = text.parse().ok();
    size.filter(|size: &u16| size.is_power_of_two() && BLOCKS.contains(size))
        .ok_or_else(|| {
            let (least, most) = (BLOCKS.start(), BLOCKS.end());
            format!("a block is a power of two of elements from {least} to {most}, as in block128")
        })
}

fn number(name: &str) -> Result<Format, String> {
    name.parse().map_err(|unknown: UnknownName| {
        let dynamic = UnknownName::new("format", name, ["dynamic8", "dynamic4"]);
        match name.starts_with("dyn") {
            true => dynamic.to_string(),
            false => unknown.to_string(),
        }
    })
}

fn check_dynamic(scaling: Scaling, rounding: Rounding) -> Result<(), String> {
    match scaling {
        Scaling::Block {
            expanded: false, ..
        } if rounding == Rounding::Nearest => Ok(()),
        Scaling::Block { expanded: true, .. } => {
            Err("a dynamic map has its range already, and is not expanded".into())
        }
        Scaling::Block { .. } => Err("a dynamic map rounds to nearest".into()),
        _ => Err("a dynamic map has a scale for each block, as in dynamic8/block256".into()),
    }
}

fn check_number(format: Format, scaling: Scaling) -> Result<(), String> {
    let exponent_bits = match format {
        Format::Float { exponent_bits, .. } => Some(exponent_bits),
        Format::Int { .. } => None,
        _ => {
            return Err(format!(
                "{format} has no zero; write fp32, bf16, fp16, e4m3 or e5m2"
            ));
        }
    };
    let is_full = format == Format::FP32;
    if !(is_full || matches!(format.bits(), 4 | 8 | 16)) {
        return Err(format!(
            "a code of {format} has {} bits, and must have 4, 8 or 16, or be fp32",
            format.bits()
        ));
    }
    match scaling {
        Scaling::Unscaled if exponent_bits.is_none() => {
            Err(format!("{format} needs a scale, as in {format}/block128"))
        }
        Scaling::Tensor | Scaling::Block { .. } if exponent_bits.is_some_and(|bits| bits > 5) => {
            Err(format!(
                "{format} has the range of f32 or nearly so, and takes no scale"
            ))
        }
        Scaling::Block { expanded: true, .. } if exponent_bits.is_none() => Err(format!(
            "the range of {format}, which is linear, is not expanded"
        )),
        _ => Ok(()),
    }
}

impl FromStr for StateFormat {
    type Err = StateFormatError;

    fn from_str(text: &str) -> Result<Self, StateFormatError> {
        Self::parse(&text.to_ascii_lowercase()).map_err(|problem| StateFormatError {
            text: text.to_owned(),
            problem,
        })
    }
}

impl fmt::Display for StateFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, rounding) = match self.codes {
            Codes::Number { format, rounding } => (format.to_string(), rounding),
            Codes::Dynamic8 => ("dynamic8".to_owned(), Rounding::Nearest),
            Codes::Dynamic4 => ("dynamic4".to_owned(), Rounding::Nearest),
        };
        let granularity = match self.scaling {
            Scaling::Unscaled => String::new(),
            Scaling::Tensor => "/tensor".to_owned(),
            Scaling::Block { size, expanded } => {
                format!("/block{size}{}", if expanded { "/expanded" } else { "" })
            }
        };
        let rounding = match rounding {
            Rounding::Nearest => String::new(),
            other => format!("/{other}"),
        };
        f.pad(&(name + &granularity + &rounding))
    }
}

impl Default for StateFormat {
    fn default() -> Self {
        Self::FP32
    }
}

impl Serialize for StateFormat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StateFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_published_format_prints_as_it_is_written() {
        for (text, _) in StateFormat::PUBLISHED {
            assert_eq!(text.parse::<StateFormat>().unwrap().to_string(), *text);
        }
        for (text, full) in [
            ("f32", "fp32"),
            ("dynamic8", "dynamic8/block256"),
            ("Dynamic4", "dynamic4/block128"),
            (
                "e4m3fn/block64/expanded/stochastic",
                "e4m3/block64/expanded/stochastic",
            ),
            ("bf16/stochastic", "bf16/stochastic"),
            ("int8/tensor/nearest", "int8/tensor"),
        ] {
            assert_eq!(text.parse::<StateFormat>().unwrap().to_string(), full);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_reason() {
        for (text, problem) in [
            ("e4m4", "format"),
            ("dynamic9", "did you mean `dynamic"),
            ("dynamic8/tensor", "a scale for each block"),
            ("dynamic8/block256/expanded", "has its range already"),
            ("dynamic4/block128/stochastic", "rounds to nearest"),
            ("bf16/block128", "takes no scale"),
            ("fp32/tensor", "takes no scale"),
            ("tf32", "has 19 bits"),
            ("e8m0", "has no zero"),
            ("int8", "needs a scale"),
            ("int8/block128/expanded", "is linear"),
            ("e4m3/block100", "power of two"),
            ("e4m3/block8", "from 16 to 1024"),
            ("e4m3/block99999999", "from 16 to 1024"),
            ("e4m3/tensor/expanded", "follows a block"),
            ("e4m3/blok128", "did you mean `block128`?"),
            ("e4m3/tensor/stochastic/x", "nothing follows the rounding"),
            ("", "format"),
        ] {
            let error = text.parse::<StateFormat>().unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn bytes_count_codes_and_scales() {
        for (text, bytes) in [
            ("fp32", 4000),
            ("bf16", 2000),
            ("fp16/tensor", 2004),
            ("dynamic8/block256", 1000 + 4 * 4),
            ("dynamic4/block128", 500 + 8 * 4),
            ("e4m3/block128/expanded", 1000 + 8 * 5),
        ] {
            assert_eq!(text.parse::<StateFormat>().unwrap().bytes(1000), bytes);
        }
        let dynamic4: StateFormat = "dynamic4".parse().unwrap();
        assert_eq!(dynamic4.bytes(1), 1 + 4);
    }
}
