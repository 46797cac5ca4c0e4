//! The loops around the microkernel.
//!
//! One operand, the smaller one, is packed whole (as much of its depth as fits [`WHOLE`]); the other is
//! cut into blocks along its outer axis, and whoever takes a block packs it into a second-level
//! cache and multiplies it with all of the first. So each element is read, quantized and packed
//! once.

use std::ops::Range;

use rayon::prelude::*;

use super::kernel::Kernel;
use super::plan::Plan;
use super::scratch::Scratch;
use super::side::Side;

/// Multiplications that a product needs to be worth several threads.
const PARALLEL_WORK: usize = 1 << 20;
/// Cells of the operand that is packed whole: what a last-level cache holds beside other things.
const WHOLE: usize = 1 << 21;

/// A product of two operands.
#[derive(Clone)]
pub struct Job<'a> {
    /// The microkernel.
    pub kernel: &'a Kernel,
    /// The left operand.
    pub left: &'a Side<'a>,
    /// The right operand.
    pub right: &'a Side<'a>,
    /// What the result's rows are multiplied by: one number, or one for each row of each left matrix.
    pub row_scales: &'a [f32],
    /// What the result's columns are multiplied by: one number, or one for each column of each right
    /// matrix.
    pub column_scales: &'a [f32],
    /// What is added to each row at the end, one for each column.
    pub bias: Option<&'a [f32]>,
    /// The part of the depth that is contracted.
    pub depth: Range<usize>,
    /// Whether sums are left as they are, those of codes as bits of i32.
    pub raw: bool,
}

/// The result, written by several threads in different places.
#[derive(Copy, Clone)]
pub struct Out(*mut f32);

// SAFETY: tiles of the result do not overlap, and each is written by one thread at a time.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

impl Out {
    /// The address of an element.
    pub fn at(self, index: usize) -> *mut f32 {
        self.0.wrapping_add(index)
    }
}

/// `out[b, m, n] = (sum over k of left[b, m, k] * right[b, n, k]) * (row_scale * column_scale) + bias`,
/// row-major; a batch of one matrix meets every matrix of the other operand.
pub fn multiply(job: &Job, out: &mut [f32]) {
    let (rows, columns, depth) = (job.left.outer, job.right.outer, job.depth.len());
    if out.is_empty() {
        return;
    }
    if depth == 0 {
        for row in out.chunks_mut(columns) {
            match job.bias {
                Some(bias) => row.copy_from_slice(bias),
                None => row.fill(0.0),
            }
        }
        return;
    }
    let batch = out.len() / (rows * columns);
    assert!(
        out.len().is_multiple_of(rows * columns)
            && [job.left, job.right]
                .iter()
                .all(|side| [1, batch].contains(&side.batch))
    );
    assert!(
        [job.left, job.right]
            .iter()
            .all(|side| job.depth.end <= side.depth)
    );
    let work = rows.saturating_mul(columns).saturating_mul(depth);
    let parallel = work.saturating_mul(batch) >= PARALLEL_WORK && rayon::current_num_threads() > 1;
    let shared = batch > 1 && (job.left.batch == 1 || job.right.batch == 1);
    let out = Out(out.as_mut_ptr());
    if shared || batch == 1 {
        job.multiply(0, batch, parallel, out);
    } else if parallel && (work < PARALLEL_WORK || batch >= 2 * rayon::current_num_threads()) {
        (0..batch)
            .into_par_iter()
            .for_each(|matrix| job.multiply(matrix, 1, false, out));
    } else {
        (0..batch).for_each(|matrix| job.multiply(matrix, 1, parallel, out));
    }
}

impl Job<'_> {
    /// The products of `count` matrices from `matrix` on; if more than one, they share an operand.
    fn multiply(&self, matrix: usize, count: usize, parallel: bool, out: Out) {
        let plan = Plan::new(self, matrix, count, parallel, out);
        let together = (WHOLE / plan.slot).clamp(1, plan.blocks);
        let mut packed = Scratch::new(plan.slot * together);
        let tasks = plan.cut.div_ceil(plan.size);
        for start in (0..plan.blocks).step_by(together) {
            let blocks = start..plan.blocks.min(start + together);
            plan.pack_whole(&blocks, parallel, &mut packed);
            let task = |task: usize| {
                let (matrix, at) = (matrix + task / tasks, task % tasks * plan.size);
                if plan.left_whole {
                    plan.multiply_panels(matrix, at, &blocks, &packed);
                } else {
                    plan.multiply_rows(matrix, at, &blocks, &packed);
                }
            };
            if parallel {
                (0..count * tasks).into_par_iter().for_each(task);
            } else {
                (0..count * tasks).for_each(task);
            }
        }
    }

    /// Cells of a panel of the right operand.
    pub fn panel(&self, steps: usize) -> usize {
        self.kernel.header() + steps * self.kernel.columns
    }

    /// Which of an operand's matrices a product of the batch reads.
    pub fn matrix_of(side: &Side, matrix: usize) -> usize {
        if side.batch == 1 { 0 } else { matrix }
    }
}
