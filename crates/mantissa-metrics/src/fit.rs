//! Which distribution a tensor's elements are most like, and how like it.

use serde::{Deserialize, Serialize};

use crate::distribution::Distribution;
use crate::interval::Interval;
use crate::student::{self, LARGEST_SAMPLE, StudentT};

/// A distribution fitted by maximum likelihood, and how well it fits.
#[derive(Copy, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// The distribution.
    #[serde(flatten)]
    pub distribution: Distribution,
    /// The mean natural logarithm of its density at the elements: larger is better.
    pub log_likelihood: f64,
    /// Bayesian information criterion per element (Schwarz 1978): `k ln(n) / n − 2 log_likelihood` with k parameters and n
    /// elements; smaller is better.
    pub bic: f64,
    /// Kolmogorov–Smirnov distance: the largest difference between the share of elements below a value and the share that the
    /// distribution says. 0 is perfect; 0.1 says that up to a tenth of the elements are elsewhere.
    pub distance: f64,
}

/// The fits of one tensor, best first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fits {
    /// How many elements were looked at.
    pub count: usize,
    /// The four distributions by ascending [`bic`](Fit::bic).
    pub ranked: Vec<Fit>,
    /// The confidence interval of the Student-t's degrees of freedom.
    pub nu: Interval,
}

impl Fits {
    /// The distribution that the elements are most like.
    pub fn best(&self) -> &Fit {
        &self.ranked[0]
    }

    /// The Student-t, whatever its rank.
    pub fn student_t(&self) -> Option<&StudentT> {
        self.ranked.iter().find_map(|fit| match &fit.distribution {
            Distribution::StudentT(student_t) => Some(student_t),
            _ => None,
        })
    }
}

/// Fits a normal, a Laplace, a Student-t and a log-normal distribution (of the magnitudes) to the finite non-zero elements of
/// `sample`, and the confidence interval of the Student-t's degrees of freedom.
///
/// Zeros are left out because they are no part of a distribution of densities; their share says all about them. Of more than
/// 16384 elements that many are looked at, as by [`fit_student_t`](crate::fit_student_t).
///
/// The fits are ranked by the Bayesian information criterion. Likelihood alone would never rank a normal before the Student-t,
/// which contains it, and Akaike's criterion prefers the larger family for one in thirteen samples of the smaller. How
/// good the best fit is, in absolute terms, is said by its Kolmogorov–Smirnov distance, which does not depend on the size of the
/// sample nor on the unit. There is no p-value: elements of a tensor share rows and columns, so that none would be honest, and
/// with enough elements every tensor differs from every distribution significantly.
///
/// The interval of nu is that of the profile likelihood, which unlike a symmetric one knows that a light tail's nu has no upper
/// end: all nu whose log-likelihood falls short of the best by at most half the chi-squared quantile (Venzon and Moolgavkar 1988).
/// It takes the elements as independent; where rows differ in scale it is too narrow. An upper end beyond
/// [`StudentT::MAX_NU`] is infinite, a lower one below [`MIN_NU`](StudentT::MIN_NU) zero.
///
/// `None` for fewer than 16 such elements, if more than a third of them are one and the same value, or if `confidence` is
/// not strictly between 0 and 1.
///
/// ```
/// use mantissa_formats::RandomBits;
/// use mantissa_metrics::{fit_distributions, sample};
///
/// let values = sample::student_t(4.0, RandomBits::new(1, 0), 4096);
/// let fits = fit_distributions(&values, 0.95).unwrap();
/// assert_eq!(fits.best().distribution.name(), "student-t");
/// assert!(fits.best().distance < 0.02);
/// assert!(3.0 < fits.nu.low && fits.nu.high < 5.5);
/// ```
pub fn fit_distributions(sample: &[f32], confidence: f64) -> Option<Fits> {
    if !(confidence > 0.0 && confidence < 1.0) {
        return None;
    }
    let present: Vec<f32> = sample
        .iter()
        .copied()
        .filter(|x| x.is_finite() && *x != 0.0)
        .collect();
    let sorted = student::sorted_sample(&present, LARGEST_SAMPLE)?;
    let (student_t, nu) = student::fit_with_interval(&sorted, confidence);
    let distributions = [
        normal(&sorted),
        laplace(&sorted),
        Distribution::StudentT(student_t),
        log_normal(&sorted),
    ];
    let n = sorted.len() as f64;
    let mut ranked: Vec<Fit> = distributions
        .into_iter()
        .map(|distribution| {
            let log_likelihood = distribution.log_likelihood(&sorted);
            Fit {
                distribution,
                log_likelihood,
                bic: f64::from(distribution.parameters()) * n.ln() / n - 2.0 * log_likelihood,
                distance: distance(&sorted, &distribution),
            }
        })
        .collect();
    ranked.sort_by(|a, b| a.bic.total_cmp(&b.bic));
    Some(Fits {
        count: sorted.len(),
        ranked,
        nu,
    })
}

fn normal(sorted: &[f64]) -> Distribution {
    let (mean, deviation) = mean_and_deviation(sorted.iter().copied());
    Distribution::Normal { mean, deviation }
}

fn laplace(sorted: &[f64]) -> Distribution {
    let location = sorted[sorted.len() / 2];
    let distances = sorted.iter().map(|x| (x - location).abs());
    Distribution::Laplace {
        location,
        scale: distances.sum::<f64>() / sorted.len() as f64,
    }
}

fn log_normal(sorted: &[f64]) -> Distribution {
    let (log_mean, log_deviation) = mean_and_deviation(sorted.iter().map(|x| x.abs().ln()));
    let negative = sorted.partition_point(|&x| x < 0.0);
    Distribution::LogNormal {
        log_mean,
        log_deviation,
        positive: 1.0 - negative as f64 / sorted.len() as f64,
    }
}

/// Maximum-likelihood mean and standard deviation of a normal.
fn mean_and_deviation(values: impl ExactSizeIterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.clone().sum::<f64>() / n;
    let squares = values.map(|x| (x - mean) * (x - mean)).sum::<f64>();
    // Two values of one magnitude have logarithms without any spread.
    (mean, (squares / n).sqrt().max(f64::MIN_POSITIVE))
}

/// The Kolmogorov–Smirnov distance; equal elements are one step of the empirical distribution.
fn distance(sorted: &[f64], distribution: &Distribution) -> f64 {
    let n = sorted.len() as f64;
    let mut below = 0;
    let mut largest = 0f64;
    for run in sorted.chunk_by(|a, b| a == b) {
        let told = distribution.cdf(run[0]);
        let up_to = below + run.len();
        largest = largest
            .max(told - below as f64 / n)
            .max(up_to as f64 / n - told);
        below = up_to;
    }
    largest
}
