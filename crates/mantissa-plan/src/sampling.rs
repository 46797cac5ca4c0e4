//! A bounded, deterministic subsample of whole rows of a product's operands.

use mantissa_formats::RandomBits;
use mantissa_quant::{Operand, amax};

use crate::profile::{OperandStatistics, PassSample};
use crate::site::Pass;

/// How much of the operands of a product is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Rows of each operand, over all matrices of its batch; at least one of each is taken.
    pub rows: usize,
    /// Matrices of a batch; at least one is taken.
    pub matrices: usize,
    /// Elements of each operand; fewer rows are taken where they are long.
    pub elements: usize,
}

impl Default for Sampling {
    /// 32 rows, 4 matrices, 65,536 elements.
    fn default() -> Self {
        Self {
            rows: 32,
            matrices: 4,
            elements: 1 << 16,
        }
    }
}

/// What was measured of one pass in one step, ready for [`Profile::record`](crate::Profile::record).
#[derive(Clone, Debug, PartialEq)]
pub struct SampledPass {
    /// The rows.
    pub sample: PassSample,
    /// The left operand's statistics.
    pub left: OperandStatistics,
    /// The right operand's statistics.
    pub right: OperandStatistics,
}

impl Sampling {
    /// Measures the left and the right operand of one pass, whose largest finite magnitudes are `amax`, each multiplied with its
    /// part of `factors`. The rows are drawn with `random`: see [`draws`]. `None` if there is no element.
    pub fn measure(
        &self,
        step: u64,
        operands: [&Operand<'_>; 2],
        amax: [f32; 2],
        factors: [f32; 2],
        random: RandomBits,
    ) -> Option<SampledPass> {
        let mut sample = self.rows(step, operands, amax, random)?;
        sample.multiply(factors);
        let [left, right] = operands;
        let statistics =
            |of: &_, amax, rows: &[f32]| OperandStatistics::of(step, shape(of), amax, rows);
        let (left, right) = rayon::join(
            || statistics(left, sample.left_amax, &sample.left),
            || statistics(right, sample.right_amax, &sample.right),
        );
        Some(SampledPass {
            sample,
            left,
            right,
        })
    }

    /// The rows alone that [`measure`](Self::measure) takes.
    pub fn rows(
        &self,
        step: u64,
        [left, right]: [&Operand<'_>; 2],
        [left_amax, right_amax]: [f32; 2],
        random: RandomBits,
    ) -> Option<PassSample> {
        if left.count() == 0 || right.count() == 0 {
            return None;
        }
        let matrices = spread(self.matrices.max(1), left.batch(), random, 0);
        let rows = (self.rows / matrices.len())
            .min(self.elements / left.depth.saturating_mul(matrices.len()))
            .max(1);
        let left_rows = spread(rows, left.outer, random, 1 << 16);
        let right_rows = spread(rows, right.outer, random, 2 << 16);
        let (left_elements, right_elements) = rayon::join(
            || gather(left, &matrices, &left_rows),
            || gather(right, &matrices, &right_rows),
        );
        Some(PassSample {
            step,
            batch: matrices.len(),
            outer_left: left_rows.len(),
            outer_right: right_rows.len(),
            depth: left.depth,
            left: left_elements,
            right: right_elements,
            left_amax,
            right_amax,
        })
    }
}

/// The stream from which the rows of one pass of the `site`-th site are drawn: they differ between sites, passes and
/// steps, and are the same in every run of a seed.
pub fn draws(seed: u64, step: u64, site: usize, pass: Pass) -> RandomBits {
    RandomBits::new(seed, step << 24 | (site as u64) << 2 | pass as u64)
}

/// The largest finite magnitude in `operand`; 0 without any.
pub fn finite_amax(operand: &Operand<'_>) -> f32 {
    let largest = amax(operand);
    if largest.is_finite() {
        return largest;
    }
    let rows = operand.offsets.iter().flat_map(|&offset| {
        (0..operand.outer).flat_map(move |row| {
            (0..operand.depth)
                .map(move |k| offset + row * operand.outer_stride + k * operand.depth_stride)
        })
    });
    rows.map(|i| operand.data[i].abs())
        .filter(|x| x.is_finite())
        .fold(0.0, f32::max)
}

/// `count` indices below `len`, one drawn from each of `count` equal stretches; all of them if there are not more.
fn spread(count: usize, len: usize, random: RandomBits, stream: u64) -> Vec<usize> {
    if count >= len {
        return (0..len).collect();
    }
    (0..count)
        .map(|i| {
            let (start, end) = (i * len / count, (i + 1) * len / count);
            let drawn = u64::from(random.at(stream + i as u64)) * (end - start) as u64;
            start + (drawn >> 32) as usize
        })
        .collect()
}

fn shape(operand: &Operand<'_>) -> [usize; 3] {
    [operand.batch(), operand.outer, operand.depth]
}

/// Whole rows of some matrices, one after the other.
fn gather(operand: &Operand<'_>, matrices: &[usize], rows: &[usize]) -> Vec<f32> {
    /// Where rows lie across memory, as many elements of each are read before the next row, which finds their cache lines.
    const RUN: usize = 16;
    let depth = operand.depth;
    let mut gathered = vec![0.0; matrices.len() * rows.len() * depth];
    let of_matrices = gathered.chunks_exact_mut(rows.len() * depth);
    for (&matrix, gathered) in matrices.iter().zip(of_matrices) {
        for start in (0..depth).step_by(RUN) {
            let run = start..depth.min(start + RUN);
            for (&row, gathered) in rows.iter().zip(gathered.chunks_exact_mut(depth)) {
                for (k, gathered) in run.clone().zip(&mut gathered[run.clone()]) {
                    *gathered = operand.at(matrix, row, k);
                }
            }
        }
    }
    gathered
}
