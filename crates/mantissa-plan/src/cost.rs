//! What a pair of numerics costs on a named target.

use mantissa_quant::Numerics;
use serde::{Deserialize, Serialize};

/// A machine, as far as the price of products goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// A short name.
    pub name: String,
}

/// Why a target cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {}

impl Target {
    /// The names of the built-in targets.
    pub fn preset_names() -> impl Iterator<Item = &'static str> {
        [].into_iter()
    }

    /// The built-in target of this name.
    pub fn preset(name: &str) -> Result<Target, TargetError> {
        todo!("{name}")
    }

    /// The cost of a product of this depth, in units of the f32 product.
    pub fn cost(&self, left: &Numerics, right: &Numerics, depth: usize) -> f64 {
        let _ = (left, right, depth);
        todo!()
    }
}
