//! From an operand to a panel of elements on a format's grid: one pass for the largest magnitudes,
//! one that divides, rounds and, where asked, multiplies back.
//!
//! Every group's amax is a maximum and every element is rounded on its own, so the work may be cut
//! at will and the result does not depend on the number of threads.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use mantissa_formats::{Overflow, RandomBits, Rounder, Rounding};
use rayon::prelude::*;

use crate::granularity::ScaleLayout;
use crate::line;
use crate::numerics::Numerics;
use crate::operand::Operand;

/// Elements that one task takes: enough to outweigh its start, few enough for a first-level cache.
const TASK_ELEMENTS: usize = 4096;
/// Operands with fewer elements stay on one thread.
const PARALLEL_ELEMENTS: usize = 1 << 15;
/// Lines that a task looks at before it merges what it found with what others found.
const MERGED_LINES: usize = 64;

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
    /// Elements that were NaN or infinite, or that overflowed to it.
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
            lines = lines.max(4 * line::TILE);
        }
        if self.line_group <= 4 * lines.max(16) {
            lines = lines.next_multiple_of(self.line_group);
        }
        lines.min(self.count)
    }

    /// A line as it lies in the source, if its elements are neighbours there.
    fn contiguous(&self, matrix: usize, line: usize) -> Option<&'a [f32]> {
        let start = self.operand.offsets[matrix] + line * self.line_stride;
        (self.element_stride == 1).then(|| &self.operand.data[start..start + self.len])
    }

    /// Writes consecutive lines of a matrix to `out`, one after another.
    fn gather(&self, matrix: usize, first: usize, out: &mut [f32]) {
        let start = self.operand.offsets[matrix] + first * self.line_stride;
        let source = &self.operand.data[start..];
        if self.line_stride == 1 {
            return line::transpose(out, self.len, source, self.element_stride);
        }
        for (line, out) in out.chunks_mut(self.len).enumerate() {
            for (element, out) in out.iter_mut().enumerate() {
                *out = source[line * self.line_stride + element * self.element_stride];
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

/// The largest magnitude of every group, NaN if it has one.
fn amax(operand: &Operand, layout: ScaleLayout) -> Vec<f32> {
    let lines = Lines::new(operand, layout, Order::of(operand));
    let groups = layout.len(operand.batch());
    if operand.count() == 0 {
        return vec![0.0; groups];
    }
    let most: Vec<AtomicU32> = (0..groups).map(|_| AtomicU32::new(0)).collect();
    // Groups taller than a task are merged run by run, which pays only after a good number of lines.
    let task_lines = lines.task_lines().max(MERGED_LINES).min(lines.count);
    let tasks = lines.count.div_ceil(task_lines);
    for_each(operand.batch() * tasks, operand.count(), |task| {
        let (matrix, first) = (task / tasks, task % tasks * task_lines);
        let end = lines.count.min(first + task_lines);
        let mut runs = vec![0; lines.runs()];
        let mut gathered = Vec::new();
        for line in first..end {
            let xs = lines.contiguous(matrix, line).unwrap_or_else(|| {
                gathered.resize(lines.len, 0.0);
                lines.gather(matrix, line, &mut gathered);
                &gathered
            });
            line::raise_amax(&mut runs, xs, lines.run);
            let last = line + 1 == end || (line + 1) % lines.line_group == 0;
            if !last {
                continue;
            }
            let group = lines.first_group(matrix, line);
            let whole = !layout.shared && line / lines.line_group * lines.line_group >= first;
            let whole = whole
                && (line + 1 < end || end == lines.count || end.is_multiple_of(lines.line_group));
            for (run, bits) in runs.iter_mut().enumerate() {
                let most = &most[group + run * lines.run_step];
                if whole {
                    most.store(*bits, Ordering::Relaxed);
                } else {
                    most.fetch_max(*bits, Ordering::Relaxed);
                }
                *bits = 0;
            }
        }
    });
    most.into_iter()
        .map(|bits| f32::from_bits(bits.into_inner()))
        .collect()
}

/// The scales of an operand, how many groups are degenerate, and whether every element is finite.
fn scales(operand: &Operand, numerics: &Numerics, layout: ScaleLayout) -> (Vec<f32>, u64, bool) {
    let mut groups = amax(operand, layout);
    let tensor = f32::from_bits(line::amax_bits(&groups));
    let degenerate = numerics
        .scale
        .scale_all(numerics.format, tensor, &mut groups);
    (groups, degenerate, tensor.is_finite())
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
    let count = operand.count();
    let mut values = Vec::with_capacity(count);
    let mut non_finite = 0;
    if count > 0 {
        let task = RoundTask {
            lines: Lines::new(operand, layout, order),
            rounder: &Rounder::new(numerics.format, numerics.rounding, numerics.overflow),
            random,
            scales: &scales,
            scaled: scales != [1.0],
            fold,
            finite,
            has_nan: numerics.format.has_nan(),
            special: numerics.overflow == Overflow::Special,
        };
        non_finite = task.run(&mut values.spare_capacity_mut()[..count]);
        // SAFETY: the task writes every one of these elements.
        unsafe { values.set_len(count) };
    }
    Panel {
        values,
        order,
        scales,
        layout,
        non_finite,
        degenerate_groups,
    }
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
    /// Rounding may overflow to infinity or NaN.
    special: bool,
}

impl RoundTask<'_> {
    /// Writes the whole panel and returns how many elements were not finite, before or after.
    fn run(&self, values: &mut [MaybeUninit<f32>]) -> u64 {
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

    /// Writes consecutive lines of a matrix and returns how many elements were not finite, before or after.
    fn round(&self, matrix: usize, first: usize, values: &mut [MaybeUninit<f32>]) -> u64 {
        let lines = &self.lines;
        let gathered = (lines.element_stride != 1).then(|| {
            let mut gathered = vec![0.0; values.len()];
            lines.gather(matrix, first, &mut gathered);
            gathered
        });
        let source = |line: usize| match &gathered {
            Some(gathered) => &gathered[(line - first) * lines.len..][..lines.len],
            None => lines.contiguous(matrix, line).unwrap_or_default(),
        };
        let count = values.len() / lines.len;
        let mut scales = LineScales::default();
        for (line, out) in (first..).zip(values.chunks_mut(lines.len)) {
            if self.scaled {
                let (scales, run) = scales.of(self, matrix, line);
                line::divide_into(out, source(line), scales, run);
            } else {
                out.write_copy_of_slice(source(line));
            }
        }
        // SAFETY: every line was written just now, and the lines are all of the values.
        let values = unsafe { values.assume_init_mut() };
        let (mut non_finite, mut nans) = (0, Vec::new());
        // Scales are positive and finite, so a quotient is NaN where the element is; it may be
        // infinite where the element is not, hence the look at the source.
        if !self.finite && line::amax_bits(values) >= line::INFINITY_BITS {
            for line in first..first + count {
                for (i, x) in source(line)
                    .iter()
                    .enumerate()
                    .filter(|(_, x)| !x.is_finite())
                {
                    non_finite += 1;
                    if x.is_nan() && !self.has_nan {
                        nans.push((line - first) * lines.len + i);
                    }
                }
            }
        }
        let start = (matrix * lines.count + first) * lines.len;
        self.rounder.round(self.random, start as u64, values);
        for i in nans {
            values[i] = f32::NAN;
        }
        if self.special && line::amax_bits(values) >= line::INFINITY_BITS {
            // Elements that were not finite are among these wherever the format can say so.
            let after = values.iter().filter(|x| !x.is_finite()).count();
            non_finite = non_finite.max(after as u64);
        }
        if self.fold && self.scaled {
            let mut scales = LineScales::default();
            for (line, values) in (first..).zip(values.chunks_mut(lines.len)) {
                let (scales, run) = scales.of(self, matrix, line);
                line::multiply(values, scales, run);
            }
        }
        non_finite
    }
}

/// The scales along a line, brought together if they do not lie so.
#[derive(Default)]
struct LineScales {
    strided: Vec<f32>,
    /// The group whose scales are in `strided`.
    group: Option<usize>,
}

impl LineScales {
    /// The scales of a line's runs and the length of a run.
    fn of<'a>(
        &'a mut self,
        task: &RoundTask<'a>,
        matrix: usize,
        line: usize,
    ) -> (&'a [f32], usize) {
        let lines = &task.lines;
        let group = lines.first_group(matrix, line);
        if lines.run_step == 1 || lines.runs() == 1 {
            return (&task.scales[group..group + lines.runs()], lines.run);
        }
        if self.group != Some(group) {
            self.strided.clear();
            let indices = (0..lines.runs()).map(|run| group + run * lines.run_step);
            self.strided.extend(indices.map(|index| task.scales[index]));
            self.group = Some(group);
        }
        (&self.strided, lines.run)
    }
}
