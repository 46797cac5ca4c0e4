//! Maximum-likelihood fit of a Student-t distribution.

use mantissa_formats::RandomBits;
use serde::{Deserialize, Serialize};
use statrs::function::gamma::digamma;

use crate::distribution::student_log_factor;
use crate::interval::{Interval, normal_quantile};

/// Largest sample a fit looks at; the standard error of `nu` at this size is about 2 % for nu = 5.
pub(crate) const LARGEST_SAMPLE: usize = 16_384;
/// Fewer elements than this say nothing about tails.
const SMALLEST_SAMPLE: usize = 16;
/// A sample with a larger share of one value has no maximum of likelihood: with nu = 0.5 the
/// density at that value grows faster than the others' falls when the scale goes to zero, for a
/// share above nu / (nu + 1).
const LARGEST_TIE: f64 = 1.0 / 3.0;

/// A Student-t distribution with location and scale.
#[derive(Copy, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudentT {
    /// Degrees of freedom, the weight of the tails: 1 is Cauchy, towards infinity a normal.
    /// Between [`StudentT::MIN_NU`] and [`StudentT::MAX_NU`].
    pub nu: f64,
    /// Centre of the distribution.
    pub location: f64,
    /// Scale: for `nu > 2` the variance is `scale^2 * nu / (nu - 2)`.
    pub scale: f64,
}

impl StudentT {
    /// Smallest `nu` a fit returns; heavier tails are reported as this.
    pub const MIN_NU: f64 = 0.5;
    /// Largest `nu` a fit returns; lighter tails, a normal's included, are reported as this. No
    /// sample of the size a fit looks at can tell a larger one from a normal.
    pub const MAX_NU: f64 = 1000.0;
}

/// Fits location, scale and degrees of freedom by maximum likelihood.
///
/// For a given `nu`, location and scale are found by the EM iteration with weights `(nu + 1) / (nu
/// + ((x - location) / scale)^2)` in the faster form of Kent, Tyler and Vardi (1994), where the
/// scale's sum is divided by the sum of the weights. Along that curve the likelihood is a function
/// of `nu` alone, and the zero of its derivative is found by bracketing in `log nu`. This climbs to
/// the same maximum as Liu and Rubin's ECME (1995), without its crawl where `nu` is large.
///
/// Infinities and NaNs are left out. Of more than 16384 elements, one of every stretch of equal
/// length is taken, at a place drawn from a fixed seed, so that a regular layout of the tensor
/// cannot align with the choice.
///
/// `None` for fewer than 16 finite elements, or if more than a third of them are one and the same
/// value (a constant tensor, the output of a rectifier): the likelihood then has no maximum.
///
/// ```
/// use mantissa_formats::RandomBits;
/// use mantissa_metrics::{fit_student_t, sample};
///
/// let values = sample::student_t(4.0, RandomBits::new(1, 0), 10_000);
/// let fit = fit_student_t(&values).unwrap();
/// assert!((fit.nu - 4.0).abs() < 0.5);
/// assert_eq!(fit_student_t(&[1.0; 100]), None);
/// ```
pub fn fit_student_t(sample: &[f32]) -> Option<StudentT> {
    Some(Standardized::of(&sorted_sample(sample, LARGEST_SAMPLE)?).fit())
}

/// The `nu` of [`fit_student_t`] from no more than `most` elements and to a hundredth of it: the time this takes is proportional
/// to `most`, its standard error to one over the root of `most`.
pub fn estimate_nu(sample: &[f32], most: usize) -> Option<f64> {
    let standardized = Standardized::of(&sorted_sample(sample, most)?);
    Some(standardized.curve(Precision::ROUGH).best_nu())
}

/// At most `most` finite elements, ascending; `None` where their likelihood has no maximum.
pub(crate) fn sorted_sample(sample: &[f32], most: usize) -> Option<Vec<f64>> {
    let mut sorted = subsample(sample, most);
    if sorted.len() < SMALLEST_SAMPLE {
        return None;
    }
    sorted.sort_unstable_by(f64::total_cmp);
    let longest_tie = sorted.chunk_by(|a, b| a == b).map(<[f64]>::len).max()?;
    (longest_tie as f64 <= LARGEST_TIE * sorted.len() as f64).then_some(sorted)
}

