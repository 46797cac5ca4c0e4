//! What follows from a pass's errors: the coarsest scales that suffice, and how to round.

use std::fmt;

use mantissa_formats::{Format, Rounding};
use mantissa_metrics::Estimate;
use mantissa_quant::{Granularity, Numerics, ScaleKind};

use super::{PassOutcome, median};
use crate::evaluate::PairError;
use crate::policy::Thresholds;

/// The coarsest granularity at which a format stays within the thresholds, and what the next finer one would add.
#[derive(Clone, Debug, PartialEq)]
pub struct GranularityAdvice {
    /// The format.
    pub format: Format,
    /// The granularity that suffices, or the finest one that does not.
    pub granularity: Granularity,
    /// Whether it suffices.
    pub suffices: bool,
    /// The metric that comes nearest to its bound there.
    pub tightest: String,
    /// The upper end of its confidence interval; infinite where the samples are too few for one.
    pub high: f64,
    /// Its bound.
    pub bound: f64,
    /// The median backward error there.
    pub backward_error: f64,
    /// The next finer granularity.
    pub finer: Option<Finer>,
}

/// What a finer granularity would add.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finer {
    /// The granularity.
    pub granularity: Granularity,
    /// By how much it divides the median backward error.
    pub gain: f64,
    /// How many bits it adds to an element.
    pub bits: f64,
}

/// What rounding stochastically would change: the bias that nearest rounding has, against the noise that it saves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoundingAdvice {
    /// The numerics, rounded to nearest.
    pub numerics: Numerics,
    /// The product's bias when rounded to nearest, in units of |L||R|.
    pub nearest_bias: Estimate,
    /// When rounded stochastically.
    pub stochastic_bias: Estimate,
    /// The standard deviation of the product's error when rounded to nearest, in the same units.
    pub nearest_deviation: f64,
    /// When rounded stochastically.
    pub stochastic_deviation: f64,
}

/// Advice on every format that was tried with more than one granularity, the same numerics for both operands, rounded
/// to nearest.
pub fn granularity_advice(
    outcome: &PassOutcome,
    thresholds: &Thresholds,
) -> Vec<GranularityAdvice> {
    let mut formats: Vec<Format> = Vec::new();
    for error in &outcome.pairs {
        let format = error.numerics.left.format;
        if !formats.contains(&format) {
            formats.push(format);
        }
    }
    formats
        .into_iter()
        .filter_map(|format| of_format(format, outcome, thresholds))
        .collect()
}

/// Advice on these numerics, if they were tried for both operands with either rounding.
pub fn rounding_advice(outcome: &PassOutcome, numerics: Numerics) -> Option<RoundingAdvice> {
    let rounded = |rounding| {
        outcome
            .same(Numerics {
                rounding,
                ..numerics
            })?
            .signed
    };
    let (nearest, stochastic) = (rounded(Rounding::Nearest)?, rounded(Rounding::Stochastic)?);
    Some(RoundingAdvice {
        numerics: Numerics {
            rounding: Rounding::Nearest,
            ..numerics
        },
        nearest_bias: nearest.bias,
        stochastic_bias: stochastic.bias,
        nearest_deviation: nearest.variance.sqrt(),
        stochastic_deviation: stochastic.variance.sqrt(),
    })
}

fn of_format(
    format: Format,
    outcome: &PassOutcome,
    thresholds: &Thresholds,
) -> Option<GranularityAdvice> {
    let bits = |numerics: Numerics| numerics.bits_per_element(outcome.depth);
    // From the coarsest: each granularity costs at least the bits of the one before.
    let mut tried: Vec<&PairError> = outcome
        .pairs
        .iter()
        .filter(|error| {
            let numerics = error.numerics.left;
            numerics == error.numerics.right
                && numerics == Numerics::scaled(format, numerics.granularity)
                && numerics.scale == ScaleKind::F32
        })
        .collect();
    tried.sort_by(|a, b| bits(a.numerics.left).total_cmp(&bits(b.numerics.left)));
    if tried.len() < 2 {
        return None;
    }
    let check = |error: &PairError| thresholds.tightest(outcome.pass, outcome.depth, error);
    let first = tried.iter().position(|error| check(error).used() <= 1.0);
    let here = first.unwrap_or(tried.len() - 1);
    let (error, tightest) = (tried[here], check(tried[here]));
    let numerics = error.numerics.left;
    Some(GranularityAdvice {
        format,
        granularity: numerics.granularity,
        suffices: first.is_some(),
        tightest: tightest.measure(),
        high: tightest.high,
        bound: tightest.bound,
        backward_error: median(error),
        finer: tried.get(here + 1).map(|finer| Finer {
            granularity: finer.numerics.left.granularity,
            gain: median(error) / median(finer),
            bits: bits(finer.numerics.left) - bits(numerics),
        }),
    })
}

impl GranularityAdvice {
    /// The numerics advised on.
    pub fn numerics(&self) -> Numerics {
        Numerics::scaled(self.format, self.granularity)
    }
}

impl RoundingAdvice {
    /// Whether nearest rounding leans to one side: its bias is told apart from none with 95 % confidence.
    pub fn is_biased(&self) -> bool {
        let interval = self.nearest_bias.interval;
        interval.is_some_and(|interval| interval.low > 0.0 || interval.high < 0.0)
    }

    /// How many products must be averaged before the bias of nearest rounding outweighs its noise, which falls with the
    /// square root of their number.
    pub fn products_until_bias(&self) -> f64 {
        (self.nearest_deviation / self.nearest_bias.value).powi(2)
    }
}

impl fmt::Display for GranularityAdvice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GranularityAdvice {
            format,
            granularity,
            tightest,
            high,
            bound,
            ..
        } = self;
        if !self.suffices {
            write!(f, "{format} does not suffice: even at {granularity} ")?;
            return if high.is_finite() {
                write!(f, "{tightest} may be {high:.2e}, beyond {bound:.2e}")
            } else {
                write!(
                    f,
                    "{tightest} has no upper bound from so few rows, or is not finite"
                )
            };
        }
        write!(
            f,
            "{format} suffices at {granularity}: {tightest} is at most {high:.2e} of {bound:.2e}"
        )?;
        match &self.finer {
            None => Ok(()),
            Some(finer) => write!(
                f,
                "; {} divides the backward error by {:.2} for {:.2} bits more",
                finer.granularity, finer.gain, finer.bits
            ),
        }
    }
}

impl fmt::Display for RoundingAdvice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Where nothing is lost, as by a constant, there is no noise to be a multiple of.
        let noise = if self.nearest_deviation > 0.0 {
            let factor = self.stochastic_deviation / self.nearest_deviation;
            format!("{factor:.2} times the noise")
        } else {
            format!("noise {:.2e}", self.stochastic_deviation)
        };
        write!(
            f,
            "{}: nearest has bias {} and noise {:.2e}, stochastic bias {} and {noise}; ",
            self.numerics,
            with_error(&self.nearest_bias),
            self.nearest_deviation,
            with_error(&self.stochastic_bias),
        )?;
        if self.nearest_bias.interval.is_none() {
            write!(f, "too few rows to tell a bias from none")
        } else if self.is_biased() {
            write!(
                f,
                "nearest leans to one side, which outweighs its noise once {:.0} products are averaged",
                self.products_until_bias().max(1.0)
            )
        } else {
            write!(f, "nearest shows no bias")
        }
    }
}

/// An estimate and its standard error.
fn with_error(estimate: &Estimate) -> String {
    match estimate.standard_error {
        Some(error) => format!("{:+.1e} ± {error:.1e}", estimate.value),
        None => format!("{:+.1e}", estimate.value),
    }
}
