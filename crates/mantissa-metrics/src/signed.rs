//! What the numerics of two operands do to the sign and the direction of their product.

use serde::{Deserialize, Serialize};

use crate::backward::ExactProduct;
use crate::error::cosine_of;
use crate::estimate::{CrossedSums, Estimate};

/// What the magnitude of the backward error is silent about: whether errors lean to one side, and
/// whether the product still points where it did.
///
/// For the product of a weight's gradient, the two cosines are those of the training step. Plain SGD
/// moves a weight by its gradient. Adam in its first step moves it by the gradient's *sign*: with
/// bias correction m / √v is g / |g|, whatever its decay rates, and its ε is taken as zero. In later
/// steps Adam averages gradients, and rounding errors with them, so the cosine of signs is the
/// cautious end.
#[derive(Copy, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignedError {
    /// Mean of `(Q(L,R) − LR) / (|L||R|)`: the backward error with its sign.
    pub bias: Estimate,
    /// Variance of the same.
    pub variance: f64,
    /// Cosine of the angle between LR and Q(L,R), as vectors of all elements; `None` if either is
    /// zero.
    pub cosine: Option<Estimate>,
    /// Cosine of the angle between their signs (−1, 0 or 1), likewise.
    pub sign_cosine: Option<Estimate>,
}

/// A product beside what numerics made of it.
pub struct Compared<'a> {
    exact: &'a ExactProduct<'a>,
    result: &'a [f32],
    /// [`ExactProduct::signed_errors_of`] the result.
    signed: &'a [f64],
}

impl<'a> Compared<'a> {
    /// `signed` are the product's [`signed_errors_of`](ExactProduct::signed_errors_of) the result.
    ///
    /// # Panics
    /// If the slices are not as long as the product has elements.
    pub fn new(exact: &'a ExactProduct<'a>, result: &'a [f32], signed: &'a [f64]) -> Self {
        let elements = exact.product().len();
        assert_eq!(result.len(), elements, "elements of the result");
        assert_eq!(signed.len(), elements, "errors of the result");
        Compared {
            exact,
            result,
            signed,
        }
    }

    /// Exact, computed and signed error of every element that has a backward error.
    fn defined(&self) -> impl Iterator<Item = (f64, f64, f64)> {
        let pairs = self.exact.product().iter().zip(self.result);
        pairs
            .zip(self.signed)
            .filter(|(_, error)| !error.is_nan())
            .map(|((&exact, &result), &error)| (exact, f64::from(result), error))
    }
}

impl SignedError {
    /// Over all elements of several products whose rows are drawn independently. `None` without
    /// elements that have a backward error, and where one is infinite.
    pub fn of(products: &[Compared]) -> Option<Self> {
        let (mut count, mut sum, mut squares) = (0u64, 0.0, 0.0);
        let (mut values, mut signs) = (Angle::default(), Angle::default());
        for (exact, result, error) in products.iter().flat_map(Compared::defined) {
            count += 1;
            sum += error;
            squares += error * error;
            values.add(exact, result);
            signs.add(sign(exact), sign(result));
        }
        let n = count as f64;
        let mean = sum / n;
        if count == 0 || !squares.is_finite() {
            return None;
        }
        let angle = |angle: &Angle, view: fn(f64) -> f64| {
            let cosine = angle.cosine()?;
            let influences = crossed(products, |exact, result, _| {
                angle.influence(cosine, view(exact), view(result))
            });
            Some(Estimate::from_products(cosine, &influences).below_one())
        };
        Some(SignedError {
            bias: Estimate::from_products(
                mean,
                &crossed(products, |_, _, error| (error - mean) / n),
            ),
            variance: (squares / n - mean * mean).max(0.0),
            cosine: angle(&values, |x| x),
            sign_cosine: angle(&signs, sign),
        })
    }
}

/// The influences of all elements, those without a backward error as none.
fn crossed(products: &[Compared], influence: impl Fn(f64, f64, f64) -> f64) -> CrossedSums {
    let mut sums = CrossedSums::default();
    for compared in products {
        let [batch, rows, columns] = compared.exact.shape();
        for matrix in 0..batch {
            sums.add(rows, columns, |row, column| {
                let index = (matrix * rows + row) * columns + column;
                let error = compared.signed[index];
                if error.is_nan() {
                    return 0.0;
                }
                influence(
                    compared.exact.product()[index],
                    f64::from(compared.result[index]),
                    error,
                )
            });
        }
    }
    sums
}

/// The sums a cosine is made of.
#[derive(Default)]
struct Angle {
    dot: f64,
    exact: f64,
    result: f64,
}

impl Angle {
    fn add(&mut self, exact: f64, result: f64) {
        self.dot += exact * result;
        self.exact += exact * exact;
        self.result += result * result;
    }

    fn cosine(&self) -> Option<f64> {
        cosine_of(self.dot, self.exact, self.result)
    }

    /// How much one element moves the cosine: its derivative by the three sums.
    fn influence(&self, cosine: f64, exact: f64, result: f64) -> f64 {
        exact * result / (self.exact * self.result).sqrt()
            - 0.5 * cosine * (exact * exact / self.exact + result * result / self.result)
    }
}

fn sign(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x.signum() }
}
