//! What a pair of numerics costs on a named target.

use std::path::{Path, PathBuf};

use mantissa_formats::{Format, Rounding};
use mantissa_quant::{Granularity, Numerics, ParseGranularityError, ScaleKind};
use serde::{Deserialize, Serialize};

use crate::candidates::Candidates;
use crate::file;
use crate::names;
use crate::profile::PassProfile;
use crate::site::PassNumerics;
use crate::toml_text::{self, TomlFault};

/// The version of the target file this crate reads.
pub const SCHEMA: u32 = 1;

/// Far more than a target needs.
const LARGEST: u64 = 1 << 20;

const PRESETS: [(&str, &str); 6] = [
    ("emulate", include_str!("targets/emulate.toml")),
    ("cpu-vnni", include_str!("targets/cpu-vnni.toml")),
    ("h100", include_str!("targets/h100.toml")),
    ("mi300", include_str!("targets/mi300.toml")),
    ("tpu-v5", include_str!("targets/tpu-v5.toml")),
    ("blackwell", include_str!("targets/blackwell.toml")),
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
    /// How many rows each operand of a product has for which `bandwidth` and `quantizing` hold.
    pub reference: usize,
    /// The rate of pairs that are not native: decoded and multiplied in f32.
    pub otherwise: f64,
    /// What moving both operands in f32 costs beside the product; narrower operands cost their share of it.
    pub bandwidth: f64,
    /// What quantizing one operand costs.
    pub quantizing: QuantizingCost,
    /// The native pairs; the first that fits counts.
    #[serde(default)]
    pub products: Vec<NativeProduct>,
    /// The candidates considered where a policy names none: those that are native here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidates: Option<Candidates>,
}

/// The shape of a product: of each of `batch` matrices, `outer_left` rows of length `depth` meet `outer_right` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProductShape {
    /// Matrices.
    pub batch: usize,
    /// Rows of each left matrix.
    pub outer_left: usize,
    /// Rows of each right matrix.
    pub outer_right: usize,
    /// The length of the contraction.
    pub depth: usize,
}

impl ProductShape {
    /// The shape of a measured pass, the largest of all steps.
    pub fn of(measured: &PassProfile) -> ProductShape {
        let ([batch, outer_left, depth], [other_batch, outer_right, _]) =
            (measured.left.shape, measured.right.shape);
        ProductShape {
            batch: batch.max(other_batch),
            outer_left,
            outer_right,
            depth,
        }
    }

    /// How many multiplications it takes.
    pub fn multiplications(&self) -> f64 {
        let lengths = [self.batch, self.outer_left, self.outer_right, self.depth];
        lengths.iter().map(|&length| length as f64).product()
    }
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
    pub granularities: Vec<NativeGranularity>,
    /// Scale kinds both operands may have, where they are scaled; all where none are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scales: Vec<ScaleKind>,
    /// Multiplications in the time of one in f32.
    pub rate: f64,
}

/// Which granularities a native product takes: one of them, or blocks or tiles of any size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum NativeGranularity {
    /// This one.
    Exactly(Granularity),
    /// `block`.
    AnyBlock,
    /// `tile`.
    AnyTile,
}

impl NativeGranularity {
    fn takes(self, granularity: Granularity) -> bool {
        match self {
            NativeGranularity::Exactly(exact) => exact == granularity,
            NativeGranularity::AnyBlock => matches!(granularity, Granularity::Block(_)),
            NativeGranularity::AnyTile => matches!(granularity, Granularity::Tile(..)),
        }
    }
}

impl From<NativeGranularity> for String {
    fn from(granularity: NativeGranularity) -> String {
        match granularity {
            NativeGranularity::Exactly(exact) => exact.to_string(),
            NativeGranularity::AnyBlock => "block".to_string(),
            NativeGranularity::AnyTile => "tile".to_string(),
        }
    }
}

impl TryFrom<String> for NativeGranularity {
    type Error = ParseGranularityError;

    fn try_from(word: String) -> Result<Self, Self::Error> {
        match word.as_str() {
            "block" => Ok(NativeGranularity::AnyBlock),
            "tile" => Ok(NativeGranularity::AnyTile),
            _ => word.parse().map(NativeGranularity::Exactly),
        }
    }
}

/// Why a target cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The file cannot be read.
    #[error("cannot read the target {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What is wrong, and in which file.
    #[error("{}: {fault}", .path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: Box<TargetError>,
    },
    /// The file is not text.
    #[error("the target is not UTF-8 text")]
    NotText,
    /// No built-in target has this name.
    #[error(
        "there is no target `{name}`{hint} The targets are {known}, and files ending in .toml."
    )]
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

    /// The built-in target of this name, or the one in this file where the name ends in `.toml`.
    pub fn named(name: &str) -> Result<Target, TargetError> {
        if !name.ends_with(".toml") {
            return Target::preset(name);
        }
        let path = Path::new(name);
        let in_file = |fault| TargetError::InFile {
            path: path.to_path_buf(),
            fault: Box::new(fault),
        };
        let bytes = file::read_at_most(path, LARGEST).map_err(|source| TargetError::Read {
            path: path.to_path_buf(),
            source,
        })?;
        let text = String::from_utf8(bytes).map_err(|_| in_file(TargetError::NotText))?;
        Target::from_toml(&text).map_err(in_file)
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
        if target.reference == 0 {
            return Err(number("the reference", "a number of rows, at least 1", 0.0));
        }
        if let Some(cost) = costs
            .into_iter()
            .find(|cost| !(cost.is_finite() && *cost >= 0.0))
        {
            return Err(number("a cost", "finite and not negative", cost));
        }
        Ok(target)
    }

    /// The cost of a product in these numerics, in units of the same product in f32 with its traffic left out; rounded to
    /// six decimals, so that equal costs are equal numbers.
    ///
    /// Multiplying takes as long as there are pairs of rows, moving and quantizing an operand as long as it has rows: their
    /// share grows where the other operand has few.
    pub fn cost_of(&self, pair: &PassNumerics, shape: &ProductShape) -> f64 {
        let moved =
            |numerics: &Numerics| self.bandwidth * numerics.bits_per_element(shape.depth) / 64.0;
        let prepared = |numerics: &Numerics| moved(numerics) + self.quantizing(numerics);
        let rows = |others: usize| self.reference as f64 / others.max(1) as f64;
        let cost = 1.0 / self.rate(pair)
            + prepared(&pair.left) * rows(shape.outer_right)
            + prepared(&pair.right) * rows(shape.outer_left);
        (cost * 1e6).round() / 1e6
    }

    /// The cost of a product of this depth whose operands have [`Target::reference`] rows each.
    pub fn cost(&self, pair: &PassNumerics, depth: usize) -> f64 {
        let shape = ProductShape {
            batch: 1,
            outer_left: self.reference,
            outer_right: self.reference,
            depth,
        };
        self.cost_of(pair, &shape)
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
                || self
                    .granularities
                    .iter()
                    .any(|native| native.takes(numerics.granularity))
        };
        let scaled = |numerics: &Numerics| {
            self.scales.is_empty()
                || !numerics.granularity.is_scaled()
                || self.scales.contains(&numerics.scale)
        };
        (formats(&pair.left, &pair.right) || formats(&pair.right, &pair.left))
            && [pair.left, pair.right]
                .iter()
                .all(|side| granular(side) && scaled(side))
    }
}
