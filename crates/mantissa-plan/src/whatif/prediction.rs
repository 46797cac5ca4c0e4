//! Which format the weight of the tails promises to be best, and which one is.
//!
//! The heavier the tails, the more a format gains from exponent bits; the finer the scales, the heavier tails must be
//! for that. So the best 8-bit format follows from granularity and tail weight: Rasquinha and Tabak 2024 (arXiv
//! 2408.02897, section IV) show it for one scale a tensor, the table below goes on from there.

use std::fmt;

use mantissa_formats::{Format, Rounding};
use mantissa_quant::{Granularity, Numerics};

use super::{PassOutcome, median};

/// The 8-bit formats that need a scale.
pub const FORMATS: [Format; 3] = [Format::INT8, Format::E4M3, Format::E5M2];
/// The granularities they are told apart at, from one scale to many.
pub const GRANULARITIES: [Granularity; 4] = [
    Granularity::Tensor,
    Granularity::Channel,
    Granularity::Block(128),
    Granularity::Block(32),
];

/// The tail weights of [`ERRORS`], from Cauchy to normal.
const NUS: [f64; 8] = [1.0, 2.0, 3.0, 5.0, 8.0, 15.0, 30.0, f64::INFINITY];
/// Median backward errors of 512 x 512 products of Student-t matrices, rounded to nearest, by degrees of freedom: for each
/// of [`GRANULARITIES`] those of [`FORMATS`]. `cargo run --release -p mantissa-metrics --example backward_error_table`
/// prints them.
const ERRORS: [[f64; 12]; 8] = [
    [
        3.303e-1, 9.447e-2, 1.816e-2, 5.900e-2, 8.183e-3, 1.629e-2, 2.758e-2, 7.295e-3, 1.458e-2,
        1.052e-2, 5.660e-3, 1.128e-2,
    ],
    [
        8.116e-2, 3.409e-3, 6.773e-3, 4.008e-3, 3.166e-3, 6.305e-3, 2.563e-3, 2.916e-3, 5.799e-3,
        1.476e-3, 2.474e-3, 4.942e-3,
    ],
    [
        2.072e-2, 2.448e-3, 4.871e-3, 1.685e-3, 2.341e-3, 4.652e-3, 1.186e-3, 2.210e-3, 4.391e-3,
        7.745e-4, 1.955e-3, 3.891e-3,
    ],
    [
        4.057e-3, 2.035e-3, 4.048e-3, 9.326e-4, 1.982e-3, 3.940e-3, 7.158e-4, 1.910e-3, 3.793e-3,
        5.175e-4, 1.732e-3, 3.455e-3,
    ],
    [
        1.902e-3, 1.892e-3, 3.767e-3, 7.058e-4, 1.860e-3, 3.708e-3, 5.710e-4, 1.807e-3, 3.594e-3,
        4.364e-4, 1.662e-3, 3.316e-3,
    ],
    [
        1.156e-3, 1.819e-3, 3.619e-3, 5.857e-4, 1.797e-3, 3.578e-3, 4.915e-4, 1.751e-3, 3.487e-3,
        3.915e-4, 1.622e-3, 3.236e-3,
    ],
    [
        9.099e-4, 1.785e-3, 3.550e-3, 5.327e-4, 1.767e-3, 3.515e-3, 4.568e-4, 1.726e-3, 3.445e-3,
        3.717e-4, 1.603e-3, 3.199e-3,
    ],
    [
        7.372e-4, 1.748e-3, 3.479e-3, 4.871e-4, 1.739e-3, 3.465e-3, 4.264e-4, 1.703e-3, 3.389e-3,
        3.541e-4, 1.588e-3, 3.173e-3,
    ],
];

/// What tail weights promise for a product, beside what was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Degrees of freedom of the operands.
    pub nu: [f64; 2],
    /// The best format at each granularity that was tried.
    pub winners: Vec<Winner>,
}

