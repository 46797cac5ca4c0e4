//! What a pair of numerics does to a product as a signal: how much noise it adds, and how much of that is bias.
//!
//! [`PairError`](crate::evaluate::PairError) has the backward error, which holds every output against the magnitudes that
//! went into it. A prediction of what training loses needs powers instead: squares that can be weighted and added up.

use crate::site::Pass;

/// How far the ends of a 95 % confidence interval lie from the estimate, in standard errors.
pub(crate) const STANDARD_ERRORS: f64 = 1.96;

/// An estimate with its variance, as far as the sample tells it: what adds up over products, as an
/// [`Estimate`](mantissa_metrics::Estimate) with its interval does not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Uncertain {
    /// The estimate.
    pub value: f64,
    /// Variance of the estimate; `None` where there are too few rows for one.
    pub variance: Option<f64>,
}

impl Uncertain {
    /// Known to be zero.
    pub const ZERO: Uncertain = Uncertain {
        value: 0.0,
        variance: Some(0.0),
    };

    /// This and `factor` times another, found independently.
    pub(crate) fn plus(&self, other: &Uncertain, factor: f64) -> Uncertain {
        let variances = self.variance.zip(other.variance);
        Uncertain {
            value: self.value + factor * other.value,
            variance: variances.map(|(a, b)| a + factor * factor * b),
        }
    }
}

/// The noise of a product in a pair of numerics, y an output in f32 and q the same output quantized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Mean of (q − y)².
    pub power: Uncertain,
    /// tan² of the angle between the outputs y and q as vectors: the power of what is not along y, relative to what is left
    /// along it. A common factor is no noise; outputs that were lost are.
    pub angle: Uncertain,
    /// The power of the part of q − y that all examples have in common, relative to y as in `angle`, beyond what chance may make
    /// of none (95 %): what does not average out over batches. A common factor is none of it.
    pub bias: Uncertain,
}

/// Which index of a product goes over the examples of a batch: error that examples have in common is no noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Examples {
    /// None that error would add up over.
    None,
    /// The rows of the left operand, each of which is one.
    Rows,
    /// The contraction, which adds them up.
    Depth,
}

impl Examples {
    /// In a pass of a product that reads one example a row.
    pub fn of(pass: Pass) -> Examples {
        match pass {
            Pass::Forward => Examples::None,
            Pass::GradLhs => Examples::Rows,
            Pass::GradRhs => Examples::Depth,
        }
    }
}

/// Sums over outputs that share a row.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    count: f64,
    signal: f64,
    along: f64,
    noise: f64,
    /// Of signal, along and noise the parts that pairs of different examples make: an estimate, free of what each example has
    /// by itself, of what all have in common.
    common: [f64; 3],
}

impl Sums {
    fn add(&mut self, y: f64, error: f64) {
        self.count += 1.0;
        self.signal += y * y;
        self.along += y * error;
        self.noise += error * error;
    }

    fn plus(&self, other: &Sums, factor: f64) -> Sums {
        Sums {
            count: self.count + factor * other.count,
            signal: self.signal + factor * other.signal,
            along: self.along + factor * other.along,
            noise: self.noise + factor * other.noise,
            common: [0, 1, 2].map(|i| self.common[i] + factor * other.common[i]),
        }
    }

    /// The same in units in which the mean square of the outputs is 1.
    fn normalized(&self, mean_square: f64) -> Sums {
        Sums {
            count: self.count,
            signal: self.signal / mean_square,
            along: self.along / mean_square,
            noise: self.noise / mean_square,
            common: self.common.map(|part| part / mean_square),
        }
    }

    fn power(&self) -> f64 {
        if self.count > 0.0 {
            self.noise / self.count
        } else {
            0.0
        }
    }

    fn angle(&self) -> f64 {
        if self.noise == 0.0 {
            return 0.0;
        }
        let left = 1.0 + self.along / self.signal;
        let across = (self.noise - self.along * self.along / self.signal).max(0.0);
        if left > 0.0 {
            across / (left * left * self.signal)
        } else {
            // Nothing is left along y, or it points the other way.
            f64::INFINITY
        }
    }

    fn bias(&self) -> f64 {
        let factor = self.along / self.signal;
        let left = 1.0 + factor;
        if self.noise == 0.0 || left <= 0.0 {
            return 0.0;
        }
        let [signal, along, noise] = self.common;
        (noise - 2.0 * factor * along + factor * factor * signal) / (left * left * self.signal)
    }
}

