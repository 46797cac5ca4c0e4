//! Estimates from rows, with their standard errors and confidence intervals.
//!
//! A sample consists of rows, and the elements of a row hang together. What is estimated is a smooth
//! function of sums over rows; linearized, it is a sum of one number for each row, its *influence*,
//! and the scatter of these numbers is the standard error (the infinitesimal jackknife: Efron 1982,
//! *The Jackknife, the Bootstrap and Other Resampling Plans*, chapter 6). An element of a product
//! belongs to a row of each operand, so there the scatter by row and by column counts.

use serde::{Deserialize, Serialize};

use crate::interval::{Interval, normal_quantile};

/// A value estimated from sampled rows.
#[derive(Copy, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Its standard error; `None` for fewer than [`Estimate::FEWEST_ROWS`] rows.
    pub standard_error: Option<f64>,
    /// Its 95 % confidence interval, likewise.
    pub interval: Option<Interval>,
}

impl Estimate {
    /// With fewer rows there is no standard error and no interval, as for the interval of a median.
    pub const FEWEST_ROWS: usize = 6;

    /// An estimate of which nothing more is known.
    pub const fn alone(value: f64) -> Self {
        Estimate {
            value,
            standard_error: None,
            interval: None,
        }
    }

    /// An estimate to which every row contributes independently: `influences` has one number for
    /// each row, how much the row moves the estimate.
    ///
    /// ```
    /// use mantissa_metrics::Estimate;
    ///
    /// // A mean: every row moves it by its distance from the mean, divided by the number of rows.
    /// let rows = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    /// let mean = Estimate::from_rows(3.5, rows.map(|x| (x - 3.5) / 6.0));
    /// assert!((mean.standard_error.unwrap() - (3.5f64 / 6.0).sqrt()).abs() < 1e-12);
    /// assert_eq!(Estimate::from_rows(3.5, [0.0; 5]).interval, None);
    /// ```
    pub fn from_rows(value: f64, influences: impl IntoIterator<Item = f64>) -> Self {
        let (mut rows, mut squares) = (0, 0.0);
        for influence in influences {
            rows += 1;
            squares += influence * influence;
        }
        let variance = squares * small_sample(rows);
        Estimate::symmetric(value, (variance, rows))
    }

    /// An estimate to which every element of products contributes.
    pub fn from_products(value: f64, influences: &CrossedSums) -> Self {
        Estimate::symmetric(value, influences.variance())
    }

    /// The same of what cannot exceed one, such as a cosine: the interval becomes that of the
    /// logarithm of its distance from one, so that it never crosses it.
    pub fn below_one(mut self) -> Self {
        let distance = 1.0 - self.value;
        if let Some(interval) = &mut self.interval {
            let half = 0.5 * (interval.high - interval.low);
            // Without distance or scatter there is no logarithm to take, and nothing to say beyond the value.
            if half > 0.0 && distance > 0.0 {
                let factor = (half / distance).exp();
                *interval = Interval {
                    low: (1.0 - distance * factor).max(-1.0),
                    high: 1.0 - distance / factor,
                };
            }
        }
        self
    }

    /// From the variance of the estimate and the rows it was taken from.
    fn symmetric(value: f64, (variance, rows): (f64, usize)) -> Self {
        let standard_error = variance.max(0.0).sqrt();
        if rows < Self::FEWEST_ROWS || !standard_error.is_finite() || !value.is_finite() {
            return Estimate::alone(value);
        }
        let half = student_quantile(0.975, (rows - 1) as f64) * standard_error;
        Estimate {
            value,
            standard_error: Some(standard_error),
            interval: Some(Interval {
                low: value - half,
                high: value + half,
            }),
        }
    }
}

/// Squared sums by row and by column of the influences of a product's elements.
///
/// Elements in one row share a row of the left operand, those in one column a row of the right one.
/// The variance of the sum of all is `V(rows) + V(columns) − V(elements)` (Cameron, Gelbach and
/// Miller 2011, *Robust Inference with Multiway Clustering*, J. Bus. Econ. Stat. 29-2), and never
/// less than either of the first two: the difference may come out small by chance.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct CrossedSums {
    rows: usize,
    columns: usize,
    elements: usize,
    of_rows: f64,
    of_columns: f64,
    of_elements: f64,
}

