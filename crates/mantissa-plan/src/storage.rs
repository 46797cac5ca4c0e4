//! How the weights of sites and their gradients lie in memory between the passes that compute with them.

use std::fmt;
use std::str::FromStr;

use globset::{Glob, GlobMatcher};
use mantissa_formats::Format;
use mantissa_quant::{AmaxPolicy, Granularity, Numerics, ParseNumericsError};
use serde::{Deserialize, Serialize};

use crate::names;
use crate::site::{Site, SiteKind};

/// How a tensor lies in memory. Arithmetic is always in f32: what is read is widened, what is written is rounded.
///
/// ```
/// use mantissa_plan::Storage;
///
/// let master: Storage = "fp16/stochastic".parse()?;
/// assert_eq!(master.bytes_per_element(), 2.0);
/// assert_eq!("bf16+16".parse::<Storage>()?, Storage::SplitBf16);
/// assert!("fp16/tensor".parse::<Storage>().is_err()); // 16-bit formats are stored without scales
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Storage {
    /// `fp32`: as computed.
    #[default]
    Fp32,
    /// `bf16+16`: a BF16 number, which is what products read, and the 16 bits that make it the exact f32 again, which
    /// only updates read. The BF16 number is rounded to nearest, ties away from zero.
    SplitBf16,
    /// Rounded to these numerics, and nothing wider is kept. Of at most 8 bits with any scales, or FP16 or BF16 without.
    /// A row of a weight is what shares an index of its first axis (an input feature of a linear layer, an output channel
    /// of a convolution, an entry of a table): `channel` is a scale a row, blocks lie along rows.
    Rounded(Numerics),
}

/// A text that says no storage.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseStorageError {
    /// It is no numerics either.
    #[error("{0}; a storage is `fp32`, `bf16+16`, or a numerics")]
    Numerics(#[from] ParseNumericsError),
    /// A numerics that has no place in memory.
    #[error(
        "`{0}` is no storage: a format of at most 8 bits is stored with any scales of its own, fp16 and bf16 without; write for \
         example fp16/stochastic, bf16+16 or e4m3/tensor/stochastic"
    )]
    Unstorable(Numerics),
}

impl Storage {
    /// The storage of these numerics.
    ///
    /// # Errors
    /// If they are neither of at most 8 bits nor FP16, BF16 or FP32 without scales, or if their scaling is delayed.
    pub fn rounded(numerics: Numerics) -> Result<Self, ParseStorageError> {
        let plain = numerics.granularity == Granularity::Unscaled;
        let half = [Format::FP16, Format::BF16].contains(&numerics.format);
        let own_amax = numerics.amax == AmaxPolicy::Dynamic;
        if numerics.is_fp32() {
            Ok(Self::Fp32)
        } else if numerics.format.bits() <= 8 && own_amax || plain && half {
            Ok(Self::Rounded(numerics))
        } else {
            Err(ParseStorageError::Unstorable(numerics))
        }
    }

    /// Bytes of an element, without scales.
    pub fn bytes_per_element(&self) -> f64 {
        match self {
            Self::Fp32 | Self::SplitBf16 => 4.0,
            Self::Rounded(numerics) if numerics.format.bits() <= 8 => 1.0,
            Self::Rounded(_) => 2.0,
        }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fp32 => f.write_str("fp32"),
            Self::SplitBf16 => f.write_str("bf16+16"),
            Self::Rounded(numerics) => write!(f, "{numerics}"),
        }
    }
}

impl FromStr for Storage {
    type Err = ParseStorageError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "bf16+16" => Ok(Self::SplitBf16),
            text => Self::rounded(text.parse()?),
        }
    }
}

impl TryFrom<String> for Storage {
    type Error = ParseStorageError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Storage> for String {
    fn from(storage: Storage) -> Self {
        storage.to_string()
    }
}

/// The storage of a model's weights and of their gradients: those of sites, and of at least
/// [`min_elements`](Self::min_elements); everything else stays f32.
///
/// In TOML:
///
/// ```
/// use mantissa_plan::{Recipe, Site, SiteKind, Storage};
///
/// let recipe = Recipe::from_toml(r#"
///     schema = 1
///     name = "lean"
///
///     [storage]
///     parameters = "fp16/stochastic"
///     gradients = "e4m3/tensor"
///
///     [[storage.rules]]             # the head keeps a master of f32 precision
///     sites = "decoder"
///     parameters = "bf16+16"
/// "#)?;
/// let sites = ["encoder.query", "decoder"].map(|name| Site::new(name, SiteKind::Linear));
/// let stored = recipe.storage.assign(&sites)?;
/// assert_eq!(stored[0].parameters, "fp16/stochastic".parse()?);
/// assert_eq!(stored[1].parameters, Storage::SplitBf16);
/// assert_eq!(stored[1].gradients, "e4m3/tensor".parse()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageTable {
    /// Of weights.
    pub parameters: Storage,
    /// Of the gradients of the weights of linear layers and of tables, from the backward pass to the update; those of
    /// convolutions stay f32. `bf16+16` would keep bits that nothing reads and is refused.
    pub gradients: Storage,
    /// Smaller tensors stay f32.
    pub min_elements: usize,
    /// Exceptions; the first that matches a site decides it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<StorageRule>,
}

