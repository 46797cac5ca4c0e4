//! What the numerics of two operands do to their product.

use mantissa_formats::RandomBits;
use mantissa_quant::{Factor, Numerics, Operand, product};
use serde::{Deserialize, Serialize};

use crate::Interval;
use crate::interval::interval_ranks;
use crate::row::row;

/// Distribution of the backward error of a product over its elements.
///
/// The backward error of an element is `|LR − Q(L,R)| / (|L||R|)` (Rasquinha and Tabak 2024, arXiv
/// 2408.02897, section IV-A): LR the exact product, Q(L,R) the product of the quantized operands,
/// and |L||R| the product of the matrices of absolute values, so that an element that is small by
/// cancellation is not blamed on the numerics.
#[derive(Copy, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackwardError {
    /// Elements of the product that were compared.
    pub count: u64,
    /// Elements left out: all their factors have a zero, or the exact product is not finite.
    pub excluded: u64,
    /// Median. An element of Q(L,R) that is not finite counts as an infinite error, here and below.
    #[serde(with = "crate::serial::unbounded")]
    pub median: f64,
    /// 95 % confidence interval of the median, as if each row of the smaller operand were one draw:
    /// the elements of a product share rows, and this is the most cautious reading. `None` for
    /// fewer than 6 rows.
    pub median_interval: Option<Interval>,
    /// 95th percentile.
    #[serde(with = "crate::serial::unbounded")]
    pub p95: f64,
    /// Likewise of the 95th percentile; `None` for fewer than 72 rows.
    #[serde(default)]
    pub p95_interval: Option<Interval>,
    /// 99th percentile.
    #[serde(with = "crate::serial::unbounded")]
    pub p99: f64,
    /// Likewise of the 99th percentile; `None` for fewer than 368 rows.
    #[serde(default)]
    pub p99_interval: Option<Interval>,
    /// Mean.
    #[serde(with = "crate::serial::unbounded")]
    pub mean: f64,
}

impl BackwardError {
    /// Summary of the errors of single elements, for example of several products together.
    ///
    /// `independent` of them count as independent draws in the confidence interval: for one
    /// product, the rows of the smaller operand. `excluded` is passed through. `None` without
    /// errors.
    pub fn from_errors(mut errors: Vec<f64>, independent: usize, excluded: u64) -> Option<Self> {
        if errors.is_empty() {
            return None;
        }
        let mean = errors.iter().sum::<f64>() / errors.len() as f64;
        const QUANTILES: [f64; 3] = [0.5, 0.95, 0.99];
        let ends = QUANTILES.map(|p| interval_ranks(errors.len(), p, independent, 0.95));
        let places = QUANTILES.map(|p| Place::of(p, errors.len()));
        let of_ends = ends.iter().flatten().flat_map(|&(low, high)| [low, high]);
        let of_places = places.iter().flat_map(|place| [place.rank, place.next]);
        order_at(&mut errors, of_ends.chain(of_places).collect());
        let [median, p95, p99] = places.map(|place| place.read(&errors));
        let [median_interval, p95_interval, p99_interval] = ends.map(|ends| {
            ends.map(|(low, high)| Interval {
                low: errors[low],
                high: errors[high],
            })
        });
        Some(Self {
            count: errors.len() as u64,
            excluded,
            median,
            median_interval,
            p95,
            p95_interval,
            p99,
            p99_interval,
            mean,
        })
    }
}

/// The exact product of two operands, computed once to be compared with many numerics.
#[derive(Clone, Debug)]
pub struct ExactProduct<'a> {
    lhs: Operand<'a>,
    rhs: Operand<'a>,
    /// LR, `[batch, m, n]` row-major.
    product: Vec<f64>,
    /// |L||R|, likewise.
    magnitude: Vec<f64>,
}

impl<'a> ExactProduct<'a> {
    /// Multiplies in f64, where products of two f32 are exact and only their sum rounds.
    ///
    /// # Panics
    /// If the operands differ in batch or depth, or reach outside their data.
    pub fn new(lhs: &Operand<'a>, rhs: &Operand<'a>) -> Self {
        assert_eq!(
            (lhs.batch(), lhs.depth),
            (rhs.batch(), rhs.depth),
            "batch and depth of the operands of a product"
        );
        // Rows are padded before the surplus is cut off.
        let elements = lhs.batch() * lhs.outer * rhs.outer + TOGETHER;
        let mut exact = Self {
            lhs: *lhs,
            rhs: *rhs,
            product: Vec::with_capacity(elements),
            magnitude: Vec::with_capacity(elements),
        };
        for matrix in 0..lhs.batch() {
            pulp::Arch::new().dispatch(Matrix {
                lhs: &Rows::pack(lhs, matrix, 1),
                rhs: &Rows::pack(rhs, matrix, TOGETHER),
                columns: rhs.outer,
                product: &mut exact.product,
                magnitude: &mut exact.magnitude,
            });
        }
        exact
    }

    /// The exact product, `[batch, m, n]` row-major.
    pub fn product(&self) -> &[f64] {
        &self.product
    }

