//! The formats of both moments.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::format::{StateFormat, StateFormatError};

/// The formats of the moments of a parameter. As text, one format for both moments (`dynamic8/block256`), or the first's and the
/// second's (`e4m3/tensor,fp16/tensor`, which is FP8-LM's).
///
/// SGD's velocity is a first moment; what Adafactor remembers of a vector is a second moment, and its moments of rows and columns
/// are always f32, for there are few of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateFormats {
    /// Of the averaged gradients.
    pub first: StateFormat,
    /// Of the averaged squares of the gradients.
    pub second: StateFormat,
}

impl StateFormats {
    /// One format for both.
    pub const fn both(format: StateFormat) -> Self {
        Self {
            first: format,
            second: format,
        }
    }

    /// Whether both are f32.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl FromStr for StateFormats {
    type Err = StateFormatError;

    fn from_str(text: &str) -> Result<Self, StateFormatError> {
        match text.split_once(',') {
            None => text.trim().parse().map(Self::both),
            Some((first, second)) => Ok(Self {
                first: first.trim().parse()?,
                second: second.trim().parse()?,
            }),
        }
    }
}

impl fmt::Display for StateFormats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.second {
            self.first.fmt(f)
        } else {
            write!(f, "{},{}", self.first, self.second)
        }
    }
}

impl Serialize for StateFormats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StateFormats {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_format_is_for_both_moments() {
        let both: StateFormats = "dynamic8".parse().unwrap();
        assert_eq!(both.first, both.second);
        assert_eq!(both.to_string(), "dynamic8/block256");
        let each: StateFormats = "e4m3/tensor, fp16/tensor".parse().unwrap();
        assert_ne!(each.first, each.second);
        assert_eq!(each.to_string(), "e4m3/tensor,fp16/tensor");
        assert!("e4m3/tensor,".parse::<StateFormats>().is_err());
    }
}