/// Of one product, what each example adds by itself to the squares of its outputs: the sums over the contraction of the
/// products of what its elements add, laid out as the outputs are.
#[derive(Debug)]
pub(crate) struct Alone<'a> {
    /// Of output and output.
    pub(crate) signal: &'a [f32],
    /// Of output and error.
    pub(crate) along: Vec<f32>,
    /// Of error and error.
    pub(crate) noise: Vec<f32>,
}

/// A product in f32 and quantized, `[batch, left, right]`, row-major.
pub(crate) struct Outputs<'a> {
    pub(crate) exact: &'a [f32],
    pub(crate) quantized: &'a [f32],
    pub(crate) left: usize,
    pub(crate) right: usize,
    /// Given where the examples are the contraction's.
    pub(crate) alone: Option<&'a Alone<'a>>,
}

/// Collects [`Noise`] over several products of one pass.
#[derive(Debug, Default)]
pub(crate) struct NoiseSums {
    /// In the units of the product.
    plain: Vec<Sums>,
    /// Each product in units of its own outputs, so that steps with another loss scale weigh the same.
    normalized: Vec<Sums>,
}

impl NoiseSums {
    /// Adds one product. Outputs that are not finite in f32 say nothing; those that are and became something else are
    /// infinite noise.
    pub(crate) fn add(&mut self, outputs: &Outputs<'_>, examples: Examples) {
        let &Outputs {
            exact,
            quantized,
            left,
            right,
            alone,
        } = outputs;
        // The outputs of a product share rows; those of the smaller operand are the fewest independent draws. Examples that are
        // rows of the left operand are all within each group.
        let by_left = left <= right && examples != Examples::Rows;
        let per_matrix = if by_left { left } else { right };
        let matrices = exact.len() / (left * right).max(1);
        let mut groups = vec![Sums::default(); matrices * per_matrix];
        let mut totals = vec![[0.0; 2]; groups.len()];
        for (index, (&y, &q)) in exact.iter().zip(quantized).enumerate() {
            if !y.is_finite() {
                continue;
            }
            let (matrix, row, column) =
                (index / (left * right), index / right % left, index % right);
            let group = matrix * per_matrix + if by_left { row } else { column };
            let y = f64::from(y);
            let error = if q.is_finite() {
                f64::from(q) - y
            } else {
                f64::INFINITY
            };
            groups[group].add(y, error);
            totals[group][0] += y;
            totals[group][1] += error;
            if let Some(alone) = alone {
                let common = &mut groups[group].common;
                common[0] += y * y - f64::from(alone.signal[index]);
                common[1] += y * error - f64::from(alone.along[index]);
                common[2] += error * error - f64::from(alone.noise[index]);
            }
        }
        if examples == Examples::Rows {
            for (group, [y, error]) in groups.iter_mut().zip(totals) {
                // As many times the square of the mean as there are examples, to be held against sums over them.
                let pairs = (group.count - 1.0).max(1.0);
                group.common = [
                    (y * y - group.signal) / pairs,
                    (y * error - group.along) / pairs,
                    (error * error - group.noise) / pairs,
                ];
            }
        }
        groups.retain(|group| group.count > 0.0);
        let total = groups
            .iter()
            .fold(Sums::default(), |sum, group| sum.plus(group, 1.0));
        if total.signal > 0.0 {
            let mean_square = total.signal / total.count;
            let normalized = groups.iter().map(|group| group.normalized(mean_square));
            self.normalized.extend(normalized);
        }
        self.plain.extend(groups);
    }

    pub(crate) fn noise(&self) -> Noise {
        let bias = jackknife(&self.normalized, Sums::bias);
        let by_chance = bias
            .variance
            .map_or(f64::INFINITY, |variance| STANDARD_ERRORS * variance.sqrt());
        Noise {
            power: jackknife(&self.plain, Sums::power),
            angle: jackknife(&self.normalized, Sums::angle),
            bias: Uncertain {
                value: (bias.value - by_chance).max(0.0),
                ..bias
            },
        }
    }
}

