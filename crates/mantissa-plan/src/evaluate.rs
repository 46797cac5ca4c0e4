//! What a pair of numerics does to a measured product.

use std::collections::HashMap;

use mantissa_formats::RandomBits;
use mantissa_metrics::{BackwardError, ExactProduct, QuantizationError};
use mantissa_quant::{Factor, Numerics, Operand, product, quantize};

use crate::profile::PassSample;
use crate::site::PassNumerics;

/// How far upper ends of confidence intervals lie above their estimates, in standard errors: 95 %, two-sided.
const STANDARD_ERRORS: f64 = 1.96;

/// What a pair of numerics does to a product.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairError {
    /// The pair.
    pub numerics: PassNumerics,
    /// The product's backward error over all samples; `None` where the samples hold nothing but zeros or non-finite products.
    pub product: Option<BackwardError>,
    /// The left operand's own error.
    pub left: OperandError,
    /// The right operand's own error.
    pub right: OperandError,
}

/// What numerics do to one operand.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OperandError {
    /// The share of elements that were not zero and became zero.
    pub underflow: Share,
    /// The share of elements that were clipped.
    pub saturation: Share,
    /// Magnitude of the mean error as a share of the mean magnitude.
    pub bias: Share,
}

/// A share and the upper end of its confidence interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share {
    /// The estimate from the samples.
    pub estimate: f64,
    /// Normal approximation of the 95 % confidence interval's upper end.
    pub high: f64,
}

impl Share {
    /// A share of `total` elements.
    fn of_elements(estimate: f64, total: u64) -> Self {
        let standard_error = (estimate * (1.0 - estimate) / total.max(1) as f64)
            .max(0.0)
            .sqrt();
        Share {
            estimate,
            high: estimate + STANDARD_ERRORS * standard_error,
        }
    }
}

/// The part of a sample that is evaluated: evenly spaced matrices and rows, at their full depth.
#[derive(Clone, Debug)]
pub struct Excerpt {
    sides: [Side; 2],
    batch: usize,
    depth: usize,
}

/// Rows of one operand, matrix after matrix, with one row more that holds nothing but the full operand's amax: at
/// tensor granularity, that row gives the rest the scale the whole operand would have.
#[derive(Clone, Debug)]
struct Side {
    rows: Vec<f32>,
    offsets: Vec<usize>,
    outer: usize,
}

impl Excerpt {
    /// At most about `outputs` products of rows from a sample.
    pub fn new(sample: &PassSample, outputs: usize) -> Self {
        let outputs = outputs.max(1);
        let batch = sample.batch.min(outputs);
        let (left, right) = rows_kept(
            sample.outer_left,
            sample.outer_right,
            (outputs / batch).max(1),
        );
        Excerpt {
            sides: [
                Side::new(sample, 0, batch, left),
                Side::new(sample, 1, batch, right),
            ],
            batch,
            depth: sample.depth,
        }
    }

    /// The length of the contraction.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Rows that meet in different products: no two of so many outputs share a row.
    fn independent(&self) -> usize {
        self.batch * self.sides[0].outer.min(self.sides[1].outer)
    }
}

/// Rows of either side so that their product has at most `outputs` elements, as square as the sides allow.
fn rows_kept(left: usize, right: usize, outputs: usize) -> (usize, usize) {
    let root = outputs.isqrt().max(1);
    let kept_right = right.min((outputs / left.min(root)).max(1));
    (left.min((outputs / kept_right).max(1)), kept_right)
}

/// `count` indices evenly spaced below `len`.
fn spaced(len: usize, count: usize) -> impl Iterator<Item = usize> + Clone {
    (0..count).map(move |i| (i as u128 * len as u128 / count as u128) as usize)
}

impl Side {
    fn new(sample: &PassSample, side: usize, batch: usize, outer: usize) -> Self {
        let (full_outer, elements, amax) = sample.side(side);
        let mut rows = Vec::with_capacity((batch * outer + 1) * sample.depth);
        for matrix in spaced(sample.batch, batch) {
            for row in spaced(full_outer, outer) {
                let start = (matrix * full_outer + row) * sample.depth;
                rows.extend_from_slice(&elements[start..start + sample.depth]);
            }
        }
        rows.push(amax);
        rows.resize((batch * outer + 1) * sample.depth, 0.0);
        let offsets = (0..batch)
            .map(|matrix| matrix * outer * sample.depth)
            .collect();
        Side {
            rows,
            offsets,
            outer,
        }
    }

    /// How many rows there are without the amax row.
    fn count(&self) -> usize {
        self.offsets.len() * self.outer
    }

    /// The rows without the amax row.
    fn sampled(&self) -> &[f32] {
        let depth = self.rows.len() / (self.count() + 1);
        &self.rows[..self.count() * depth]
    }

    /// The rows in these numerics, scales multiplied back in, and how many elements were clipped; the amax row left out
    /// of both. Rows of different matrices are quantized as one matrix, which only two-dimensional blocks can tell.
    fn quantized(&self, depth: usize, numerics: &Numerics, random: RandomBits) -> (Vec<f32>, u64) {
        let rows = Operand {
            data: &self.rows,
            offsets: &[0],
            outer: self.count() + 1,
            depth,
            outer_stride: depth,
            depth_stride: 1,
        };
        let quantized = quantize(&rows, numerics, random);
        let edge = numerics.format.overflow_threshold();
        let clipped = |(index, x): (usize, &f32)| {
            x.is_finite() && (x / quantized.scale(0, index / depth, index % depth)).abs() >= edge
        };
        let saturated = self
            .sampled()
            .iter()
            .enumerate()
            .filter(|&element| clipped(element))
            .count();
        let mut values = quantized.dequantize();
        values.truncate(self.sampled().len());
        (values, saturated as u64)
    }
}

