//! From an operand to a panel of elements on a format's grid: one pass for the largest magnitudes,
//! one that divides, rounds and, where asked, multiplies back.
//!
//! Every group's amax is a maximum and every element is rounded on its own, so the work may be cut
//! at will and the result does not depend on the number of threads.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use mantissa_formats::{RandomBits, Rounder, Rounding};
use rayon::prelude::*;

use crate::granularity::ScaleLayout;
use crate::line;
use crate::numerics::Numerics;
use crate::operand::Operand;

/// Elements that one task takes: enough to outweigh its start, few enough for a first-level cache.
const TASK_ELEMENTS: usize = 8192;
/// Operands with fewer elements stay on one thread.
const PARALLEL_ELEMENTS: usize = 1 << 15;
/// Lines gathered together when a line is not contiguous in its source: a cache line of floats, so
/// that each cache line fetched serves all of them.
const GATHERED_LINES: usize = 16;

/// Which axis of a matrix is contiguous in a panel.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// `[outer, depth]`: lines run along the depth.
    OuterMajor,
    /// `[depth, outer]`: lines run along the outer axis.
    DepthMajor,
}

impl Order {
    /// The order in which an operand already lies in memory.
    pub fn of(operand: &Operand) -> Order {
        if operand.outer_stride == 1 && (operand.depth_stride != 1 || operand.depth == 1) {
            Order::DepthMajor
        } else {
            Order::OuterMajor
        }
    }
}

/// A quantized operand in some order.
pub struct Panel {
    /// Elements, matrices one after another.
    pub values: Vec<f32>,
    /// Which axis is contiguous.
    pub order: Order,
    /// One scale for each group; a single 1 when unscaled.
    pub scales: Vec<f32>,
    /// Where the scale of an element lies.
    pub layout: ScaleLayout,
    /// NaN or infinite elements of the operand.
    pub non_finite: u64,
    /// Groups whose amax did not determine their scale.
    pub degenerate_groups: u64,
}

/// The lines of an operand in an order, and how groups lie along them.
#[derive(Copy, Clone)]
struct Lines<'a> {
    operand: &'a Operand<'a>,
    layout: ScaleLayout,
    /// Lines of one matrix.
    count: usize,
    /// Elements of a line.
    len: usize,
    line_stride: usize,
    element_stride: usize,
    /// Lines and elements that share a group.
    line_group: usize,
    run: usize,
    /// Distance between the scales of neighbouring groups across and along lines.
    line_step: usize,
    run_step: usize,
}

impl<'a> Lines<'a> {
    fn new(operand: &'a Operand<'a>, layout: ScaleLayout, order: Order) -> Self {
        match order {
            Order::OuterMajor => Lines {
                operand,
                layout,
                count: operand.outer,
                len: operand.depth,
                line_stride: operand.outer_stride,
                element_stride: operand.depth_stride,
                line_group: layout.outer_group,
                run: layout.depth_group,
                line_step: layout.depth_groups,
                run_step: 1,
            },
            Order::DepthMajor => Lines {
                operand,
                layout,
                count: operand.depth,
                len: operand.outer,
                line_stride: operand.depth_stride,
                element_stride: operand.outer_stride,
                line_group: layout.depth_group,
                run: layout.outer_group,
                line_step: 1,
                run_step: layout.depth_groups,
            },
        }
    }

    fn runs(&self) -> usize {
        self.len.div_ceil(self.run)
    }

    /// Index of the scale of a line's first run.
    fn first_group(&self, matrix: usize, line: usize) -> usize {
        if self.layout.shared {
            return 0;
        }
        matrix * self.layout.outer_groups * self.layout.depth_groups
            + line / self.line_group * self.line_step
    }

    /// Lines that one task takes: whole groups if they are not too tall.
    fn task_lines(&self) -> usize {
        let mut lines = (TASK_ELEMENTS / self.len).max(1);
        if self.element_stride != 1 {
            lines = lines.max(GATHERED_LINES);
        }
        if self.line_group <= 4 * lines.max(16) {
            lines = lines.next_multiple_of(self.line_group);
        }
        lines.min(self.count)
    }

