//! Confidence intervals.

use serde::{Deserialize, Serialize};

/// A confidence interval, both ends included.
#[derive(Copy, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    #[serde(with = "crate::serial::unbounded")]
    pub low: f64,
    /// Upper end.
    #[serde(with = "crate::serial::unbounded")]
    pub high: f64,
}

/// TODO
pub fn quantile_interval(sorted: &[f64], quantile: f64, independent: usize, confidence: f64) -> Option<Interval> {
    let _ = (sorted, quantile, independent, confidence);
    todo!()
}

/// TODO
pub fn mean_interval(values: &[f64], confidence: f64) -> Option<Interval> {
    let _ = (values, confidence);
    todo!()
}
