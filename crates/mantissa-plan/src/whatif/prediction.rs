//! Which format the weight of the tails promises to be best, and which one is.
//!
//! The heavier the tails, the more a format gains from exponent bits; the finer the scales, the heavier tails must be
//! for that. So the best 8-bit format follows from granularity and tail weight: Rasquinha and Tabak 2024 (arXiv
//! 2408.02897, section IV) show it for one scale a tensor, the table below goes on from there.

use std::fmt;

use mantissa_formats::{Format, Rounding};
use mantissa_quant::{Granularity, Numerics};

use super::{PassOutcome, median};

/// The formats that are told apart.
pub const FORMATS: [Format; 3] = [Format::INT8, Format::E4M3, Format::E5M2];
/// The granularities they are told apart at.
pub const GRANULARITIES: [Granularity; 4] = [
    Granularity::Tensor,
    Granularity::Channel,
    Granularity::Block(128),
    Granularity::Block(32),
];

/// Median backward errors of 512 x 512 products of Student-t matrices, rounded to nearest: degrees of freedom, then for
/// each of [`GRANULARITIES`] those of [`FORMATS`]. `cargo run --release -p mantissa-metrics --example
/// backward_error_table` prints them.
const TABLE: [(f64, [[f64; 3]; 4]); 8] = [
    (
        1.0,
        [
            [0.333, 0.0692, 0.0183],
            [0.0611, 0.00822, 0.0163],
            [0.0282, 0.00732, 0.0146],
            [0.0107, 0.00569, 0.0114],
        ],
    ),
    (
        2.0,
        [
            [0.0580, 0.00340, 0.00677],
            [0.00407, 0.00317, 0.00629],
            [0.00259, 0.00292, 0.00580],
            [0.00148, 0.00247, 0.00492],
        ],
    ),
    (
        3.0,
        [
            [0.0221, 0.00244, 0.00485],
            [0.00166, 0.00234, 0.00464],
            [0.00117, 0.00220, 0.00438],
            [0.000768, 0.00195, 0.00388],
        ],
    ),
    (
        5.0,
        [
            [0.00320, 0.00203, 0.00405],
            [0.000929, 0.00198, 0.00395],
            [0.000713, 0.00190, 0.00380],
            [0.000517, 0.00173, 0.00346],
        ],
    ),
    (
        8.0,
        [
            [0.00179, 0.00190, 0.00376],
            [0.000702, 0.00186, 0.00370],
            [0.000568, 0.00180, 0.00360],
            [0.000435, 0.00166, 0.00331],
        ],
    ),
    (
        15.0,
        [
            [0.00106, 0.00182, 0.00362],
            [0.000582, 0.00180, 0.00357],
            [0.000491, 0.00175, 0.00348],
            [0.000391, 0.00162, 0.00323],
        ],
    ),
    (
        30.0,
        [
            [0.000822, 0.00178, 0.00354],
            [0.000531, 0.00176, 0.00351],
            [0.000456, 0.00172, 0.00343],
            [0.000371, 0.00160, 0.00319],
        ],
    ),
    (
        f64::INFINITY,
        [
            [0.000721, 0.00175, 0.00348],
            [0.000487, 0.00174, 0.00346],
            [0.000426, 0.00170, 0.00339],
            [0.000353, 0.00158, 0.00317],
        ],
    ),
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
    let squares = nu.map(|nu| interpolated(nu, granularity, format).powi(2));
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

fn interpolated(nu: f64, granularity: usize, format: usize) -> f64 {
    let at = |row: usize| (1.0 / TABLE[row].0, TABLE[row].1[granularity][format].ln());
    let inverse = 1.0 / nu;
    let row = TABLE.partition_point(|&(tabulated, _)| tabulated < nu);
    let Some(heavier) = row.checked_sub(1) else {
        return at(0).1.exp();
    };
    let ((x0, y0), (x1, y1)) = (at(heavier), at(row));
    (y0 + (y1 - y0) * (inverse - x0) / (x1 - x0)).exp()
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
