//! What numerics do to one operand.

use mantissa_metrics::{ErrorSums, Estimate};
use serde::Serialize;

use crate::noise::STANDARD_ERRORS;

/// What numerics do to one operand.
///
/// Estimates have the standard errors and intervals that the scatter from row to row gives; they are `None` where
/// they are undefined: for an operand of zeros, where nothing is lost (`sqnr_db`), or where an element became infinite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct OperandError {
    /// The share of elements that were not zero and became zero.
    pub underflow: Share,
    /// The share of elements that were clipped: past the edge at which the largest finite value is no longer nearest.
    pub saturation: Share,
    /// Magnitude of the mean error as a share of the mean magnitude.
    pub bias: Share,
    /// The mean error with its sign, as a share of the mean magnitude.
    pub signed_bias: Option<Estimate>,
    /// Mean squared error.
    pub mse: Option<Estimate>,
    /// Signal to quantization noise in decibels.
    pub sqnr_db: Option<Estimate>,
    /// Cosine of the angle between the operand and its quantized form.
    pub cosine: Option<Estimate>,
    /// The share of the squared error that clipping makes; rounding makes the rest.
    pub clipping: Option<Estimate>,
}

/// A share and the upper end of its confidence interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Share {
    /// The estimate from the samples.
    pub estimate: f64,
    /// Normal approximation of the 95 % confidence interval's upper end.
    pub high: f64,
}

impl Share {
    /// A share of `total` elements.
    fn of_elements(estimate: f64, total: u64) -> Self {
        let standard_error = (estimate * (1.0 - estimate) / total.max(1) as f64)
            .max(0.0)
            .sqrt();
        Share {
            estimate,
            high: estimate + STANDARD_ERRORS * standard_error,
        }
    }
}

impl OperandError {
    /// Over rows that are drawn independently.
    pub(super) fn of(rows: &[ErrorSums]) -> Self {
        let mut sums = ErrorSums::default();
        rows.iter().for_each(|row| sums.merge(row));
        let error = sums.finish();
        let relative = |bias: f64| {
            if error.magnitude > 0.0 {
                bias / error.magnitude
            } else {
                0.0
            }
        };
        let standard_error =
            ((error.mse - error.bias * error.bias).max(0.0) / error.count.max(1) as f64).sqrt();
        let bounded = sums.overflowed == 0;
        // A ratio of two sums: each row moves it by what its numerator has beyond its share.
        let ratio = |part: fn(&ErrorSums) -> f64, whole: fn(&ErrorSums) -> f64| {
            let (above, below) = (part(&sums), whole(&sums));
            (bounded && below > 0.0).then(|| {
                let value = above / below;
                let influences = rows
                    .iter()
                    .map(|row| (part(row) - value * whole(row)) / below);
                Estimate::from_rows(value, influences)
            })
        };
        OperandError {
            underflow: Share::of_elements(error.underflow, sums.total),
            saturation: Share::of_elements(error.saturation, sums.total),
            bias: Share {
                estimate: relative(error.bias.abs()),
                high: relative(error.bias.abs() + STANDARD_ERRORS * standard_error),
            },
            signed_bias: ratio(|row| row.error, |row| row.magnitude),
            mse: ratio(|row| row.noise, |row| row.count as f64),
            sqnr_db: error.sqnr_db.filter(|db| db.is_finite()).map(|sqnr| {
                let decibels = 10.0 / std::f64::consts::LN_10;
                let influences = rows
                    .iter()
                    .map(|row| decibels * (row.signal / sums.signal - row.noise / sums.noise));
                Estimate::from_rows(sqnr, influences)
            }),
            cosine: error.cosine.map(|cosine| {
                let influences = rows.iter().map(|row| {
                    row.dot / (sums.signal * sums.quantized).sqrt()
                        - 0.5 * cosine * (row.signal / sums.signal + row.quantized / sums.quantized)
                });
                Estimate::from_rows(cosine, influences).below_one()
            }),
            clipping: ratio(|row| row.clipped, |row| row.noise),
        }
    }
}