/// The fit to what [`sorted_sample`] gave, and the profile-likelihood interval of its degrees of freedom.
pub(crate) fn fit_with_interval(sorted: &[f64], confidence: f64) -> (StudentT, Interval) {
    let standardized = Standardized::of(sorted);
    let fit = standardized.fit();
    // The quantile of chi-squared with one degree of freedom is the square of a normal's.
    let largest_deviance = normal_quantile(0.5 + 0.5 * confidence).powi(2);
    let mut curve = standardized.curve(Precision::FULL);
    let best = curve.log_likelihood(fit.nu);
    let mut is_outside =
        |nu: f64| 2.0 * sorted.len() as f64 * (best - curve.log_likelihood(nu)) > largest_deviance;
    let mut end = |limit: f64, beyond: f64| {
        if !is_outside(limit) {
            return beyond;
        }
        // Thirty halvings of seven units of log nu.
        let (mut inside, mut outside) = (fit.nu.ln(), limit.ln());
        for _ in 0..30 {
            let middle = 0.5 * (inside + outside);
            if (outside - inside).abs() < 1e-4 {
                break;
            }
            if is_outside(middle.exp()) {
                outside = middle;
            } else {
                inside = middle;
            }
        }
        inside.exp()
    };
    let interval = Interval {
        low: end(StudentT::MIN_NU, 0.0),
        high: end(StudentT::MAX_NU, f64::INFINITY),
    };
    (fit, interval)
}

/// A sample about its median in units of its middle half, in which squares of the smallest and the largest f32 stay
/// within f64.
struct Standardized {
    values: Vec<f64>,
    centre: f64,
    spread: f64,
}

impl Standardized {
    fn of(sorted: &[f64]) -> Self {
        let quantile = |p: f64| sorted[((sorted.len() - 1) as f64 * p) as usize];
        let centre = quantile(0.5);
        // With at most a third of ties the middle half is wider than a point.
        let spread = quantile(0.75) - quantile(0.25);
        Standardized {
            values: sorted.iter().map(|x| (x - centre) / spread).collect(),
            centre,
            spread,
        }
    }

    fn curve(&self, precision: Precision) -> Curve<'_> {
        Curve {
            precision,
            sample: &self.values,
            location: 0.0,
            scale: 1.0,
        }
    }

    fn fit(&self) -> StudentT {
        let mut curve = self.curve(Precision::FULL);
        let nu = curve.best_nu();
        curve.settle(nu);
        StudentT {
            nu,
            location: self.centre + curve.location * self.spread,
            scale: curve.scale * self.spread,
        }
    }
}

/// The finite ones of at most `most` elements.
fn subsample(sample: &[f32], most: usize) -> Vec<f64> {
    let finite = |x: f32| x.is_finite().then_some(f64::from(x));
    if sample.len() <= most {
        return sample.iter().copied().filter_map(finite).collect();
    }
    let random = RandomBits::new(0, 0);
    let start = |stratum: usize| (stratum as u128 * sample.len() as u128 / most as u128) as usize;
    let chosen = (0..most).map(|stratum| {
        let (from, to) = (start(stratum), start(stratum + 1));
        let offset = (u128::from(random.at(stratum as u64)) * (to - from) as u128) >> 32;
        sample[from + offset as usize]
    });
    chosen.filter_map(finite).collect()
}

/// When a search is over.
#[derive(Copy, Clone)]
struct Precision {
    /// The largest step of location and scale, in units of the scale.
    location_and_scale: f64,
    /// The width of the last bracket of `log nu`.
    log_nu: f64,
}

impl Precision {
    const FULL: Precision = Precision {
        location_and_scale: 1e-7,
        log_nu: 1e-4,
    };
    const ROUGH: Precision = Precision {
        location_and_scale: 1e-4,
        log_nu: 1e-2,
    };
}

/// The best location and scale for each `nu`; each search starts from the previous answer.
struct Curve<'a> {
    precision: Precision,
    sample: &'a [f64],
    location: f64,
    scale: f64,
}

