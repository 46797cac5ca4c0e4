//! Which numerics are safer than which.

use mantissa_quant::{AmaxPolicy, Granularity, Numerics};
use serde::{Deserialize, Serialize};

use crate::cost::Target;
use crate::site::PassNumerics;

/// Ways to make an operand safer, from the cheapest on.
///
/// A granularity keeps the operand's format and rounding and gives it finer scales, from its own amax; a numerics
/// replaces it by a wider one. A rung that is no finer and no wider than what an operand has is passed over.
///
/// ```
/// use mantissa_plan::guard::Ladder;
///
/// let rungs: Vec<String> = Ladder::default()
///     .above(&"e5m2/tensor/stochastic".parse()?)
///     .map(|rung| rung.to_string())
///     .collect();
/// assert_eq!(rungs, ["e5m2/channel/stochastic", "e5m2/block32/stochastic", "bf16", "fp32"]);
/// # Ok::<(), mantissa_quant::ParseNumericsError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ladder(Vec<Rung>);

/// One step of a [`Ladder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Rung {
    /// The same format with finer scales.
    Finer(Granularity),
    /// A wider format.
    Wider(Numerics),
}

impl Default for Ladder {
    fn default() -> Self {
        Ladder(vec![
            Rung::Finer(Granularity::Tensor),
            Rung::Finer(Granularity::Channel),
            Rung::Finer(Granularity::Block(32)),
            Rung::Wider(Numerics::BF16),
            Rung::Wider(Numerics::FP32),
        ])
    }
}

impl From<Rung> for String {
    fn from(rung: Rung) -> Self {
        match rung {
            Rung::Finer(granularity) => granularity.to_string(),
            Rung::Wider(numerics) => numerics.to_string(),
        }
    }
}

impl TryFrom<String> for Rung {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if let Ok(granularity) = text.parse::<Granularity>() {
            return Ok(Rung::Finer(granularity));
        }
        text.parse().map(Rung::Wider).map_err(|error| {
            format!(
                "`{text}` is no rung: write a granularity such as channel, or a numerics ({error})"
            )
        })
    }
}

impl Rung {
    /// What this rung makes of an operand, if that is safer.
    fn of(&self, from: &Numerics) -> Option<Numerics> {
        let to = match *self {
            Rung::Wider(numerics) => {
                return (numerics.format.bits() > from.format.bits()).then_some(numerics);
            }
            Rung::Finer(granularity) => Numerics {
                rounding: from.rounding,
                ..match from.granularity {
                    Granularity::Unscaled => Numerics::scaled(from.format, granularity),
                    _ => Numerics {
                        granularity,
                        amax: AmaxPolicy::Dynamic,
                        ..*from
                    },
                }
            },
        };
        // Formats of 16 bits and more lose by their width, not by sharing a scale.
        let gains = from.format.bits() < 16 && fineness(&to) > fineness(from);
        (gains && to.check().is_ok()).then_some(to)
    }
}

/// The order of scales from the coarsest to the finest.
fn fineness(numerics: &Numerics) -> (u8, std::cmp::Reverse<u64>) {
    let (class, group) = match numerics.granularity {
        Granularity::Unscaled => (0, 0),
        Granularity::Tensor if numerics.amax != AmaxPolicy::Dynamic => (1, 0),
        Granularity::Tensor => (2, 0),
        Granularity::Channel => (3, 0),
        Granularity::Tile(rows, columns) => (4, u64::from(rows) * u64::from(columns)),
        Granularity::Block(length) => (4, length.into()),
    };
    (class, std::cmp::Reverse(group))
}

impl Ladder {
    /// The safer numerics for an operand, from the cheapest on.
    pub fn above(&self, from: &Numerics) -> impl Iterator<Item = Numerics> {
        self.0.iter().filter_map(|rung| rung.of(from))
    }

    /// Both operands one rung up; `None` where neither has one.
    pub fn step_up(&self, from: PassNumerics) -> Option<PassNumerics> {
        let up = |numerics: Numerics| self.above(&numerics).next().unwrap_or(numerics);
        let to = PassNumerics {
            left: up(from.left),
            right: up(from.right),
        };
        (to != from).then_some(to)
    }

