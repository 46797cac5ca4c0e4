//! Exact products of integer codes on the f32 kernels.
//!
//! A sum of products of integers is exact in f32 as long as no partial sum leaves ±2^24. A short
//! contraction cannot leave it, nor can one whose rows have small norms (Cauchy-Schwarz bounds every
//! partial sum, in any order); any other is cut into short pieces whose exact sums are added in f64,
//! which holds every integer that an i32 accumulator holds and more.

use gemm::Parallelism;
use rayon::prelude::*;

use crate::line;
use crate::matmul::{Matrices, multiply, multiply_batch};
use crate::panel::{Order, Panel};

/// Integers up to here are exact in f32.
const EXACT: f64 = (1u32 << 24) as f64;
/// Elements of a row block, whose sums are kept in f64 while it is computed.
const BLOCK_ELEMENTS: usize = 1 << 19;
/// Elements that one task adds up.
const TASK_ELEMENTS: usize = 1 << 14;

/// The longest contraction of codes of these magnitudes that is exact in any case; 1040 for int8.
fn exact_depth(lhs_max: f32, rhs_max: f32) -> usize {
    (EXACT / (f64::from(lhs_max) * f64::from(rhs_max))) as usize
}

/// An upper bound on the squared norm of every row of codes, but not much above it; NaN if an
/// element is NaN.
fn largest_squared_norm(panel: &Panel, outer: usize, depth: usize) -> f64 {
    // The sums round, by less than 2^-24 of the sum for each of the elements.
    let slack = 1.0 + depth as f64 / EXACT * 2.0;
    let larger = |most: f32, sum: f32| {
        if sum > most || sum.is_nan() {
            sum
        } else {
            most
        }
    };
    let norms = |matrix: &[f32]| match panel.order {
        Order::OuterMajor => {
            let rows = matrix.par_chunks(depth).map(line::squared_norm);
            rows.reduce(|| 0.0, larger)
        }
        Order::DepthMajor => {
            let mut sums = vec![0.0; outer];
            for line in matrix.chunks(outer) {
                line::add_squares(&mut sums, line);
            }
            sums.into_iter().fold(0.0, larger)
        }
    };
    let matrices = panel.values.par_chunks((outer * depth).max(1)).map(norms);
    f64::from(matrices.reduce(|| 0.0, larger)) * slack
}

/// What an exact product needs to know of one operand.
pub struct Codes<'a> {
    /// The codes with their largest possible magnitude.
    pub panel: &'a Panel,
    /// The largest magnitude a code of this format has.
    pub max: f32,
    /// The codes as matrices.
    pub matrices: Matrices<'a>,
    /// Length of the axis that is not contracted.
    pub outer: usize,
}

/// `out[b, m, n] = sum over k of lhs[b, m, k] * rhs[b, n, k]` of integer codes: the exact integers,
/// rounded once to f32.
pub fn multiply_exactly(lhs: &Codes, rhs: &Codes, depth: usize, out: &mut [f32]) {
    let piece = exact_depth(lhs.max, rhs.max);
    let within = |bound: f64| bound < EXACT * EXACT;
    if depth <= piece
        || within(
            largest_squared_norm(lhs.panel, lhs.outer, depth)
                * largest_squared_norm(rhs.panel, rhs.outer, depth),
        )
    {
        return multiply_batch(&lhs.matrices, &rhs.matrices, out);
    }
    let (rows, columns) = (lhs.outer, rhs.outer);
    if rows * columns == 0 {
        return;
    }
    let block = (BLOCK_ELEMENTS / columns).clamp(1, rows);
    let mut sums = vec![0f64; block * columns];
    let mut products = vec![0f32; block * columns];
    for (matrix, out) in out.chunks_mut(rows * columns).enumerate() {
        for (index, out) in out.chunks_mut(block * columns).enumerate() {
            let first = index * block;
            let last = first + out.len() / columns;
            let (sums, products) = (&mut sums[..out.len()], &mut products[..out.len()]);
            sums.fill(0.0);
            for start in (0..depth).step_by(piece) {
                let end = depth.min(start + piece);
                let lhs = lhs.matrices.part(matrix, first..last, start..end);
                let rhs = rhs.matrices.part(matrix, 0..columns, start..end);
                multiply(lhs, rhs, products, Parallelism::Rayon(0));
                let tasks = sums.par_chunks_mut(TASK_ELEMENTS);
                tasks
                    .zip(products.par_chunks(TASK_ELEMENTS))
                    .for_each(|(sums, products)| {
                        for (sum, product) in sums.iter_mut().zip(products) {
                            *sum += f64::from(*product);
                        }
                    });
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = *sum as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_as_long_as_they_can_be() {
        assert_eq!(exact_depth(127.0, 127.0), 1040);
        assert_eq!(exact_depth(127.0, 7.0), 18872);
    }
}
