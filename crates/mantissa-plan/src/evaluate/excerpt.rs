//! The part of a sample that is evaluated.

use mantissa_formats::RandomBits;
use mantissa_metrics::{ErrorSums, row_errors};
use mantissa_quant::{Factor, Numerics, Operand, product, quantize};

use crate::profile::PassSample;

/// The part of a sample that is evaluated: evenly spaced matrices and rows, at their full depth.
#[derive(Clone, Debug)]
pub struct Excerpt {
    pub(super) sides: [Side; 2],
    batch: usize,
    depth: usize,
}

/// Rows of one operand, matrix after matrix, with one row more that holds nothing but the full operand's amax: at
/// tensor granularity, that row gives the rest the scale the whole operand would have.
#[derive(Clone, Debug)]
pub(super) struct Side {
    pub(super) rows: Vec<f32>,
    offsets: Vec<usize>,
    outer: usize,
}

/// A term of what an index of the contraction adds, of an element and what it is quantized to.
type Term = fn(f32, f32) -> f32;

/// Of either side's elements, the terms whose products an index of the contraction adds by itself to the squares of outputs. With l
/// the left operand's element and a its error, r the right one's and b its error, it adds l b + a (r + b) to the error:
/// written so, no sum is a small difference of large ones. The first three of both sides make the square of that; the
/// first two of the left side and the last two of the right one make its product with l r.
const TERMS: [&[Term]; 2] = [
    &[
        |l, _| l * l,
        |l, lq| l * (lq - l),
        |l, lq| (lq - l) * (lq - l),
    ],
    &[
        |r, rq| (rq - r) * (rq - r),
        |r, rq| 2.0 * (rq - r) * rq,
        |_, rq| rq * rq,
        |r, rq| r * (rq - r),
        |r, rq| r * rq,
    ],
];

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

    /// The sampled rows of the left (0) or right (1) operand.
    pub(crate) fn rows(&self, side: usize) -> &[f32] {
        self.sides[side].sampled()
    }

    /// How many elements the product of the rows has.
    pub fn outputs(&self) -> usize {
        self.batch * self.sides[0].outer * self.sides[1].outer
    }

    /// How many rows were sampled of the left (0) or right (1) operand, over all matrices.
    pub(crate) fn row_count(&self, side: usize) -> usize {
        self.sides[side].count()
    }

    /// Multiplies the rows of one side, and its amax, with a number.
    pub(crate) fn multiply_side(&mut self, side: usize, factor: f32) {
        // The row of the amax is one of them.
        for x in &mut self.sides[side].rows {
            *x *= factor;
        }
    }

    /// How many rows each matrix of either side has.
    pub(super) fn outer(&self) -> [usize; 2] {
        [0, 1].map(|side| self.sides[side].outer)
    }

    /// The product of rows of both sides, `[batch, left, right]`.
    pub(super) fn multiply(&self, rows: [&[f32]; 2]) -> Vec<f32> {
        let [left, right] = &self.sides;
        let mut result = vec![0.0; self.outputs()];
        product(
            Factor::fp32(left.view(self.depth, rows[0])),
            Factor::fp32(right.view(self.depth, rows[1])),
            None,
            &mut result,
        );
        result
    }

    /// What each index of the contraction adds by itself to the squares of the outputs in f32.
    pub(super) fn alone_exact(&self) -> Vec<f32> {
        let square: &[Term] = &[|x, _| x * x];
        let [left, right] = [0, 1].map(|side| {
            let side = &self.sides[side];
            side.terms(self.depth, side.sampled(), square)
        });
        self.multiply_terms([(&left, 1, 0), (&right, 1, 0)], 1)
    }

    /// What [`alone`](Self::alone) needs to know of a side.
    pub(super) fn terms(&self, side: usize, quantized: &[f32]) -> Vec<f32> {
        self.sides[side].terms(self.depth, quantized, TERMS[side])
    }

    /// What each index of the contraction adds by itself to the products of output and error, and to the squares of the error, from
    /// the [`terms`](Self::terms) of both sides.
    pub(super) fn alone(&self, terms: [&[f32]; 2]) -> [Vec<f32>; 2] {
        let [left, right] = terms;
        let places = TERMS.map(<[Term]>::len);
        [
            self.multiply_terms([(left, places[0], 0), (right, places[1], 3)], 2),
            self.multiply_terms([(left, places[0], 0), (right, places[1], 0)], 3),
        ]
    }

    /// Multiplies `count` terms of each side: of so many in its rows, from such a one on.
    fn multiply_terms(&self, sides: [(&[f32], usize, usize); 2], count: usize) -> Vec<f32> {
        let offsets = [0, 1].map(|index| {
            let (_, of, from) = sides[index];
            let offsets = self.sides[index].offsets.iter();
            let offsets = offsets.map(|offset| offset * of + from * self.depth);
            offsets.collect::<Vec<usize>>()
        });
        let factor = |index: usize| {
            let (data, of, _) = sides[index];
            Factor::fp32(Operand {
                data,
                offsets: &offsets[index],
                outer: self.sides[index].outer,
                depth: count * self.depth,
                outer_stride: of * self.depth,
                depth_stride: 1,
            })
        };
        let mut result = vec![0.0; self.outputs()];
        product(factor(0), factor(1), None, &mut result);
        result
    }

    /// Rows that meet in different products: no two of so many outputs share a row.
    pub(super) fn independent(&self) -> usize {
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

    /// The rows in these numerics, scales multiplied back in, and the error of each; the amax row left out of both.
    /// Rows of different matrices are quantized as one matrix, which only two-dimensional blocks can tell.
    pub(super) fn quantized(
        &self,
        depth: usize,
        numerics: &Numerics,
        random: RandomBits,
    ) -> (Vec<f32>, Vec<ErrorSums>) {
        let with_amax = Operand {
            data: &self.rows,
            offsets: &[0],
            outer: self.count() + 1,
            depth,
            outer_stride: depth,
            depth_stride: 1,
        };
        let sampled = Operand {
            outer: self.count(),
            ..with_amax
        };
        let quantized = quantize(&with_amax, numerics, random);
        let errors = row_errors(&sampled, &quantized, numerics);
        let mut values = quantized.dequantize();
        values.truncate(sampled.count());
        (values, errors)
    }

    /// Row after row, each term of all its elements.
    fn terms(&self, depth: usize, quantized: &[f32], terms: &[Term]) -> Vec<f32> {
        let mut data = Vec::with_capacity(quantized.len() * terms.len());
        let rows = self.sampled().chunks_exact(depth);
        for (row, quantized) in rows.zip(quantized.chunks_exact(depth)) {
            for term in terms {
                let pairs = row.iter().zip(quantized);
                data.extend(pairs.map(|(&x, &q)| term(x, q)));
            }
        }
        data
    }

    /// Rows in the layout of this side, matrix after matrix, as a product reads them.
    pub(super) fn view<'a>(&'a self, depth: usize, rows: &'a [f32]) -> Operand<'a> {
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