impl CrossedSums {
    /// Adds a matrix of influences, `at(row, column)`; its rows and columns are others than those
    /// of the matrices before.
    pub fn add(&mut self, rows: usize, columns: usize, mut at: impl FnMut(usize, usize) -> f64) {
        let mut by_column = vec![0.0; columns];
        for row in 0..rows {
            let mut by_row = 0.0;
            for (column, sum) in by_column.iter_mut().enumerate() {
                let influence = at(row, column);
                by_row += influence;
                *sum += influence;
                self.of_elements += influence * influence;
            }
            self.of_rows += by_row * by_row;
        }
        self.of_columns += by_column.iter().map(|sum| sum * sum).sum::<f64>();
        self.rows += rows;
        self.columns += columns;
        self.elements += rows * columns;
    }

    /// The variance, and how many rows stand behind it: those of the operand that has fewer.
    fn variance(&self) -> (f64, usize) {
        let rows = self.of_rows * small_sample(self.rows);
        let columns = self.of_columns * small_sample(self.columns);
        let elements = self.of_elements * small_sample(self.elements);
        let variance = (rows + columns - elements).max(rows).max(columns);
        (variance, self.rows.min(self.columns))
    }
}

/// What makes a variance of so many numbers around their own mean unbiased.
fn small_sample(count: usize) -> f64 {
    count as f64 / count.saturating_sub(1).max(1) as f64
}

/// Quantile of Student's t distribution, by the expansion around the normal one (Abramowitz and
/// Stegun 1964, 26.7.5): within 0.1 % at 97.5 % from 5 degrees of freedom on.
fn student_quantile(p: f64, degrees: f64) -> f64 {
    let z = normal_quantile(p);
    let square = z * z;
    let terms = [
        z * (square + 1.0) / 4.0,
        z * ((5.0 * square + 16.0) * square + 3.0) / 96.0,
        z * (((3.0 * square + 19.0) * square + 17.0) * square - 15.0) / 384.0,
    ];
    terms
        .iter()
        .rev()
        .fold(0.0, |rest, term| (rest + term) / degrees)
        + z
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::student_t;
    use mantissa_formats::RandomBits;

    #[test]
    fn student_quantiles_match_the_tables() {
        for (degrees, t) in [(5.0, 2.5706), (9.0, 2.2622), (30.0, 2.0423), (1e9, 1.95996)] {
            let found = student_quantile(0.975, degrees);
            assert!((found / t - 1.0).abs() < 1.5e-3, "{degrees}: {found}");
        }
    }

    #[test]
    fn crossed_effects_are_covered() {
        // x[i,j] = a[i] + b[j] + e[i,j] with mean 0: the interval of the mean should cover 0 in 95 % of the trials.
        // Taking elements for independent would give an interval three times too narrow.
        let (rows, columns, trials) = (16, 24, 400);
        let (mut covered, mut naive) = (0, 0);
        for trial in 0..trials {
            let draw =
                |stream, count| student_t(f64::INFINITY, RandomBits::new(trial, stream), count);
            let (a, b, e) = (draw(0, rows), draw(1, columns), draw(2, rows * columns));
            let x = |i: usize, j: usize| f64::from(a[i] + b[j] + e[i * columns + j]);
            let count = (rows * columns) as f64;
            let all = || (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j)));
            let mean = all().map(|(i, j)| x(i, j)).sum::<f64>() / count;
            let mut sums = CrossedSums::default();
            sums.add(rows, columns, |i, j| (x(i, j) - mean) / count);
            let interval = Estimate::from_products(mean, &sums).interval.unwrap();
            covered += u32::from(interval.low <= 0.0 && 0.0 <= interval.high);
            let alone = Estimate::from_rows(mean, all().map(|(i, j)| (x(i, j) - mean) / count));
            let interval = alone.interval.unwrap();
            naive += u32::from(interval.low <= 0.0 && 0.0 <= interval.high);
        }
        assert!((364..=396).contains(&covered), "{covered} of {trials}");
        assert!(naive < 250, "{naive} of {trials}");
    }

    #[test]
    fn what_cannot_exceed_one_has_an_interval_below_it() {
        let mut sums = CrossedSums::default();
        sums.add(8, 8, |i, j| if (i + j) % 3 == 0 { 1e-3 } else { -5e-4 });
        let estimate = Estimate::from_products(1.0 - 1e-6, &sums).below_one();
        let interval = estimate.interval.unwrap();
        assert!(interval.low < estimate.value && estimate.value < interval.high);
        assert!(interval.high <= 1.0 && interval.low >= -1.0);
        // A few rows are no sample.
        let mut few = CrossedSums::default();
        few.add(5, 100, |_, _| 0.0);
        assert_eq!(
            Estimate::from_products(0.5, &few).below_one(),
            Estimate::alone(0.5)
        );
        assert_eq!(Estimate::from_rows(f64::INFINITY, [0.0; 9]).interval, None);
    }
}