/// Sites whose weights are stored otherwise; what is not named is as in the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageRule {
    /// A glob over the names of sites; `*` also spans dots.
    pub sites: String,
    /// Of their weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Storage>,
    /// Of the gradients of their weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradients: Option<Storage>,
}

/// How the weight of one site is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SiteStorage {
    /// The weight.
    pub parameters: Storage,
    /// Its gradient.
    pub gradients: Storage,
}

/// Why a storage table cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Gradients of 32 bits in two parts.
    #[error(
        "gradients are stored as `bf16+16`, whose second half nothing reads; write `fp32` or `bf16`"
    )]
    SplitGradients,
    /// A rule's glob is not one.
    #[error("storage rule {rule}: `{sites}` is not a glob: {fault}")]
    Glob {
        /// The rule's number, from 1.
        rule: usize,
        /// Its glob.
        sites: String,
        /// What is wrong with it.
        fault: String,
    },
    /// A rule decides no site that has a weight.
    #[error(
        "storage rule {rule} (`{sites}`) matches no site that has a weight and is not decided by an earlier rule; \
         {nearest}"
    )]
    MatchesNothing {
        /// The rule's number, from 1.
        rule: usize,
        /// Its glob.
        sites: String,
        /// The nearest names, in words.
        nearest: String,
    },
}

impl Default for StorageTable {
    fn default() -> Self {
        Self {
            parameters: Storage::Fp32,
            gradients: Storage::Fp32,
            min_elements: 4096,
            rules: Vec::new(),
        }
    }
}

impl StorageTable {
    /// Whether nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The storages of weights that it names.
    pub(crate) fn parameter_storages(&self) -> impl Iterator<Item = Storage> {
        let others = self.rules.iter().filter_map(|rule| rule.parameters);
        std::iter::once(self.parameters).chain(others)
    }

    /// The storages of gradients that it names.
    pub(crate) fn gradient_storages(&self) -> impl Iterator<Item = Storage> {
        let others = self.rules.iter().filter_map(|rule| rule.gradients);
        std::iter::once(self.gradients).chain(others)
    }

    /// Checks what does not depend on the model.
    ///
    /// # Errors
    /// If gradients are to be split, or a rule's glob is not one.
    pub fn check(&self) -> Result<(), StorageError> {
        let split = |storage| storage == Storage::SplitBf16;
        if self.gradient_storages().any(split) {
            return Err(StorageError::SplitGradients);
        }
        self.globs().map(drop)
    }

    /// The storage of every site, in the order of `sites`; products of activations have no weight and get `fp32`.
    ///
    /// # Errors
    /// As [`check`](Self::check), and if a rule decides no site.
    pub fn assign(&self, sites: &[Site]) -> Result<Vec<SiteStorage>, StorageError> {
        self.check()?;
        let globs = self.globs()?;
        let mut used = vec![false; globs.len()];
        let mut of = |site: &Site| {
            if site.kind == SiteKind::Matmul {
                return SiteStorage::default();
            }
            let found = globs.iter().position(|glob| glob.is_match(&site.name));
            let rule = found.map(|index| {
                used[index] = true;
                &self.rules[index]
            });
            SiteStorage {
                parameters: rule
                    .and_then(|rule| rule.parameters)
                    .unwrap_or(self.parameters),
                gradients: rule
                    .and_then(|rule| rule.gradients)
                    .unwrap_or(self.gradients),
            }
        };
        let assigned = sites.iter().map(&mut of).collect();
        match used.iter().position(|used| !used) {
            None => Ok(assigned),
            Some(index) => {
                let pattern = &self.rules[index].sites;
                let weights = sites.iter().filter(|site| site.kind != SiteKind::Matmul);
                let ranked = names::ranked(pattern, weights.map(|site| site.name.as_str()));
                Err(StorageError::MatchesNothing {
                    rule: index + 1,
                    sites: pattern.clone(),
                    nearest: match ranked.is_empty() {
                        true => "the model has no such site".to_string(),
                        false => format!("the nearest names are {}", names::listed(&ranked, 3)),
                    },
                })
            }
        }
    }

    fn globs(&self) -> Result<Vec<GlobMatcher>, StorageError> {
        let compiled = |(index, rule): (usize, &StorageRule)| match Glob::new(&rule.sites) {
            Ok(glob) => Ok(glob.compile_matcher()),
            Err(fault) => Err(StorageError::Glob {
                rule: index + 1,
                sites: rule.sites.clone(),
                fault: fault.kind().to_string(),
            }),
        };
        self.rules.iter().enumerate().map(compiled).collect()
    }
}