/// A function of sums over groups, with the variance that leaving out one group after the other shows (the delete-one
/// jackknife: Efron and Tibshirani, *An Introduction to the Bootstrap*, section 11.2). It needs two groups.
fn jackknife(groups: &[Sums], value_of: impl Fn(&Sums) -> f64) -> Uncertain {
    let total = groups
        .iter()
        .fold(Sums::default(), |sum, group| sum.plus(group, 1.0));
    let value = if total.noise.is_finite() {
        value_of(&total)
    } else {
        f64::INFINITY
    };
    if !value.is_finite() {
        return Uncertain {
            value: f64::INFINITY,
            variance: None,
        };
    }
    let n = groups.len() as f64;
    let variance = (groups.len() > 1).then(|| {
        let without: Vec<f64> = groups
            .iter()
            .map(|group| value_of(&total.plus(group, -1.0)))
            .collect();
        let mean = without.iter().sum::<f64>() / n;
        let squares: f64 = without.iter().map(|x| (x - mean) * (x - mean)).sum();
        (n - 1.0) / n * squares
    });
    Uncertain {
        value,
        variance: variance.filter(|variance| variance.is_finite()),
    }
}

#[cfg(test)]
mod tests {
    use mantissa_formats::RandomBits;
    use mantissa_metrics::sample::student_t;

    use super::*;

    fn normal(stream: u64, count: usize) -> Vec<f32> {
        student_t(f64::INFINITY, RandomBits::new(11, stream), count)
    }

    fn noise(exact: &[f32], quantized: &[f32], left: usize) -> Noise {
        let mut sums = NoiseSums::default();
        let outputs = Outputs {
            exact,
            quantized,
            left,
            right: exact.len() / left,
            alone: None,
        };
        sums.add(&outputs, Examples::Rows);
        sums.noise()
    }

    #[test]
    fn independent_noise_is_found_whatever_the_units() {
        let (y, e) = (normal(0, 64 * 64), normal(1, 64 * 64));
        for unit in [1.0f32, 1e-6] {
            let exact: Vec<f32> = y.iter().map(|y| y * unit).collect();
            let quantized: Vec<f32> = y
                .iter()
                .zip(&e)
                .map(|(y, e)| (y + 0.1 * e) * unit)
                .collect();
            let found = noise(&exact, &quantized, 64);
            let deviation = found.angle.variance.unwrap().sqrt();
            assert!((found.angle.value - 0.01).abs() < 4.0 * deviation && deviation < 1e-3);
            let power = f64::from(unit).powi(2) * 0.01;
            assert!((found.power.value / power - 1.0).abs() < 0.1);
            assert!(found.bias.value < 2e-4, "{found:?}");
        }
    }

    #[test]
    fn a_common_factor_is_no_noise_and_a_common_shift_is_bias() {
        let y = normal(2, 64 * 64);
        let halved: Vec<f32> = y.iter().map(|y| y * 0.5).collect();
        assert!(noise(&y, &halved, 64).angle.value < 1e-12);
        assert_eq!(noise(&y, &halved, 64).bias.value, 0.0);
        // Every example off in the same direction, by a tenth.
        let shift = normal(3, 64);
        let shifted: Vec<f32> = (0..y.len()).map(|i| y[i] + 0.1 * shift[i % 64]).collect();
        let found = noise(&y, &shifted, 64);
        let power = shift.iter().map(|x| f64::from(x * x)).sum::<f64>() / 64.0;
        let deviation = found.bias.variance.unwrap().sqrt();
        let bias = found.bias.value + STANDARD_ERRORS * deviation;
        assert!((bias / (0.01 * power) - 1.0).abs() < 0.1, "{found:?}");
        // Zeros for the smaller half of the outputs, and zeros for all of them.
        let lost: Vec<f32> = y
            .iter()
            .map(|y| if y.abs() < 0.6745 { 0.0 } else { *y })
            .collect();
        let found = noise(&y, &lost, 64);
        assert!((0.05..0.12).contains(&found.angle.value), "{found:?}");
        assert_eq!(
            noise(&y, &vec![0.0; y.len()], 64).angle.value,
            f64::INFINITY
        );
    }

    #[test]
    fn what_says_nothing_has_no_variance() {
        assert_eq!(noise(&[1.0, 2.0], &[1.0, 2.5], 2).angle.variance, None);
        let zeros = noise(&[0.0; 16], &[0.0; 16], 4);
        assert_eq!((zeros.angle.value, zeros.angle.variance), (0.0, None));
        let infinite = noise(
            &[1.0, 2.0, 3.0, f32::NAN],
            &[1.0, f32::INFINITY, 3.0, 4.0],
            2,
        );
        assert_eq!(infinite.power.value, f64::INFINITY);
        let excluded = noise(&[1.0, f32::NAN, 3.0, f32::NAN], &[1.0, 2.0, 3.0, 4.0], 2);
        assert_eq!(excluded.power.value, 0.0);
    }
}