impl Curve<'_> {
    /// Location and scale that maximise the likelihood for this `nu`.
    fn settle(&mut self, nu: f64) {
        for _ in 0..500 {
            let (location, scale) = self.step(nu);
            let moved = (location - self.location).abs() + (scale - self.scale).abs();
            (self.location, self.scale) = (location, scale);
            if moved <= self.precision.location_and_scale * scale {
                break;
            }
        }
    }

    fn step(&self, nu: f64) -> (f64, f64) {
        let Self {
            sample,
            location,
            scale,
            ..
        } = *self;
        let [weights, first, second] = pulp::Arch::new().dispatch(WeightedSums {
            sample,
            nu,
            location,
            scale,
        });
        let shift = first / weights;
        // Sum of w (x - new location)^2, from the sums about the old one.
        let second = (second - shift * first).max(0.0);
        (location + shift, (second / weights).sqrt())
    }

    /// The mean log-likelihood at the best location and scale for `nu`.
    fn log_likelihood(&mut self, nu: f64) -> f64 {
        self.settle(nu);
        let inverse = 1.0 / (self.scale * self.scale * nu);
        let mut tails = [0.0; LANES];
        for block in self.sample.chunks(LANES) {
            for (lane, &x) in block.iter().enumerate() {
                let d = x - self.location;
                tails[lane] += (d * d * inverse).ln_1p();
            }
        }
        let tails = tails.iter().sum::<f64>() / self.sample.len() as f64;
        student_log_factor(nu) - self.scale.ln() - 0.5 * (nu + 1.0) * tails
    }

    /// Derivative of the mean log-likelihood by `log nu`, at the best location and scale for `nu`.
    /// (That these move with `nu` adds nothing: the likelihood is stationary in them.)
    fn slope(&mut self, nu: f64) -> f64 {
        self.settle(nu);
        let inverse = 1.0 / (self.scale * self.scale * nu);
        let mut tails = [0.0; LANES];
        for block in self.sample.chunks(LANES) {
            for (lane, &x) in block.iter().enumerate() {
                let d = x - self.location;
                let ratio = d * d * inverse;
                tails[lane] += (nu + 1.0) / nu * ratio / (1.0 + ratio) - ratio.ln_1p();
            }
        }
        let tails = tails.iter().sum::<f64>() / self.sample.len() as f64;
        0.5 * nu * (digamma(0.5 * (nu + 1.0)) - digamma(0.5 * nu) - 1.0 / nu + tails)
    }

    /// The `nu` at which the slope changes sign, or the end of the range it points to.
    fn best_nu(&mut self) -> f64 {
        let (mut low, mut high) = (StudentT::MIN_NU.ln(), StudentT::MAX_NU.ln());
        let mut slope_high = self.slope(StudentT::MAX_NU);
        if slope_high >= 0.0 {
            return StudentT::MAX_NU;
        }
        let mut slope_low = self.slope(StudentT::MIN_NU);
        if slope_low <= 0.0 {
            return StudentT::MIN_NU;
        }
        // The slope spans many orders of magnitude over the range: false position (in the Illinois
        // form, which halves the value of an end that stays) alternates with bisection.
        for turn in 0..60 {
            let middle = match turn % 3 {
                0 => 0.5 * (low + high),
                _ => (low * slope_high - high * slope_low) / (slope_high - slope_low),
            };
            let slope = self.slope(middle.exp());
            if slope > 0.0 {
                (low, slope_low) = (middle, slope);
                slope_high *= 0.5;
            } else {
                (high, slope_high) = (middle, slope);
                slope_low *= 0.5;
            }
            if high - low < self.precision.log_nu || slope == 0.0 {
                break;
            }
        }
        (0.5 * (low + high)).exp()
    }
}

/// Sums of the weights, and of the weighted deviations from `location` and their squares, by
/// instructions chosen at run time.
struct WeightedSums<'a> {
    sample: &'a [f64],
    nu: f64,
    location: f64,
    scale: f64,
}

impl pulp::WithSimd for WeightedSums<'_> {
    type Output = [f64; 3];

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> [f64; 3] {
        let inverse = 1.0 / (self.scale * self.scale);
        let mut sums = [[0.0; LANES]; 3];
        let mut add = |block: &[f64]| {
            for (lane, &x) in block.iter().enumerate() {
                let d = x - self.location;
                let weight = (self.nu + 1.0) / (self.nu + d * d * inverse);
                sums[0][lane] += weight;
                sums[1][lane] += weight * d;
                sums[2][lane] += weight * d * d;
            }
        };
        let (blocks, rest) = self.sample.as_chunks::<LANES>();
        for block in blocks {
            add(block);
        }
        add(rest);
        sums.map(|lanes| lanes.iter().sum())
    }
}

/// Independent accumulators, so that the sums vectorise; fixed, so that every machine adds
/// in the same order.
const LANES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subsample_takes_one_of_every_stretch() {
        let values: Vec<f32> = (0..LARGEST_SAMPLE * 3).map(|i| i as f32).collect();
        let chosen = subsample(&values, LARGEST_SAMPLE);
        assert_eq!(chosen.len(), LARGEST_SAMPLE);
        assert!(chosen.iter().enumerate().all(|(i, &x)| x as usize / 3 == i));
        let offsets: f64 = chosen.iter().map(|x| x % 3.0).sum::<f64>() / chosen.len() as f64;
        assert!((offsets - 1.0).abs() < 0.03, "{offsets}");
    }
}