    /// Matrices, rows and columns of the product.
    pub fn shape(&self) -> [usize; 3] {
        [self.lhs.batch(), self.lhs.outer, self.rhs.outer]
    }

    /// `(Q(L,R) − LR) / (|L||R|)` of every element of another result for the same product, `[batch,
    /// m, n]` row-major: NaN for elements that have no backward error (all their factors have a
    /// zero, or the exact product is not finite), and infinite where the result is not finite.
    ///
    /// # Panics
    /// If the result has another number of elements.
    pub fn signed_errors_of(&self, result: &[f32]) -> Vec<f64> {
        assert_eq!(result.len(), self.product.len(), "elements of the product");
        let exact = self.product.iter().zip(&self.magnitude);
        exact
            .zip(result)
            .map(|((&product, &magnitude), &result)| {
                if !(product.is_finite() && magnitude > 0.0) {
                    f64::NAN
                } else if result.is_finite() {
                    (f64::from(result) - product) / magnitude
                } else {
                    f64::INFINITY
                }
            })
            .collect()
    }

    /// Backward errors of the elements of another result for the same product: the magnitudes of its
    /// [`signed_errors_of`](Self::signed_errors_of), without the elements that have none.
    ///
    /// # Panics
    /// If the result has another number of elements.
    pub fn errors_of(&self, result: &[f32]) -> Vec<f64> {
        let signed = self.signed_errors_of(result);
        let defined = signed.into_iter().filter(|error| !error.is_nan());
        defined.map(f64::abs).collect()
    }

    /// Backward error of the product in these numerics; `None` if no element has one.
    ///
    /// The random bits are read only by numerics that round stochastically.
    pub fn backward_error(
        &self,
        lhs_numerics: &Numerics,
        lhs_random: RandomBits,
        rhs_numerics: &Numerics,
        rhs_random: RandomBits,
    ) -> Option<BackwardError> {
        let mut result = vec![0.0; self.product.len()];
        product(
            Factor::new(self.lhs, *lhs_numerics, lhs_random),
            Factor::new(self.rhs, *rhs_numerics, rhs_random),
            None,
            &mut result,
        );
        let errors = self.errors_of(&result);
        let excluded = (result.len() - errors.len()) as u64;
        BackwardError::from_errors(
            errors,
            self.lhs.batch() * self.lhs.outer.min(self.rhs.outer),
            excluded,
        )
    }
}

/// Backward error of one product; [`ExactProduct`] compares several numerics of the same operands.
/// `None` if no element has a backward error, as in a product of zeros.
///
/// # Panics
/// If the operands differ in batch or depth, or reach outside their data.
pub fn backward_error(
    lhs: &Operand,
    lhs_numerics: &Numerics,
    lhs_random: RandomBits,
    rhs: &Operand,
    rhs_numerics: &Numerics,
    rhs_random: RandomBits,
) -> Option<BackwardError> {
    ExactProduct::new(lhs, rhs).backward_error(lhs_numerics, lhs_random, rhs_numerics, rhs_random)
}

/// Accumulators of one dot product; fixed, so that every machine adds in the same order.
const LANES: usize = 8;
/// Rows of the right operand that are multiplied in one pass over a row of the left one.
const TOGETHER: usize = 4;

/// One matrix of an operand as rows of f64 along the contraction, padded with zeros.
struct Rows {
    values: Vec<f64>,
    /// Length of a row: a multiple of [`LANES`], at least one.
    depth: usize,
}

impl Rows {
    fn pack(operand: &Operand, matrix: usize, outer_multiple: usize) -> Self {
        let depth = operand.depth.next_multiple_of(LANES).max(LANES);
        let mut values = vec![0.0; operand.outer.next_multiple_of(outer_multiple) * depth];
        let mut buffer = Vec::new();
        for (outer, padded) in values
            .chunks_exact_mut(depth)
            .enumerate()
            .take(operand.outer)
        {
            for (value, &x) in padded
                .iter_mut()
                .zip(row(operand, matrix, outer, &mut buffer))
            {
                *value = f64::from(x);
            }
        }
        Self { values, depth }
    }
}

/// The product of one matrix of the batch, appended to what there is; instructions are chosen at
/// run time.
struct Matrix<'a> {
    lhs: &'a Rows,
    rhs: &'a Rows,
    /// Rows of `rhs` without the padding.
    columns: usize,
    product: &'a mut Vec<f64>,
    magnitude: &'a mut Vec<f64>,
}

impl pulp::WithSimd for Matrix<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        for row in self.lhs.values.chunks_exact(self.lhs.depth) {
            let end = self.product.len() + self.columns;
            for columns in self.rhs.values.chunks_exact(self.rhs.depth * TOGETHER) {
                let (product, magnitude) = dots(row, columns);
                self.product.extend(product);
                self.magnitude.extend(magnitude);
            }
            // Without the rows that padding added.
            self.product.truncate(end);
            self.magnitude.truncate(end);
        }
    }
}

