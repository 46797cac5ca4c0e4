//! The distributions that tensors are held against.

use std::f64::consts::{PI, SQRT_2};
use std::fmt;

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};
use statrs::function::erf::erfc;
use statrs::function::gamma::ln_gamma;

use crate::student::StudentT;

/// A distribution of the elements of a tensor.
#[derive(Copy, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "distribution", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Distribution {
    /// Tails that fall like `exp(-x^2)`.
    Normal {
        /// The mean.
        mean: f64,
        /// The standard deviation.
        deviation: f64,
    },
    /// Tails that fall like `exp(-|x|)`.
    Laplace {
        /// The median.
        location: f64,
        /// The mean distance from it.
        scale: f64,
    },
    /// Tails that fall like `|x|^-(nu + 1)`.
    StudentT(StudentT),
    /// Magnitudes whose logarithm is normal, with a sign that does not depend on them.
    LogNormal {
        /// The mean of the natural logarithm of the magnitudes.
        log_mean: f64,
        /// Its standard deviation.
        log_deviation: f64,
        /// The share of positive elements.
        positive: f64,
    },
}

impl Distribution {
    /// `normal`, `laplace`, `student-t` or `log-normal`.
    pub const fn name(&self) -> &'static str {
        match self {
            Distribution::Normal { .. } => "normal",
            Distribution::Laplace { .. } => "laplace",
            Distribution::StudentT(_) => "student-t",
            Distribution::LogNormal { .. } => "log-normal",
        }
    }

    /// How many parameters were fitted.
    pub const fn parameters(&self) -> u32 {
        match self {
            Distribution::Normal { .. } | Distribution::Laplace { .. } => 2,
            Distribution::StudentT(_) | Distribution::LogNormal { .. } => 3,
        }
    }

    /// The share of elements that are at most `x`.
    pub fn cdf(&self, x: f64) -> f64 {
        match *self {
            Distribution::Normal { mean, deviation } => normal_cdf((x - mean) / deviation),
            Distribution::Laplace { location, scale } => {
                let z = (x - location) / scale;
                let tail = 0.5 * (-z.abs()).exp();
                if z < 0.0 { tail } else { 1.0 - tail }
            }
            Distribution::StudentT(StudentT {
                nu,
                location,
                scale,
            }) => StudentsT::new(0.0, 1.0, nu).map_or(f64::NAN, |t| t.cdf((x - location) / scale)),
            Distribution::LogNormal {
                log_mean,
                log_deviation,
                positive,
            } => {
                let below =
                    |magnitude: f64| normal_cdf((magnitude.ln() - log_mean) / log_deviation);
                if x < 0.0 {
                    (1.0 - positive) * (1.0 - below(-x))
                } else {
                    1.0 - positive + positive * below(x)
                }
            }
        }
    }

    /// The mean natural logarithm of the density at the elements of `sample`.
    pub fn log_likelihood(&self, sample: &[f64]) -> f64 {
        let mean = |f: &dyn Fn(f64) -> f64| {
            sample.iter().map(|&x| f(x)).sum::<f64>() / sample.len() as f64
        };
        match *self {
            Distribution::Normal {
                mean: centre,
                deviation,
            } => {
                let squares = mean(&|x| ((x - centre) / deviation).powi(2));
                -deviation.ln() - 0.5 * (2.0 * PI).ln() - 0.5 * squares
            }
            Distribution::Laplace { location, scale } => {
                -(2.0 * scale).ln() - mean(&|x| (x - location).abs() / scale)
            }
            Distribution::StudentT(StudentT {
                nu,
                location,
                scale,
            }) => {
                let tails = mean(&|x| (((x - location) / scale).powi(2) / nu).ln_1p());
                student_log_factor(nu) - scale.ln() - 0.5 * (nu + 1.0) * tails
            }
            Distribution::LogNormal {
                log_mean,
                log_deviation,
                positive,
            } => {
                let each = |x: f64| {
                    let log = x.abs().ln();
                    let sign = if x > 0.0 { positive } else { 1.0 - positive };
                    sign.ln() - log - 0.5 * ((log - log_mean) / log_deviation).powi(2)
                };
                mean(&each) - log_deviation.ln() - 0.5 * (2.0 * PI).ln()
            }
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Logarithm of the factor that makes the standard Student-t density integrate to one.
pub(crate) fn student_log_factor(nu: f64) -> f64 {
    ln_gamma(0.5 * (nu + 1.0)) - ln_gamma(0.5 * nu) - 0.5 * (nu * PI).ln()
}

fn normal_cdf(z: f64) -> f64 {
    0.5 * erfc(-z / SQRT_2)
}
