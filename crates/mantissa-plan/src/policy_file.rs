//! A policy as a TOML file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::candidates::Candidates;
use crate::cost::{Target, TargetError};
use crate::file;
use crate::policy::{Choice, Policy, Thresholds};
use crate::toml_text::{self, TomlFault};

/// The version of the policy file this crate reads.
pub const SCHEMA: u32 = 1;

/// Far more than a policy needs.
const LARGEST: u64 = 1 << 20;

/// Why a policy cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("cannot read the policy {}: {source}", .path.display())]
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
        fault: Box<PolicyError>,
    },
    /// The file is not text.
    #[error("the policy is not UTF-8 text")]
    NotText,
    /// The text is not a policy.
    #[error("the policy cannot be read: {0}")]
    Toml(#[from] TomlFault),
    /// Its target does not exist.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A budget without a number, or a number without a budget.
    #[error(
        "the policy's `choice` is `{choice}` and its `budget` is {budget}; a budget policy has both, as in choice = \"budget\" \
         and budget = 0.01, and a thresholds policy has no budget"
    )]
    Choice {
        /// How the choice is made.
        choice: &'static str,
        /// The budget, in words.
        budget: String,
    },
    /// A number makes no sense.
    #[error("the policy's {what} must be {expected}, not {found}")]
    Number {
        /// Which.
        what: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        found: f64,
    },
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ChoiceName {
    Thresholds,
    Budget,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyFile {
    schema: u32,
    choice: Option<ChoiceName>,
    budget: Option<f64>,
    target: Option<String>,
    outputs: Option<usize>,
    seed: Option<u64>,
    hysteresis: Option<f64>,
    #[serde(default)]
    thresholds: Thresholds,
    candidates: Option<Candidates>,
}

impl PolicyFile {
    fn into_policy(self, target: Option<Target>) -> Result<Policy, PolicyError> {
        let target = match target {
            Some(target) => target,
            None => Target::named(self.target.as_deref().unwrap_or("emulate"))?,
        };
        let mut policy = Policy::of(target);
        policy.choice = match (self.choice, self.budget) {
            (Some(ChoiceName::Budget) | None, Some(budget)) => Choice::Budget(budget),
            (Some(ChoiceName::Thresholds) | None, None) => Choice::Thresholds,
            (Some(ChoiceName::Budget), None) => {
                return Err(PolicyError::Choice {
                    choice: "budget",
                    budget: "left out".to_string(),
                });
            }
            (Some(ChoiceName::Thresholds), Some(budget)) => {
                return Err(PolicyError::Choice {
                    choice: "thresholds",
                    budget: budget.to_string(),
                });
            }
        };
        policy.thresholds = self.thresholds;
        policy.candidates = self.candidates.unwrap_or(policy.candidates);
        policy.outputs = self.outputs.unwrap_or(policy.outputs);
        policy.seed = self.seed.unwrap_or(policy.seed);
        policy.hysteresis = self.hysteresis.unwrap_or(policy.hysteresis);
        policy.check()?;
        Ok(policy)
    }
}

impl Policy {
    /// Reads a policy from TOML; what is left out takes its default. `target` counts instead of the one that the policy
    /// names.
    ///
    /// ```
    /// use mantissa_plan::{Choice, Policy};
    ///
    /// let policy = Policy::from_toml(r#"
    ///     schema = 1
    ///     choice = "budget"
    ///     budget = 0.02              # of a step's progress
    ///     target = "h100"
    ///
    ///     [thresholds]
    ///     gradient_bias = 1e-3
    ///     bias = inf                 # no bound
    /// "#, None)?;
    /// assert_eq!(policy.choice, Choice::Budget(0.02));
    /// assert_eq!(policy.thresholds.saturation, 1e-3);
    /// # Ok::<(), mantissa_plan::PolicyError>(())
    /// ```
    ///
    /// # Errors
    /// If it is not a policy, or its numbers make no sense.
    pub fn from_toml(text: &str, target: Option<Target>) -> Result<Policy, PolicyError> {
        toml_text::parse::<PolicyFile>(text, SCHEMA)?.into_policy(target)
    }

    /// Reads a policy that is a table of another file: what a policy file has, without `schema`.
    ///
    /// # Errors
    /// As [`Policy::from_toml`].
    pub fn from_table(mut table: toml::Table) -> Result<Policy, PolicyError> {
        table.insert("schema".to_owned(), i64::from(SCHEMA).into());
        toml_text::from_table::<PolicyFile>(table)?.into_policy(None)
    }

    /// Reads a policy file, with `target` instead of the one it names.
    ///
    /// # Errors
    /// As [`Policy::from_toml`], and if the file cannot be read.
    pub fn load(path: impl AsRef<Path>, target: Option<Target>) -> Result<Policy, PolicyError> {
        let path = path.as_ref();
        let in_file = |fault| PolicyError::InFile {
            path: path.to_path_buf(),
            fault: Box::new(fault),
        };
        let bytes = file::read_at_most(path, LARGEST).map_err(|source| PolicyError::Read {
            path: path.to_path_buf(),
            source,
        })?;
        let text = String::from_utf8(bytes).map_err(|_| in_file(PolicyError::NotText))?;
        Policy::from_toml(&text, target).map_err(in_file)
    }

    fn check(&self) -> Result<(), PolicyError> {
        let bound = "at least 0, or inf for no bound";
        let thresholds = &self.thresholds;
        let bounds = [
            ("forward_backward_error", thresholds.forward_backward_error),
            (
                "gradient_backward_error",
                thresholds.gradient_backward_error,
            ),
            ("underflow", thresholds.underflow),
            ("gradient_underflow", thresholds.gradient_underflow),
            ("saturation", thresholds.saturation),
            ("bias", thresholds.bias),
            ("gradient_bias", thresholds.gradient_bias),
        ];
        let bounds = bounds.map(|(what, found)| (what, bound, found, found >= 0.0));
        let share = "a share, from 0 to below 1";
        let others = [
            (
                "hysteresis",
                share,
                self.hysteresis,
                (0.0..1.0).contains(&self.hysteresis),
            ),
            (
                "reference_depth",
                "at least 1",
                thresholds.reference_depth as f64,
                thresholds.reference_depth > 0,
            ),
            (
                "outputs",
                "at least 1",
                self.outputs as f64,
                self.outputs > 0,
            ),
        ];
        match bounds.into_iter().chain(others).find(|&(.., holds)| !holds) {
            None => Ok(()),
            Some((what, expected, found, _)) => Err(PolicyError::Number {
                what,
                expected,
                found,
            }),
        }
    }
}
