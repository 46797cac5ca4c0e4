//! The formats in which gradients travel.

use std::fmt;
use std::str::FromStr;

use mantissa_formats::{Format, Overflow, RandomBits, Rounder, Rounding};
use serde::{Deserialize, Serialize};

use super::floats;

/// The format in which gradients travel between ranks, there and back; sums are computed in f32 in any of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Wire {
    /// As they are: four bytes an element. The only loss is that of f32 additions in another order.
    #[default]
    F32,
    /// Rounded to nearest: two bytes an element.
    Bf16,
    /// One byte an element, with a scale that all ranks share for each parameter: the power of two that takes the
    /// largest magnitude on any rank to at most 448. Rounded stochastically, so that elements far below it add up to what
    /// they are on average instead of vanishing. Sums are divided by the number of ranks, rounded up to a power of two,
    /// on their way back, so that none overflows.
    E4m3,
}

/// A name that is no [`Wire`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("gradients do not travel as `{0}`: write f32, bf16 or e4m3")]
pub struct UnknownWire(pub String);

impl Wire {
    const NAMED: [(&str, Self); 3] = [
        ("f32", Self::F32),
        ("bf16", Self::Bf16),
        ("e4m3", Self::E4m3),
    ];

    /// Bytes an element takes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::E4m3 => 1,
        }
    }

    /// What an amax of a parameter's gradients is multiplied with to fit the format: a power of two.
    pub(super) fn factor(self, amax: f32) -> f32 {
        /// Further down lie values that are no normal f32 any more.
        const LIMIT: i32 = 100;
        if self != Self::E4m3 || amax == 0.0 {
            return 1.0;
        }
        let room = f64::from(Format::E4M3.max_finite()) / f64::from(amax);
        let power = room.log2().floor() as i32;
        f64::from(power.clamp(-LIMIT, LIMIT)).exp2() as f32
    }

    /// What sums over `ranks` are multiplied with so that they fit the format as each summand does: a power of two.
    pub(super) fn sum_factor(self, ranks: usize) -> f32 {
        match self {
            Self::F32 | Self::Bf16 => 1.0,
            Self::E4m3 => 1.0 / ranks.next_power_of_two() as f32,
        }
    }

    fn rounder(self) -> Rounder {
        let (format, rounding) = match self {
            Self::F32 => (Format::FP32, Rounding::Nearest),
            Self::Bf16 => (Format::BF16, Rounding::Nearest),
            Self::E4m3 => (Format::E4M3, Rounding::Stochastic),
        };
        Rounder::new(format, rounding, Overflow::Saturate)
    }

    /// The bytes of `values`; the first one draws the random bits of index `start`.
    pub(super) fn encode(self, random: RandomBits, start: u64, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => super::bytes(values),
            Self::Bf16 => {
                let mut codes = vec![0u16; values.len()];
                self.rounder().encode_u16(random, start, values, &mut codes);
                let mut bytes = vec![0; 2 * codes.len()];
                for (bytes, code) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(codes) {
                    *bytes = code.to_le_bytes();
                }
                bytes
            }
            Self::E4m3 => {
                let mut codes = vec![0; values.len()];
                self.rounder().encode_u8(random, start, values, &mut codes);
                codes
            }
        }
    }

    /// The values in `bytes`.
    pub(super) fn decode(self, bytes: &[u8], values: &mut [f32]) {
        match self {
            Self::F32 => {
                for (value, read) in values.iter_mut().zip(floats(bytes)) {
                    *value = read;
                }
            }
            Self::Bf16 => {
                let (codes, _) = bytes.as_chunks::<2>();
                let codes: Vec<u16> = codes.iter().map(|&code| u16::from_le_bytes(code)).collect();
                self.rounder().decode_u16(&codes, values);
            }
            Self::E4m3 => self.rounder().decode_u8(bytes, values),
        }
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::NAMED.iter().find(|(_, wire)| wire == self);
        f.write_str(named.map_or("", |(name, _)| name))
    }
}

impl FromStr for Wire {
    type Err = UnknownWire;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::NAMED.iter().find(|(name, _)| *name == text);
        named
            .map(|&(_, wire)| wire)
            .ok_or_else(|| UnknownWire(text.to_owned()))
    }
}

impl TryFrom<String> for Wire {
    type Error = UnknownWire;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Wire> for String {
    fn from(wire: Wire) -> Self {
        wire.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_the_largest_powers_of_two_that_fit() {
        for amax in [1e-25, 1e-3, 1.0, 3.0, 447.0, 448.0, 449.0, 1e30] {
            let factor = Wire::E4m3.factor(amax);
            assert_eq!(factor.log2().fract(), 0.0);
            assert!(amax * factor <= 448.0 && amax * factor > 224.0, "{amax}");
        }
        assert_eq!(Wire::E4m3.factor(0.0), 1.0);
        assert!(Wire::E4m3.factor(f32::MIN_POSITIVE).is_normal());
        assert_eq!(Wire::E4m3.sum_factor(3), 0.25);
        assert_eq!(Wire::Bf16.sum_factor(3), 1.0);
    }

    #[test]
    fn names_are_read_back() {
        for (name, wire) in Wire::NAMED {
            assert_eq!(name.parse(), Ok(wire));
            assert_eq!(wire.to_string(), name);
        }
        assert!("fp8".parse::<Wire>().is_err());
    }
}