    /// Writes consecutive lines of a matrix to `out`, contiguously.
    fn gather(&self, matrix: usize, first: usize, out: &mut [f32]) {
        let start = self.operand.offsets[matrix] + first * self.line_stride;
        let source = &self.operand.data[start..];
        if self.element_stride == 1 {
            for (line, out) in out.chunks_mut(self.len).enumerate() {
                let start = line * self.line_stride;
                out.copy_from_slice(&source[start..start + self.len]);
            }
            return;
        }
        for first in (0..self.len).step_by(GATHERED_LINES) {
            for (line, out) in out.chunks_mut(self.len).enumerate() {
                let end = self.len.min(first + GATHERED_LINES);
                let start = line * self.line_stride + first * self.element_stride;
                let elements = source[start..].iter().step_by(self.element_stride.max(1));
                if self.element_stride == 0 {
                    out[first..end].fill(source[start]);
                    continue;
                }
                for (out, x) in out[first..end].iter_mut().zip(elements) {
                    *out = *x;
                }
            }
        }
    }
}

/// Calls `task` for every index, on all threads if there are enough elements.
fn for_each(tasks: usize, elements: usize, task: impl Fn(usize) + Send + Sync) {
    if elements < PARALLEL_ELEMENTS || tasks < 2 {
        (0..tasks).for_each(task);
    } else {
        (0..tasks).into_par_iter().for_each(task);
    }
}

/// The largest magnitude of every group, as bits.
fn amax(operand: &Operand, layout: ScaleLayout) -> Vec<u32> {
    let lines = Lines::new(operand, layout, Order::of(operand));
    let groups = layout.len(operand.batch());
    if operand.count() == 0 {
        return vec![0; groups];
    }
    let most: Vec<AtomicU32> = (0..groups).map(|_| AtomicU32::new(0)).collect();
    let task_lines = lines.task_lines();
    let tasks = lines.count.div_ceil(task_lines);
    for_each(operand.batch() * tasks, operand.count(), |task| {
        let (matrix, first) = (task / tasks, task % tasks * task_lines);
        let end = lines.count.min(first + task_lines);
        let mut runs = vec![0; lines.runs()];
        let mut gathered = vec![
            0.0;
            if lines.element_stride == 1 {
                0
            } else {
                lines.len
            }
        ];
        for line in first..end {
            let xs = if lines.element_stride == 1 {
                let start = operand.offsets[matrix] + line * lines.line_stride;
                &operand.data[start..start + lines.len]
            } else {
                lines.gather(matrix, line, &mut gathered);
                &gathered
            };
            line::raise_amax(&mut runs, xs, lines.run);
            if line + 1 < end && (line + 1) % lines.line_group != 0 {
                continue;
            }
            let group = lines.first_group(matrix, line);
            for (run, bits) in runs.iter_mut().enumerate() {
                most[group + run * lines.run_step].fetch_max(*bits, Ordering::Relaxed);
                *bits = 0;
            }
        }
    });
    most.into_iter().map(AtomicU32::into_inner).collect()
}

/// The scales of an operand, how many groups are degenerate, and whether every element is finite.
fn scales(operand: &Operand, numerics: &Numerics, layout: ScaleLayout) -> (Vec<f32>, u64, bool) {
    let most = amax(operand, layout);
    let tensor = f32::from_bits(most.iter().copied().max().unwrap_or(0));
    let mut degenerate = 0;
    let scales = most.into_iter().map(|bits| {
        let scale = numerics
            .scale
            .scale(numerics.format, f32::from_bits(bits), tensor);
        degenerate += u64::from(scale.degenerate);
        scale.value
    });
    (scales.collect(), degenerate, tensor.is_finite())
}

