//! Where the amax of a scale comes from.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

/// The largest margin: 2^-32 of the range of every format here is below its smallest normal.
const MAX_MARGIN: u8 = 32;

/// Where the amax that determines a scale comes from.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum AmaxPolicy {
    /// The tensor that is quantized: read once for its amax, once for its elements.
    #[default]
    Dynamic,
    /// The steps before, as in TransformerEngine's `DelayedScaling`: an element beyond their amax saturates.
    /// Where there is no step before, as for a tensor quantized by itself, the tensor's own.
    Delayed {
        /// Steps remembered; the largest of their amaxes counts, so that 1 is the most recent one.
        history: NonZeroU16,
        /// Powers of two left free above the amax.
        margin: u8,
    },
}

impl AmaxPolicy {
    /// The amax to scale by where `amax` was found: `amax · 2^margin`.
    pub(crate) fn with_margin(self, amax: f32) -> f32 {
        match self {
            AmaxPolicy::Dynamic | AmaxPolicy::Delayed { margin: 0, .. } => amax,
            // A wider amax than f32 holds would have no scale.
            AmaxPolicy::Delayed { margin, .. } if amax.is_finite() => {
                (amax * f32::from(margin).exp2()).min(f32::MAX)
            }
            AmaxPolicy::Delayed { .. } => amax,
        }
    }
}

/// A text that is not an amax policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not an amax policy: it is dynamic, or delayed<n> for the amax of the last n steps (1 to 65535), as in \
     delayed16, with -margin<m> for m powers of two of room above it (1 to {MAX_MARGIN}), as in delayed16-margin1"
)]
pub struct ParseAmaxPolicyError {
    /// What was to be parsed.
    pub text: String,
}

impl FromStr for AmaxPolicy {
    type Err = ParseAmaxPolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || ParseAmaxPolicyError {
            text: text.to_owned(),
        };
        if text == "dynamic" {
            return Ok(AmaxPolicy::Dynamic);
        }
        let delayed = text.strip_prefix("delayed").ok_or_else(unknown)?;
        let (history, margin) = match delayed.split_once("-margin") {
            Some((history, margin)) => (history, margin.parse().map_err(|_| unknown())?),
            None => (delayed, 0),
        };
        let history = history.parse().map_err(|_| unknown())?;
        if margin > MAX_MARGIN {
            return Err(unknown());
        }
        Ok(AmaxPolicy::Delayed { history, margin })
    }
}

impl fmt::Display for AmaxPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AmaxPolicy::Dynamic => f.write_str("dynamic"),
            AmaxPolicy::Delayed { history, margin: 0 } => write!(f, "delayed{history}"),
            AmaxPolicy::Delayed { history, margin } => {
                write!(f, "delayed{history}-margin{margin}")
            }
        }
    }
}
