//! What a pair of numerics costs on a named target.

use mantissa_formats::{Format, Rounding};
use mantissa_quant::{Granularity, Numerics};
use serde::{Deserialize, Serialize};

use crate::names;
use crate::site::PassNumerics;
use crate::toml_text::{self, TomlFault};

/// The version of the target file this crate reads.
pub const SCHEMA: u32 = 1;

const PRESETS: [(&str, &str); 3] = [
    ("emulate", include_str!("targets/emulate.toml")),
    ("cpu-vnni", include_str!("targets/cpu-vnni.toml")),
    ("h100", include_str!("targets/h100.toml")),
];

/// A machine, as far as the price of products goes. Everything is in units of the same product in f32.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The version of the file format, [`SCHEMA`].
    pub schema: u32,
    /// A short name.
    pub name: String,
    /// What it is, in a sentence.
    #[serde(default)]
    pub description: String,
    /// The rate of pairs that are not native: decoded and multiplied in f32.
    pub otherwise: f64,
    /// What moving both operands in f32 costs beside the product; narrower operands cost their share of it.
    pub bandwidth: f64,
    /// What quantizing one operand costs.
    pub quantizing: QuantizingCost,
    /// The native pairs; the first that fits counts.
    pub products: Vec<NativeProduct>,
}

/// What quantizing one operand costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantizingCost {
    /// With one scale for the tensor.
    pub tensor: f64,
    /// With one scale for each row.
    pub channel: f64,
    /// With one scale for each block or tile.
    pub block: f64,
    /// More, where rounding is stochastic.
    pub stochastic: f64,
}

/// Pairs of formats that the target multiplies natively, either way round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NativeProduct {
    /// Formats of one operand.
    pub left: Vec<Format>,
    /// Formats of the other.
    pub right: Vec<Format>,
    /// Granularities both operands may have; all where none are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub granularities: Vec<GranularityClass>,
    /// Multiplications in the time of one in f32.
    pub rate: f64,
}

/// A granularity without its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GranularityClass {
    /// No scale.
    Unscaled,
    /// One scale.
    Tensor,
    /// One scale a row.
    Channel,
    /// One scale for consecutive elements along the contraction.
    Block,
    /// One scale for a two-dimensional block.
    Tile,
}

impl From<Granularity> for GranularityClass {
    fn from(granularity: Granularity) -> Self {
        match granularity {
            Granularity::Unscaled => GranularityClass::Unscaled,
            Granularity::Tensor => GranularityClass::Tensor,
            Granularity::Channel => GranularityClass::Channel,
            Granularity::Block(_) => GranularityClass::Block,
            Granularity::Tile(..) => GranularityClass::Tile,
        }
    }
}

/// Why a target cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// No built-in target has this name.
    #[error("there is no target `{name}`{hint} The targets are {known}.")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The nearest name, in words.
        hint: String,
        /// All built-in targets.
        known: String,
    },
    /// The text is not a target.
    #[error("the target cannot be read: {0}")]
    Toml(#[from] TomlFault),
    /// A rate or cost makes no sense.
    #[error("target `{target}`: {what} must be {expected}, not {found}")]
    Number {
        /// The target.
        target: String,
        /// Which number.
        what: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        found: f64,
    },
}

impl Target {
    /// The names of the built-in targets.
    pub fn preset_names() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|&(name, _)| name)
    }

    /// The built-in target of this name.
    pub fn preset(name: &str) -> Result<Target, TargetError> {
        match PRESETS.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => Target::from_toml(text),
            None => Err(TargetError::Unknown {
                name: name.to_string(),
                hint: names::did_you_mean(name, Target::preset_names()),
                known: names::listed(&Target::preset_names().collect::<Vec<_>>(), usize::MAX),
            }),
        }
    }

    /// Reads a target from TOML.
    pub fn from_toml(text: &str) -> Result<Target, TargetError> {
        let target: Target = toml_text::parse(text, SCHEMA)?;
        let rates = target
            .products
            .iter()
            .map(|product| product.rate)
            .chain([target.otherwise]);
        let quantizing = target.quantizing;
        let costs = [
            target.bandwidth,
            quantizing.tensor,
            quantizing.channel,
            quantizing.block,
            quantizing.stochastic,
        ];
        let number = |what, expected, found| TargetError::Number {
            target: target.name.clone(),
            what,
            expected,
            found,
        };
        if let Some(rate) = rates
            .into_iter()
            .find(|rate| !(rate.is_finite() && *rate > 0.0))
        {
            return Err(number("a rate", "finite and positive", rate));
        }
        if let Some(cost) = costs
            .into_iter()
            .find(|cost| !(cost.is_finite() && *cost >= 0.0))
        {
            return Err(number("a cost", "finite and not negative", cost));
        }
        Ok(target)
    }

    /// The cost of a product of this depth in these numerics, in units of the f32 product with its traffic left out;
    /// rounded to six decimals, so that equal costs are equal numbers.
    pub fn cost(&self, pair: &PassNumerics, depth: usize) -> f64 {
        let bits = pair.left.bits_per_element(depth) + pair.right.bits_per_element(depth);
        let traffic = self.bandwidth * bits / 64.0;
        let cost = 1.0 / self.rate(pair)
            + traffic
            + (self.quantizing(&pair.left) + self.quantizing(&pair.right));
        (cost * 1e6).round() / 1e6
    }

    /// Whether the target multiplies these numerics natively.
    pub fn is_native(&self, pair: &PassNumerics) -> bool {
        pair.is_fp32() || self.products.iter().any(|product| product.fits(pair))
    }

    fn rate(&self, pair: &PassNumerics) -> f64 {
        if pair.is_fp32() {
            return 1.0;
        }
        self.products
            .iter()
            .find(|product| product.fits(pair))
            .map_or(self.otherwise, |product| product.rate)
    }

    fn quantizing(&self, numerics: &Numerics) -> f64 {
        let scale = match numerics.granularity {
            Granularity::Unscaled => 0.0,
            Granularity::Tensor => self.quantizing.tensor,
            Granularity::Channel => self.quantizing.channel,
            Granularity::Block(_) | Granularity::Tile(..) => self.quantizing.block,
        };
        let rounding = if numerics.rounding == Rounding::Stochastic {
            self.quantizing.stochastic
        } else {
            0.0
        };
        scale + rounding
    }
}

impl NativeProduct {
    fn fits(&self, pair: &PassNumerics) -> bool {
        let formats = |a: &Numerics, b: &Numerics| {
            self.left.contains(&a.format) && self.right.contains(&b.format)
        };
        let granular = |numerics: &Numerics| {
            self.granularities.is_empty()
                || self.granularities.contains(&numerics.granularity.into())
        };
        (formats(&pair.left, &pair.right) || formats(&pair.right, &pair.left))
            && granular(&pair.left)
            && granular(&pair.right)
    }
}