/// The best format at one granularity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Winner {
    /// The granularity.
    pub granularity: Granularity,
    /// The format with the smallest error that the table promises.
    pub predicted: Format,
    /// The one with the smallest measured error.
    pub measured: Format,
}

/// The backward error that Student-t operands with these degrees of freedom would have at depth 512.
///
/// Between the tabulated tail weights its logarithm is interpolated linearly in 1/ν, and beyond the heaviest it is that
/// of the heaviest. Errors of the two operands add like independent noise, each making half the variance of a product of
/// two operands like itself. `None` for a format or granularity that is not in the table.
pub fn predict(nu: [f64; 2], format: Format, granularity: Granularity) -> Option<f64> {
    let format = FORMATS.iter().position(|&known| known == format)?;
    let granularity = GRANULARITIES
        .iter()
        .position(|&known| known == granularity)?;
    let column = granularity * FORMATS.len() + format;
    let squares = nu.map(|nu| interpolated(nu, column).powi(2));
    Some(((squares[0] + squares[1]) / 2.0).sqrt())
}

/// The degrees of freedom below which E4M3 has a smaller error than INT8 at this granularity, where both operands have
/// them; `None` if it is not in the table.
pub fn crossover(granularity: Granularity) -> Option<f64> {
    let gain = |inverse: f64| {
        let nu = [1.0 / inverse; 2];
        let error = |format| predict(nu, format, granularity);
        Some(error(Format::INT8)?.ln() - error(Format::E4M3)?.ln())
    };
    // INT8's lead shrinks all the way from the normal to the Cauchy distribution.
    let (mut light, mut heavy) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (light + heavy);
        if gain(middle)? < 0.0 {
            light = middle;
        } else {
            heavy = middle;
        }
    }
    Some(2.0 / (light + heavy))
}

fn interpolated(nu: f64, column: usize) -> f64 {
    let at = |row: usize| (1.0 / NUS[row], ERRORS[row][column].ln());
    let row = NUS.partition_point(|&tabulated| tabulated < nu);
    let Some(heavier) = row.checked_sub(1) else {
        return ERRORS[0][column];
    };
    let ((x0, y0), (x1, y1)) = (at(heavier), at(row));
    (y0 + (y1 - y0) * (1.0 / nu - x0) / (x1 - x0)).exp()
}

/// What the tail weights of a pass's operands promise, at the granularities at which [`FORMATS`] were all tried, the
/// same for both operands. `None` where an operand has no fitted tail weight, or nothing was tried.
pub fn prediction(outcome: &PassOutcome) -> Option<Prediction> {
    let [Some(left), Some(right)] = outcome.nu else {
        return None;
    };
    let nu = [left, right];
    let best = |error: &dyn Fn(Format) -> Option<f64>| {
        let errors: Option<Vec<(Format, f64)>> = FORMATS
            .iter()
            .map(|&format| Some((format, error(format)?)))
            .collect();
        let best = errors?.into_iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
        best.1.is_finite().then_some(best.0)
    };
    let winners: Vec<Winner> = GRANULARITIES
        .into_iter()
        .filter_map(|granularity| {
            let tried = |format| {
                let numerics = Numerics {
                    rounding: Rounding::Nearest,
                    ..Numerics::scaled(format, granularity)
                };
                outcome.same(numerics).map(median)
            };
            Some(Winner {
                granularity,
                predicted: best(&|format| predict(nu, format, granularity))?,
                measured: best(&tried)?,
            })
        })
        .collect();
    (!winners.is_empty()).then_some(Prediction { nu, winners })
}

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [left, right] = self.nu;
        write!(f, "tails of ν = {left:.1} and {right:.1} promise")?;
        for (index, winner) in self.winners.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma} {} at {}", winner.predicted, winner.granularity)?;
            if winner.measured != winner.predicted {
                write!(f, " (measured: {})", winner.measured)?;
            }
        }
        let agree = self.winners.iter().all(|w| w.measured == w.predicted);
        write!(f, "{}", if agree { "; measured: the same" } else { "" })
    }
}
