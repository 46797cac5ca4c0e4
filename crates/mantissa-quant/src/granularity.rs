//! How many elements share a scale, and where the scale of an element is found.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How many elements share one scale, always relative to one product: an operand is a batch of
/// `[outer, depth]` matrices, `depth` being the axis that the product contracts.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Granularity {
    /// No scale: elements are rounded as they are.
    Unscaled,
    /// One scale for the whole operand, all matrices of the batch together.
    Tensor,
    /// One scale for each non-contracted index of each matrix: a row of the left operand, a column
    /// of the right one.
    Channel,
    /// One scale for each `n` consecutive elements along the contraction.
    Block(u32),
    /// One scale for each tile of `r` non-contracted indices by `c` elements along the contraction.
    Tile(u32, u32),
}

impl Granularity {
    /// Whether elements are divided by a scale at all.
    pub const fn is_scaled(self) -> bool {
        !matches!(self, Granularity::Unscaled)
    }

    /// Where the scales of matrices of shape `[outer, depth]` lie.
    pub fn layout(self, outer: usize, depth: usize) -> ScaleLayout {
        let (outer_group, depth_group, shared) = match self {
            Granularity::Unscaled | Granularity::Tensor => (outer, depth, true),
            Granularity::Channel => (1, depth, false),
            Granularity::Block(n) => (1, n as usize, false),
            Granularity::Tile(r, c) => (r as usize, c as usize, false),
        };
        let (outer_group, depth_group) = (outer_group.max(1), depth_group.max(1));
        ScaleLayout {
            outer_group,
            depth_group,
            outer_groups: outer.div_ceil(outer_group),
            depth_groups: depth.div_ceil(depth_group),
            shared,
        }
    }
}

/// Where the scale of an element lies: scales are a row-major array
/// `[batch, outer_groups, depth_groups]`, or a single number when `shared`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ScaleLayout {
    /// Consecutive outer indices that share a scale.
    pub outer_group: usize,
    /// Consecutive depth indices that share a scale.
    pub depth_group: usize,
    /// Groups along the outer axis.
    pub outer_groups: usize,
    /// Groups along the depth axis.
    pub depth_groups: usize,
    /// One scale for all matrices of the batch.
    pub shared: bool,
}

impl ScaleLayout {
    /// The number of scales of a batch of matrices.
    pub fn len(&self, batch: usize) -> usize {
        if self.shared {
            1
        } else {
            batch * self.outer_groups * self.depth_groups
        }
    }

    /// The index of the scale of element `[matrix, outer, depth]`.
    pub fn index(&self, matrix: usize, outer: usize, depth: usize) -> usize {
        if self.shared {
            return 0;
        }
        (matrix * self.outer_groups + outer / self.outer_group) * self.depth_groups
            + depth / self.depth_group
    }
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Granularity::Unscaled => f.write_str("unscaled"),
            Granularity::Tensor => f.write_str("tensor"),
            Granularity::Channel => f.write_str("channel"),
            Granularity::Block(n) => write!(f, "block{n}"),
            Granularity::Tile(r, c) => write!(f, "tile{r}x{c}"),
        }
    }
}

/// A word that is no granularity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a granularity: write unscaled, tensor, channel, block<n> or tile<r>x<c> with \
     sizes of at least 1, for example block32 or tile128x128"
)]
pub struct ParseGranularityError(pub String);

impl FromStr for Granularity {
    type Err = ParseGranularityError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let size = |digits: &str| -> Option<u32> {
            let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
            if plain { digits.parse().ok() } else { None }
        };
        let parsed = match word {
            "unscaled" => Some(Granularity::Unscaled),
            "tensor" => Some(Granularity::Tensor),
            "channel" => Some(Granularity::Channel),
            _ => {
                if let Some(digits) = word.strip_prefix("block") {
                    size(digits).map(Granularity::Block)
                } else {
                    word.strip_prefix("tile")
                        .and_then(|sizes| sizes.split_once('x'))
                        .and_then(|(r, c)| Some(Granularity::Tile(size(r)?, size(c)?)))
                }
            }
        };
        parsed.ok_or_else(|| ParseGranularityError(word.to_owned()))
    }
}

impl From<Granularity> for String {
    fn from(granularity: Granularity) -> String {
        granularity.to_string()
    }
}

impl TryFrom<String> for Granularity {
    type Error = ParseGranularityError;

    fn try_from(word: String) -> Result<Self, Self::Error> {
        word.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_no_granularity_are_refused() {
        for word in [
            "block",
            "block0",
            "block-1",
            "block+4",
            "block99999999999",
            "tile4",
            "tilex4",
            "tile0x4",
            "row",
            "",
        ] {
            let error = word.parse::<Granularity>().unwrap_err().to_string();
            assert!(
                error.contains(&format!("`{word}`")) && error.contains("block32"),
                "{error}"
            );
        }
    }

    #[test]
    fn groups_at_the_edges_may_be_smaller() {
        let layout = Granularity::Tile(4, 32).layout(5, 70);
        assert_eq!((layout.outer_groups, layout.depth_groups), (2, 3));
        assert_eq!(layout.len(2), 12);
        assert_eq!(layout.index(1, 4, 69), 11);
        assert_eq!(Granularity::Channel.layout(5, 0).len(3), 0);
        assert_eq!(Granularity::Tensor.layout(0, 0).len(3), 1);
    }
}
