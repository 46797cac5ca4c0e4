//! Products of f32 matrices: the one place that calls the GEMM kernels.
//!
//! The kernels cut rows and columns among threads but never the contraction, so an element of the
//! result is always summed in the same order and does not depend on the number of threads.

use gemm::Parallelism;
use rayon::prelude::*;

/// A batch of strided matrices `[outer, depth]`.
#[derive(Copy, Clone, Debug)]
pub struct Matrices<'a> {
    data: &'a [f32],
    starts: Starts<'a>,
    outer: usize,
    depth: usize,
    outer_stride: usize,
    depth_stride: usize,
}

#[derive(Copy, Clone, Debug)]
enum Starts<'a> {
    At(&'a [usize]),
    Every { distance: usize, batch: usize },
}

impl<'a> Matrices<'a> {
    /// The matrices of an operand, whose bounds are checked here.
    pub fn of(operand: &crate::Operand<'a>) -> Self {
        operand.assert_inside();
        Matrices {
            data: operand.data,
            starts: Starts::At(operand.offsets),
            outer: operand.outer,
            depth: operand.depth,
            outer_stride: operand.outer_stride,
            depth_stride: operand.depth_stride,
        }
    }

    /// Contiguous matrices one after another, `depth` varying fastest if `outer_major`.
    pub fn contiguous(
        data: &'a [f32],
        batch: usize,
        [outer, depth]: [usize; 2],
        outer_major: bool,
    ) -> Self {
        assert_eq!(data.len(), batch * outer * depth);
        let (outer_stride, depth_stride) = if outer_major { (depth, 1) } else { (1, outer) };
        let starts = Starts::Every {
            distance: outer * depth,
            batch,
        };
        Matrices {
            data,
            starts,
            outer,
            depth,
            outer_stride,
            depth_stride,
        }
    }

    /// Matrices in the batch.
    pub fn batch(&self) -> usize {
        match self.starts {
            Starts::At(starts) => starts.len(),
            Starts::Every { batch, .. } => batch,
        }
    }

    /// Where a matrix begins; a batch of one serves every matrix of the other operand.
    fn start(&self, matrix: usize) -> usize {
        let matrix = if self.batch() == 1 { 0 } else { matrix };
        match self.starts {
            Starts::At(starts) => starts[matrix],
            Starts::Every { distance, .. } => matrix * distance,
        }
    }

    /// The part of one matrix that a product reads: some rows, some of the contraction.
    pub fn part(
        &self,
        matrix: usize,
        rows: std::ops::Range<usize>,
        depth: std::ops::Range<usize>,
    ) -> Part<'a> {
        assert!(rows.start <= rows.end && rows.end <= self.outer);
        assert!(depth.start <= depth.end && depth.end <= self.depth);
        let (outer, depth_len) = (rows.len(), depth.len());
        let data = if outer == 0 || depth_len == 0 {
            &[]
        } else {
            let first = self.start(matrix)
                + rows.start * self.outer_stride
                + depth.start * self.depth_stride;
            let reach = (outer - 1) * self.outer_stride + (depth_len - 1) * self.depth_stride;
            &self.data[first..first + reach + 1]
        };
        Part {
            data,
            outer,
            depth: depth_len,
            outer_stride: self.outer_stride,
            depth_stride: self.depth_stride,
        }
    }
}

/// A strided matrix whose first element is the first of `data` and whose last is the last.
#[derive(Copy, Clone, Debug)]
pub struct Part<'a> {
    data: &'a [f32],
    outer: usize,
    depth: usize,
    outer_stride: usize,
    depth_stride: usize,
}

/// `out[m, n] = sum over k of lhs[m, k] * rhs[n, k]`, row-major.
pub fn multiply(lhs: Part, rhs: Part, out: &mut [f32], parallelism: Parallelism) {
    let (m, n, k) = (lhs.outer, rhs.outer, lhs.depth);
    assert_eq!(k, rhs.depth);
    assert_eq!(out.len(), m * n);
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        return out.fill(0.0);
    }
    // SAFETY: a `Part` holds every element from its first to its last, `out` is m x n row-major and
    // cannot alias either, and strides of slices in memory fit an isize.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            false,
            lhs.data.as_ptr(),
            lhs.depth_stride as isize,
            lhs.outer_stride as isize,
            rhs.data.as_ptr(),
            rhs.outer_stride as isize,
            rhs.depth_stride as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Multiplications that a matrix needs before its product alone is worth several threads.
const PARALLEL_WORK: usize = 1 << 20;

/// The product of every pair of matrices; a batch of one is paired with all of the other.
pub fn multiply_batch(lhs: &Matrices, rhs: &Matrices, out: &mut [f32]) {
    let (m, n, k) = (lhs.outer, rhs.outer, lhs.depth);
    if out.is_empty() {
        return;
    }
    let batch = out.len() / (m * n);
    let part = |matrix| (lhs.part(matrix, 0..m, 0..k), rhs.part(matrix, 0..n, 0..k));
    let work = (m * n).saturating_mul(k);
    if batch > 1 && (work < PARALLEL_WORK || batch >= 2 * rayon::current_num_threads()) {
        let one = |(matrix, out): (usize, &mut [f32])| {
            let (lhs, rhs) = part(matrix);
            multiply(lhs, rhs, out, Parallelism::None);
        };
        if work.saturating_mul(batch) < PARALLEL_WORK {
            out.chunks_mut(m * n).enumerate().for_each(one);
        } else {
            out.par_chunks_mut(m * n).enumerate().for_each(one);
        }
        return;
    }
    for (matrix, out) in out.chunks_mut(m * n).enumerate() {
        let (lhs, rhs) = part(matrix);
        let alone = work < PARALLEL_WORK;
        multiply(
            lhs,
            rhs,
            out,
            if alone {
                Parallelism::None
            } else {
                Parallelism::Rayon(0)
            },
        );
    }
}
