//! The largest magnitudes of an operand's groups: one read of it.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::granularity::{Granularity, ScaleLayout};
use crate::line;
use crate::operand::Operand;
use crate::panel::Order;
use crate::panel::lines::Lines;
use crate::panel::task::{for_each, with_scratch};

/// Lines that a task looks at before it merges what it found with what others found.
const MERGED_LINES: usize = 64;

/// The largest magnitude of an operand's elements, NaN if one of them is; 0 without elements. One read at the speed of memory.
///
/// # Panics
/// If the operand reaches outside its data.
pub fn amax(operand: &Operand) -> f32 {
    operand.assert_inside();
    let layout = Granularity::Tensor.layout(operand.outer, operand.depth);
    group_amax(operand, layout)[0]
}

/// The largest magnitude of every group, NaN if it has one.
pub fn group_amax(operand: &Operand, layout: ScaleLayout) -> Vec<f32> {
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
        if lines.runs_go_on()
            && let Some(xs) = lines.contiguous(matrix, first, end - first)
        {
            one_long_line(&lines, matrix, first, xs, &most);
        } else {
            line_by_line(&lines, matrix, first..end, &most);
        }
    });
    most.into_iter()
        .map(|bits| f32::from_bits(bits.into_inner()))
        .collect()
}

/// Lines whose runs are those of one long line.
fn one_long_line(lines: &Lines, matrix: usize, first: usize, xs: &[f32], most: &[AtomicU32]) {
    if lines.layout.shared {
        most[0].fetch_max(line::amax_bits(xs), Ordering::Relaxed);
        return;
    }
    with_scratch(|scratch| {
        let runs = scratch.zeroed_bits(xs.len() / lines.run);
        line::raise_amax(runs, xs, lines.run);
        let group = lines.first_group(matrix, first);
        for (most, bits) in most[group..].iter().zip(runs) {
            most.store(*bits, Ordering::Relaxed);
        }
    });
}

fn line_by_line(lines: &Lines, matrix: usize, range: std::ops::Range<usize>, most: &[AtomicU32]) {
    with_scratch(|scratch| {
        let (gathered, runs) = scratch.floats_and_bits(lines.len, lines.runs());
        for line in range.clone() {
            let xs = lines.contiguous(matrix, line, 1).unwrap_or_else(|| {
                lines.gather(matrix, line, gathered);
                gathered
            });
            line::raise_amax(runs, xs, lines.run);
            let last = line + 1 == range.end || (line + 1) % lines.line_group == 0;
            if !last {
                continue;
            }
            let group = lines.first_group(matrix, line);
            let begun_here = line / lines.line_group * lines.line_group >= range.start;
            let ended_here = line + 1 < range.end
                || range.end == lines.count
                || range.end.is_multiple_of(lines.line_group);
            let whole = !lines.layout.shared && begun_here && ended_here;
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
}
