//! What was changed while a run trained: `decisions.jsonl`.

use std::path::Path;

use mantissa::plan::Pass;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json_lines::{self, JsonLines};
use crate::error::Error;

/// A decision.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Change {
    /// The first step under it.
    pub step: u64,
    /// `promoted`, `demoted`, `rolled_back` or `plan_changed`.
    pub kind: String,
    /// The site; absent where it is about the whole plan.
    pub site: Option<String>,
    /// The pass.
    pub pass: Option<Pass>,
    /// The numerics before, by operand; in words for a whole plan.
    #[serde(default)]
    pub from: Value,
    /// The numerics after.
    #[serde(default)]
    pub to: Value,
    /// The step that training went back to.
    pub to_step: Option<u64>,
    /// Why, in words.
    #[serde(default)]
    pub reason: String,
    /// The metric that was held against a bound.
    pub metric: Option<String>,
    /// Its value.
    pub value: Option<f64>,
    /// The bound.
    pub bound: Option<f64>,
}

/// Reads a decision log; `None` where there is none.
pub fn read(path: &Path) -> Result<Option<JsonLines<Change>>, Error> {
    json_lines::read(path)
}