/// Quantizes an operand into a panel; with `fold` its elements are multiplied by their scales again.
///
/// Random bits belong to the element's index in `[batch, outer, depth]`, so a stochastic panel has to
/// be `OuterMajor`.
pub fn quantize_panel(
    operand: &Operand,
    numerics: &Numerics,
    random: RandomBits,
    order: Order,
    fold: bool,
) -> Panel {
    operand.assert_inside();
    assert!(
        order == Order::OuterMajor || numerics.rounding != Rounding::Stochastic,
        "stochastic rounding needs lines along the depth"
    );
    let layout = numerics.granularity.layout(operand.outer, operand.depth);
    let (scales, degenerate_groups, finite) = if numerics.granularity.is_scaled() {
        scales(operand, numerics, layout)
    } else {
        (vec![1.0], 0, false)
    };
    let mut panel = Panel {
        values: vec![0.0; operand.count()],
        order,
        scales,
        layout,
        non_finite: 0,
        degenerate_groups,
    };
    if !panel.values.is_empty() {
        let task = RoundTask {
            lines: Lines::new(operand, layout, order),
            rounder: &Rounder::new(numerics.format, numerics.rounding, numerics.overflow),
            random,
            scales: &panel.scales,
            scaled: panel.scales != [1.0],
            fold,
            finite,
            has_nan: numerics.format.has_nan(),
        };
        panel.non_finite = task.run(&mut panel.values);
    }
    panel
}

/// What the second pass needs to know.
struct RoundTask<'a> {
    lines: Lines<'a>,
    rounder: &'a Rounder,
    random: RandomBits,
    scales: &'a [f32],
    scaled: bool,
    fold: bool,
    /// No element is NaN or infinite.
    finite: bool,
    has_nan: bool,
}

impl RoundTask<'_> {
    /// Fills the panel and returns how many elements were not finite.
    fn run(&self, values: &mut [f32]) -> u64 {
        let lines = &self.lines;
        let (matrix_len, task_len) = (lines.count * lines.len, lines.task_lines() * lines.len);
        if values.len() < PARALLEL_ELEMENTS {
            let mut non_finite = 0;
            for (matrix, values) in values.chunks_mut(matrix_len).enumerate() {
                for (task, values) in values.chunks_mut(task_len).enumerate() {
                    non_finite += self.round(matrix, task * lines.task_lines(), values);
                }
            }
            return non_finite;
        }
        let non_finite = AtomicU64::new(0);
        let matrices = values.par_chunks_mut(matrix_len).enumerate();
        matrices.for_each(|(matrix, values)| {
            let tasks = values.par_chunks_mut(task_len).enumerate();
            tasks.for_each(|(task, values)| {
                let found = self.round(matrix, task * lines.task_lines(), values);
                if found > 0 {
                    non_finite.fetch_add(found, Ordering::Relaxed);
                }
            });
        });
        non_finite.into_inner()
    }

    fn round(&self, matrix: usize, first: usize, values: &mut [f32]) -> u64 {
        let lines = &self.lines;
        lines.gather(matrix, first, values);
        let (mut non_finite, mut nans) = (0, Vec::new());
        if !self.finite && line::amax_bits(values) >= line::INFINITY_BITS {
            non_finite = values.iter().filter(|x| !x.is_finite()).count() as u64;
            if !self.has_nan {
                nans.extend(
                    values
                        .iter()
                        .enumerate()
                        .filter(|(_, x)| x.is_nan())
                        .map(|(i, _)| i),
                );
            }
        }
        self.scale_lines(matrix, first, values, line::divide);
        let start = (matrix * lines.count + first) * lines.len;
        self.rounder.round(self.random, start as u64, values);
        for i in nans {
            values[i] = f32::NAN;
        }
        if self.fold {
            self.scale_lines(matrix, first, values, line::multiply);
        }
        non_finite
    }

    fn scale_lines(
        &self,
        matrix: usize,
        first: usize,
        values: &mut [f32],
        apply: impl Fn(&mut [f32], &[f32], usize),
    ) {
        let lines = &self.lines;
        if !self.scaled {
            return;
        }
        if lines.layout.shared {
            return apply(values, self.scales, values.len());
        }
        let runs = lines.runs();
        let mut strided = Vec::new();
        for (line, values) in (first..).zip(values.chunks_mut(lines.len)) {
            let group = lines.first_group(matrix, line);
            if lines.run_step == 1 {
                apply(values, &self.scales[group..group + runs], lines.run);
                continue;
            }
            if line == first || line % lines.line_group == 0 {
                strided.clear();
                strided.extend((0..runs).map(|run| self.scales[group + run * lines.run_step]));
            }
            apply(values, &strided, lines.run);
        }
    }
}
