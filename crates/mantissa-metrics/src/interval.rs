//! Confidence intervals of quantiles and means.

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

/// Confidence interval of a quantile (0.5 is the median) from order statistics, without an
/// assumption about the distribution.
///
/// The number of draws below the true quantile is binomial; the ends are the order statistics that
/// this number leaves outside with probability at most `(1 - confidence) / 2` each (David and
/// Nagaraja, *Order Statistics*, section 7.1).
///
/// `independent` says how many of the values count as independent draws: pass `sorted.len()` for a
/// plain sample, fewer where values hang together (the elements of a product share rows). Each draw
/// then stands for a run of neighbours in rank, and the ends are taken at the outer end of the
/// runs.
///
/// `None` if the sample is too small for such a confidence (below 6 draws for a median at 95 %), or
/// if `quantile` or `confidence` is not strictly between 0 and 1. `sorted` must be ascending.
///
/// ```
/// use mantissa_metrics::quantile_interval;
///
/// let sorted: Vec<f64> = (1..=100).map(f64::from).collect();
/// let interval = quantile_interval(&sorted, 0.5, 100, 0.95).unwrap();
/// assert_eq!((interval.low, interval.high), (40.0, 61.0));
/// ```
pub fn quantile_interval(
    sorted: &[f64],
    quantile: f64,
    independent: usize,
    confidence: f64,
) -> Option<Interval> {
    let (low, high) = interval_ranks(sorted.len(), quantile, independent, confidence)?;
    Some(Interval {
        low: sorted[low],
        high: sorted[high],
    })
}

/// Where in the order of `count` values the ends of [`quantile_interval`] stand.
pub(crate) fn interval_ranks(
    count: usize,
    quantile: f64,
    independent: usize,
    confidence: f64,
) -> Option<(usize, usize)> {
    let inside = |p: f64| p > 0.0 && p < 1.0;
    let draws = independent.min(count);
    if draws == 0 || !inside(quantile) || !inside(confidence) {
        return None;
    }
    let (low, high) = binomial_ranks(draws, quantile, (1.0 - confidence) / 2.0)?;
    // Draw r of `draws` stands for the ranks from r/draws to (r+1)/draws of the way; 128 bits hold
    // the product.
    let (count, draws) = (count as u128, draws as u128);
    let first = low as u128 * count / draws;
    let last = ((high as u128 + 1) * count).div_ceil(draws) - 1;
    Some((first as usize, last as usize))
}

/// Confidence interval of a mean, `mean ± z s / √n` with the sample standard deviation s: the
/// normal approximation of the central limit theorem. `None` below two values, if a value is not
/// finite, or if `confidence` is not strictly between 0 and 1.
///
/// ```
/// use mantissa_metrics::mean_interval;
///
/// let interval = mean_interval(&[1.0, 2.0, 3.0, 4.0], 0.95).unwrap();
/// assert!((interval.low - 1.2348).abs() < 1e-4 && (interval.high - 3.7652).abs() < 1e-4);
/// ```
pub fn mean_interval(values: &[f64], confidence: f64) -> Option<Interval> {
    if values.len() < 2 || !(confidence > 0.0 && confidence < 1.0) {
        return None;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
    let half = normal_quantile(0.5 + confidence / 2.0) * (squares / (n - 1.0) / n).sqrt();
    half.is_finite().then_some(Interval {
        low: mean - half,
        high: mean + half,
    })
}

/// Zero-based ranks (low, high) of the order statistics around a quantile that each leave at most
/// `tail` outside.
///
/// With B ~ Binomial(n, p) the number of draws below the quantile, the r-th smallest (one-based)
/// lies above the quantile with probability P(B < r) and below it with P(B >= r).
fn binomial_ranks(n: usize, p: f64, tail: f64) -> Option<(usize, usize)> {
    let weights = BinomialWeights::new(n, p);
    let limit = tail * weights.sum();
    let mut outside = 0.0;
    let mut low = None;
    for below in 0..=n {
        outside += weights.at(below);
        if outside > limit {
            break;
        }
        low = Some(below);
    }
    outside = 0.0;
    let mut high = None;
    for below in (0..=n).rev() {
        outside += weights.at(below);
        if outside > limit {
            break;
        }
        high = Some(below);
    }
    // `low` draws or fewer below: the quantile is under order statistic low + 1 (one-based), low
    // (zero-based). `high` draws or more below: the quantile is above order statistic `high`
    // (one-based), high - 1 (zero-based).
    Some((low?, high?.checked_sub(1)?))
}

/// Binomial probabilities up to a common factor: 1 at the mode, and outwards from it until they
/// vanish, so that neither factorials nor powers can overflow.
struct BinomialWeights {
    start: usize,
    weights: Vec<f64>,
}

impl BinomialWeights {
    const NEGLIGIBLE: f64 = 1e-25;

    fn new(n: usize, p: f64) -> Self {
        let mode = (((n + 1) as f64 * p) as usize).min(n);
        let odds = p / (1.0 - p);
        let mut below = Vec::new();
        let mut weight = 1.0;
        for k in (1..=mode).rev() {
            weight *= k as f64 / ((n - k + 1) as f64 * odds);
            if weight < Self::NEGLIGIBLE {
                break;
            }
            below.push(weight);
        }
        let start = mode - below.len();
        let mut weights = below;
        weights.reverse();
        weights.push(1.0);
        weight = 1.0;
        for k in mode..n {
            weight *= (n - k) as f64 * odds / (k + 1) as f64;
            if weight < Self::NEGLIGIBLE {
                break;
            }
            weights.push(weight);
        }
        Self { start, weights }
    }

    fn sum(&self) -> f64 {
        self.weights.iter().sum()
    }

    fn at(&self, k: usize) -> f64 {
        k.checked_sub(self.start)
            .and_then(|i| self.weights.get(i))
            .copied()
            .unwrap_or(0.0)
    }
}

/// Quantile of the standard normal distribution, by bisection of its distribution function.
pub(crate) fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-40.0, 40.0);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if normal_cdf(middle) < p {
            low = middle
        } else {
            high = middle
        }
    }
    0.5 * (low + high)
}