/// Evaluates pairs of numerics on the same excerpts; what pairs have in common is computed once.
pub struct Evaluator<'e> {
    excerpts: &'e [Excerpt],
    exact: Vec<ExactProduct<'e>>,
    seed: u64,
    stream: u64,
    quantized: HashMap<(usize, Numerics), QuantizedSide>,
}

/// One operand's rows in some numerics, of every excerpt, and the error over all of them.
struct QuantizedSide {
    rows: Vec<Vec<f32>>,
    error: OperandError,
}

impl<'e> Evaluator<'e> {
    /// Multiplies the excerpts exactly. Stochastic numerics draw from two streams of `seed` for each excerpt, numbered
    /// from `stream` on.
    pub fn new(excerpts: &'e [Excerpt], seed: u64, stream: u64) -> Self {
        let exact = excerpts
            .iter()
            .map(|excerpt| {
                let [left, right] = &excerpt.sides;
                ExactProduct::new(
                    &left.view(excerpt.depth, &left.rows),
                    &right.view(excerpt.depth, &right.rows),
                )
            })
            .collect();
        Evaluator {
            excerpts,
            exact,
            seed,
            stream,
            quantized: HashMap::new(),
        }
    }

    /// What this pair of numerics does to the product.
    pub fn pair(&mut self, numerics: PassNumerics) -> PairError {
        self.quantize(0, numerics.left);
        self.quantize(1, numerics.right);
        let (left, right) = (
            &self.quantized[&(0, numerics.left)],
            &self.quantized[&(1, numerics.right)],
        );
        let (mut errors, mut excluded, mut independent) = (Vec::new(), 0, 0);
        for (index, (excerpt, exact)) in self.excerpts.iter().zip(&self.exact).enumerate() {
            let [left_side, right_side] = &excerpt.sides;
            let mut result = vec![0.0; excerpt.batch * left_side.outer * right_side.outer];
            product(
                Factor::fp32(left_side.view(excerpt.depth, &left.rows[index])),
                Factor::fp32(right_side.view(excerpt.depth, &right.rows[index])),
                None,
                &mut result,
            );
            let of_this = exact.errors_of(&result);
            excluded += (result.len() - of_this.len()) as u64;
            errors.extend(of_this);
            independent += excerpt.independent();
        }
        PairError {
            numerics,
            product: BackwardError::from_errors(errors, independent, excluded),
            left: left.error,
            right: right.error,
        }
    }

    fn quantize(&mut self, side: usize, numerics: Numerics) {
        if self.quantized.contains_key(&(side, numerics)) {
            return;
        }
        let random = |index: usize| {
            RandomBits::new(
                self.seed,
                self.stream.wrapping_add((2 * index + side) as u64),
            )
        };
        let sides = self
            .excerpts
            .iter()
            .map(|excerpt| (&excerpt.sides[side], excerpt.depth))
            .enumerate();
        let rows: Vec<(Vec<f32>, u64)> = sides
            .map(|(index, (side, depth))| side.quantized(depth, &numerics, random(index)))
            .collect();
        let originals: Vec<f32> = self
            .excerpts
            .iter()
            .flat_map(|excerpt| excerpt.sides[side].sampled())
            .copied()
            .collect();
        let values: Vec<f32> = rows
            .iter()
            .flat_map(|(values, _)| values)
            .copied()
            .collect();
        let saturated = rows.iter().map(|(_, saturated)| saturated).sum();
        let error = OperandError::of(&originals, &values, saturated);
        let rows = rows.into_iter().map(|(values, _)| values).collect();
        self.quantized
            .insert((side, numerics), QuantizedSide { rows, error });
    }
}

impl OperandError {
    fn of(originals: &[f32], values: &[f32], saturated: u64) -> Self {
        let error = QuantizationError::from_pairs(originals, values, saturated);
        let total = error.count + error.non_finite;
        let magnitude: f64 = originals
            .iter()
            .filter(|x| x.is_finite())
            .map(|x| f64::from(x.abs()))
            .sum();
        let mean_magnitude = magnitude / error.count.max(1) as f64;
        let relative = |error: f64| {
            if mean_magnitude > 0.0 {
                error / mean_magnitude
            } else {
                0.0
            }
        };
        let standard_error =
            ((error.mse - error.bias * error.bias).max(0.0) / error.count.max(1) as f64).sqrt();
        OperandError {
            underflow: Share::of_elements(error.underflow, total),
            saturation: Share::of_elements(error.saturation, total),
            bias: Share {
                estimate: relative(error.bias.abs()),
                high: relative(error.bias.abs() + STANDARD_ERRORS * standard_error),
            },
        }
    }
}

impl Side {
    fn view<'a>(&'a self, depth: usize, rows: &'a [f32]) -> Operand<'a> {
        Operand {
            data: rows,
            offsets: &self.offsets,
            outer: self.outer,
            depth,
            outer_stride: depth,
            depth_stride: 1,
        }
    }
}
