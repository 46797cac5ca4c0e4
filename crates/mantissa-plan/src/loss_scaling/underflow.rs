//! A scale that weighs underflow against overflow.

use mantissa_formats::Format;
use serde::{Deserialize, Serialize};

use super::bounds_problem;

/// Settings of *underflow-aware* loss scaling: the scale follows the exponents of the gradients instead of waiting for
/// overflows.
///
/// After each step, with the *room* the number of doublings that keep the largest gradient within `format`:
///
/// - after an overflow the scale is halved;
/// - with less room than `headroom`, it is halved as often as that takes, before anything overflows;
/// - where more than `max_underflow` of the gradients that are not zero are below half of `format`'s smallest value, and
///   so would become zero, in each of `raise_after` steps in a row, and the room is larger than `headroom`, it is doubled.
///
/// The gradients are those of the parameters, as they reach the optimizer. A power of two stays one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnderflowScaling {
    /// The first scale.
    pub init_scale: f32,
    /// The narrowest format that gradients pass through.
    pub format: Format,
    /// The share of non-zero gradients that may underflow, between 0 and 1.
    pub max_underflow: f64,
    /// Steps in a row with more underflow than that before the scale is doubled.
    pub raise_after: u32,
    /// Powers of two that are kept free between the largest gradient and the format's largest value.
    pub headroom: u32,
    /// The scale never falls below this.
    pub min_scale: f32,
    /// The scale never rises above this.
    pub max_scale: f32,
}

impl UnderflowScaling {
    /// For E5M2, FP16's neighbour with the same largest exponent and 256 times its smallest value. A scale of 2^32 is as high as
    /// any other scaler here begins.
    pub const DEFAULT: Self = Self {
        init_scale: 1024.0,
        format: Format::E5M2,
        max_underflow: 0.01,
        raise_after: 8,
        headroom: 2,
        min_scale: 1.0,
        max_scale: 4294967296.0,
    };

    pub(super) fn problem(&self) -> Option<String> {
        bounds_problem(self.init_scale, self.min_scale, self.max_scale).or_else(|| {
            if !(self.max_underflow > 0.0 && self.max_underflow < 1.0) {
                Some(format!(
                    "max_underflow must be between 0 and 1, not {}",
                    self.max_underflow
                ))
            } else if self.raise_after == 0 {
                Some("raise_after must be at least 1 step".to_string())
            } else if self.headroom > 16 {
                Some(format!(
                    "headroom must be at most 16 powers of two, not {}",
                    self.headroom
                ))
            } else if self.format.is_integer() || !self.format.is_signed() {
                Some(format!(
                    "gradients cannot be coded in {} without a scale of their own",
                    self.format
                ))
            } else {
                None
            }
        })
    }
}