/// Distribution function of the standard normal: `1/2 + φ(x) (x + x³/3 + x⁵/15 + …)` (Marsaglia
/// 2004, J. Stat. Softw. 11-4), exact to rounding in the middle.
fn normal_cdf(x: f64) -> f64 {
    // Beyond nine deviations the tail is below the rounding of 1.
    if x.abs() > 9.0 {
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut sum, mut previous, mut term, mut odd) = (x, 0.0, x, 1.0);
    while sum != previous {
        previous = sum;
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    0.5 + sum * (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_quantiles_match_the_tables() {
        for (p, z) in [
            (0.5, 0.0),
            (0.841344746068543, 1.0),
            (0.975, 1.959963984540054),
            (0.995, 2.575829303548901),
        ] {
            assert!((normal_quantile(p) - z).abs() < 1e-12, "{p}");
        }
    }

    #[test]
    fn ranks_of_small_medians_match_the_tables() {
        // Exact 95 % ranks (one-based) of the sign-test interval, e.g. Conover, Practical
        // Nonparametric Statistics, table A3.
        for (n, low, high) in [
            (6, 1, 6),
            (9, 2, 8),
            (10, 2, 9),
            (20, 6, 15),
            (30, 10, 21),
            (100, 40, 61),
        ] {
            assert_eq!(
                binomial_ranks(n, 0.5, 0.025),
                Some((low - 1, high - 1)),
                "{n}"
            );
        }
        assert_eq!(binomial_ranks(5, 0.5, 0.025), None);
    }

    #[test]
    fn large_binomials_agree_with_the_normal_approximation() {
        let (n, p) = (1_000_000, 0.95);
        let (low, high) = binomial_ranks(n, p, 0.025).unwrap();
        let half = 1.959964 * (n as f64 * p * (1.0 - p)).sqrt();
        assert!((low as f64 - (n as f64 * p - half)).abs() < 2.0, "{low}");
        assert!((high as f64 - (n as f64 * p + half)).abs() < 2.0, "{high}");
    }

    #[test]
    fn fewer_independent_draws_widen_the_interval() {
        let sorted: Vec<f64> = (0..10_000).map(f64::from).collect();
        let plain = quantile_interval(&sorted, 0.5, 10_000, 0.95).unwrap();
        let clustered = quantile_interval(&sorted, 0.5, 100, 0.95).unwrap();
        assert_eq!((clustered.low, clustered.high), (3900.0, 6099.0));
        assert!(plain.low > 4880.0 && plain.high < 5120.0);
        assert_eq!(quantile_interval(&sorted, 0.5, 5, 0.95), None);
    }
}