/// Dot products of a row with [`TOGETHER`] rows that lie one after the other, and those of their
/// absolute values.
#[inline(always)]
fn dots(row: &[f64], columns: &[f64]) -> ([f64; TOGETHER], [f64; TOGETHER]) {
    let (row, _) = row.as_chunks::<LANES>();
    let (columns, _) = columns.as_chunks::<LANES>();
    let columns: [&[[f64; LANES]]; TOGETHER] =
        std::array::from_fn(|c| &columns[c * row.len()..(c + 1) * row.len()]);
    let (mut sums, mut magnitudes) = ([[0.0; LANES]; TOGETHER], [[0.0; LANES]; TOGETHER]);
    for (k, left) in row.iter().enumerate() {
        for c in 0..TOGETHER {
            let right = &columns[c][k];
            for lane in 0..LANES {
                let product = left[lane] * right[lane];
                sums[c][lane] += product;
                magnitudes[c][lane] += product.abs();
            }
        }
    }
    (
        sums.map(|lanes| lanes.iter().sum()),
        magnitudes.map(|lanes| lanes.iter().sum()),
    )
}

/// Brings the values of these ranks to their places, as sorting would, but in linear time.
fn order_at(values: &mut [f64], mut ranks: Vec<usize>) {
    ranks.sort_unstable();
    ranks.dedup();
    let mut settled = 0;
    for rank in ranks {
        values[settled..].select_nth_unstable_by(rank - settled, f64::total_cmp);
        settled = rank + 1;
    }
}

/// Where a quantile lies between two order statistics: linear interpolation, Hyndman and Fan's type
/// 7.
#[derive(Copy, Clone)]
struct Place {
    rank: usize,
    next: usize,
    fraction: f64,
}

impl Place {
    /// `count` is not zero.
    fn of(quantile: f64, count: usize) -> Self {
        let place = quantile * (count - 1) as f64;
        let rank = place as usize;
        Self {
            rank,
            next: (rank + 1).min(count - 1),
            fraction: place - rank as f64,
        }
    }

    fn read(&self, ordered: &[f64]) -> f64 {
        let (a, b) = (ordered[self.rank], ordered[self.next]);
        // Between equal values there is nothing to interpolate, and infinities must not meet in a
        // difference.
        if a == b || self.fraction == 0.0 {
            a
        } else {
            a + (b - a) * self.fraction
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantile(values: &[f64], p: f64) -> f64 {
        Place::of(p, values.len()).read(values)
    }

    #[test]
    fn ordering_at_ranks_agrees_with_sorting() {
        let values: Vec<f64> = (0..1000u64).map(|i| (i * 7919 % 1000) as f64).collect();
        let ranks = [0, 3, 499, 500, 500, 998, 999];
        let mut ordered = values.clone();
        order_at(&mut ordered, ranks.to_vec());
        assert!(ranks.iter().all(|&rank| ordered[rank] == rank as f64));
        let summary = BackwardError::from_errors(values.clone(), 1000, 3).unwrap();
        assert_eq!((summary.count, summary.excluded), (1000, 3));
        assert_eq!((summary.median, summary.mean), (499.5, 499.5));
        assert!((summary.p95 - 949.05).abs() < 1e-9 && (summary.p99 - 989.01).abs() < 1e-9);
        let sorted: Vec<f64> = (0..1000).map(f64::from).collect();
        assert_eq!(
            summary.median_interval,
            crate::quantile_interval(&sorted, 0.5, 1000, 0.95)
        );
        assert_eq!(BackwardError::from_errors(Vec::new(), 10, 0), None);
    }

    #[test]
    fn quantiles_interpolate_and_survive_infinities() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0, 8.0], 0.5), 3.0);
        assert_eq!(quantile(&[1.0, 2.0, f64::INFINITY], 0.5), 2.0);
        assert_eq!(
            quantile(&[1.0, f64::INFINITY, f64::INFINITY], 0.99),
            f64::INFINITY
        );
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
    }

    #[test]
    fn the_exact_product_equals_a_plain_loop() {
        let values = crate::sample::student_t(3.0, RandomBits::new(5, 0), 2 * 5 * 13 + 2 * 7 * 13);
        let (l, r) = values.split_at(2 * 5 * 13);
        let lhs = Operand::new(l, &[0, 65], [5, 13], [1, 5]).unwrap();
        let rhs = Operand::new(r, &[91, 0], [7, 13], [13, 1]).unwrap();
        let exact = ExactProduct::new(&lhs, &rhs);
        assert_eq!(exact.product.len(), 2 * 5 * 7);
        for (i, (&product, &magnitude)) in exact.product.iter().zip(&exact.magnitude).enumerate() {
            let (b, m, n) = (i / 35, i / 7 % 5, i % 7);
            let terms = (0..13).map(|k| f64::from(lhs.at(b, m, k)) * f64::from(rhs.at(b, n, k)));
            assert!(
                (product - terms.clone().sum::<f64>()).abs() <= 1e-14 * magnitude,
                "{i}"
            );
            assert!(
                (magnitude - terms.map(f64::abs).sum::<f64>()).abs() <= 1e-14 * magnitude,
                "{i}"
            );
        }
    }
}