    /// Every pair in which neither operand is less safe and one is safer, the cheapest on `target` first, and of the same
    /// cost the one with the fewest rungs climbed.
    pub fn pairs_above(
        &self,
        from: PassNumerics,
        target: &Target,
        depth: usize,
    ) -> Vec<PassNumerics> {
        let with_itself = |numerics: Numerics| {
            let mut rungs = vec![numerics];
            rungs.extend(self.above(&numerics));
            rungs
        };
        let (lefts, rights) = (with_itself(from.left), with_itself(from.right));
        let mut pairs: Vec<(f64, usize, PassNumerics)> = Vec::new();
        for (left_rungs, &left) in lefts.iter().enumerate() {
            for (right_rungs, &right) in rights.iter().enumerate() {
                let pair = PassNumerics { left, right };
                pairs.push((target.cost(&pair, depth), left_rungs + right_rungs, pair));
            }
        }
        pairs.retain(|(_, rungs, _)| *rungs > 0);
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        pairs.into_iter().map(|(_, _, pair)| pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numerics(text: &str) -> Numerics {
        text.parse().unwrap()
    }

    #[test]
    fn finer_scales_come_first_and_wider_formats_last() {
        for (from, expected) in [
            ("int8/tensor", "int8/channel int8/block32 bf16 fp32"),
            (
                "e4m3/tensor/delayed16",
                "e4m3/tensor e4m3/channel e4m3/block32 bf16 fp32",
            ),
            (
                "e5m2/unscaled",
                "e5m2/tensor e5m2/channel e5m2/block32 bf16 fp32",
            ),
            ("e4m3/block128", "e4m3/block32 bf16 fp32"),
            ("e4m3/tile128x128", "e4m3/block32 bf16 fp32"),
            ("mxfp8", "bf16 fp32"),
            ("nvfp4", "bf16 fp32"),
            ("int8/block32/stochastic", "bf16 fp32"),
            ("fp16", "fp32"),
            ("bf16", "fp32"),
            ("fp32", ""),
        ] {
            let rungs: Vec<String> = Ladder::default()
                .above(&numerics(from))
                .map(|rung| rung.to_string())
                .collect();
            assert_eq!(rungs.join(" "), expected, "{from}");
        }
    }

    #[test]
    fn climbing_ends() {
        let ladder = Ladder::default();
        let mut pair = PassNumerics {
            left: numerics("nvfp4"),
            right: numerics("e5m2/unscaled"),
        };
        let mut climbed = 0;
        while let Some(up) = ladder.step_up(pair) {
            (pair, climbed) = (up, climbed + 1);
        }
        assert_eq!((pair, climbed), (PassNumerics::FP32, 5));
    }

    #[test]
    fn pairs_are_tried_by_cost_and_all_are_safer() {
        let from = PassNumerics::both(numerics("int8/tensor"));
        for target in ["emulate", "cpu-vnni", "h100"] {
            let target = Target::preset(target).unwrap();
            let pairs = Ladder::default().pairs_above(from, &target, 256);
            assert_eq!(pairs.len(), 24);
            assert!(!pairs.contains(&from) && pairs.contains(&PassNumerics::FP32));
            let costs: Vec<f64> = pairs.iter().map(|pair| target.cost(pair, 256)).collect();
            assert!(costs.is_sorted(), "{costs:?}");
        }
    }

    #[test]
    fn a_ladder_is_a_list_of_words() {
        let text = serde_json::to_string(&Ladder::default()).unwrap();
        assert_eq!(text, r#"["tensor","channel","block32","bf16","fp32"]"#);
        let read: Ladder = serde_json::from_str(&text).unwrap();
        assert_eq!(read, Ladder::default());
        let error = serde_json::from_str::<Ladder>(r#"["chanel"]"#).unwrap_err();
        assert!(error.to_string().contains("`chanel` is no rung"), "{error}");
    }
}
