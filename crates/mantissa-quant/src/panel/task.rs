//! How the work on an operand is cut into tasks, and the memory that a task reuses.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use crate::panel::lines::Lines;

/// Operands with fewer elements stay on one thread.
const PARALLEL_ELEMENTS: usize = 1 << 15;

/// Calls `task` for every index, on all threads if there are enough elements.
pub fn for_each(tasks: usize, elements: usize, task: impl Fn(usize) + Send + Sync) {
    if elements < PARALLEL_ELEMENTS || tasks < 2 {
        (0..tasks).for_each(task);
    } else {
        (0..tasks).into_par_iter().for_each(task);
    }
}

/// What a task writes.
pub struct Piece<'a> {
    pub matrix: usize,
    /// The first of its lines.
    pub first: usize,
    /// The elements of its lines.
    pub values: &'a mut [f32],
    /// The scales of its groups, if it is to find them.
    pub scales: &'a mut [f32],
}

/// Calls `task` for every piece of the values of an operand that has some, on all threads if there are enough. Unless `scales` is
/// empty, a task's groups have to be whole and the groups of a line neighbours.
pub fn for_each_piece(
    lines: &Lines,
    values: &mut [f32],
    scales: &mut [f32],
    task: impl Fn(Piece) + Sync,
) {
    let task_lines = lines.task_lines();
    let cutting = Cutting {
        lines,
        task_lines,
        tasks: lines.count.div_ceil(task_lines),
        scaled: !scales.is_empty(),
        parallel: values.len() >= PARALLEL_ELEMENTS,
    };
    let tasks = 0..values.len() / (lines.count * lines.len) * cutting.tasks;
    cutting.run(tasks, values, scales, &task);
}

struct Cutting<'a> {
    lines: &'a Lines<'a>,
    task_lines: usize,
    /// Tasks of one matrix.
    tasks: usize,
    /// Whether tasks write scales.
    scaled: bool,
    parallel: bool,
}

impl Cutting<'_> {
    /// Elements and groups before a task.
    fn before(&self, task: usize) -> [usize; 2] {
        let (matrix, line) = (task / self.tasks, task % self.tasks * self.task_lines);
        let elements = (matrix * self.lines.count + line) * self.lines.len;
        let groups = self.lines.first_group(matrix, line);
        [elements, if self.scaled { groups } else { 0 }]
    }

    fn run(
        &self,
        tasks: Range<usize>,
        values: &mut [f32],
        scales: &mut [f32],
        task: &(impl Fn(Piece) + Sync),
    ) {
        if tasks.len() == 1 {
            return task(Piece {
                matrix: tasks.start / self.tasks,
                first: tasks.start % self.tasks * self.task_lines,
                values,
                scales,
            });
        }
        let middle = tasks.start + tasks.len() / 2;
        let [from, to] = [self.before(tasks.start), self.before(middle)];
        let (values, later_values) = values.split_at_mut(to[0] - from[0]);
        let (scales, later_scales) = scales.split_at_mut(to[1] - from[1]);
        let mut left = || self.run(tasks.start..middle, values, scales, task);
        let mut right = || self.run(middle..tasks.end, later_values, later_scales, task);
        if self.parallel {
            rayon::join(left, right);
        } else {
            left();
            right();
        }
    }
}

/// Memory that a thread uses again for every task.
#[derive(Default)]
pub struct Scratch {
    /// A source whose elements do not lie together.
    pub floats: Vec<f32>,
    /// Largest magnitudes.
    pub bits: Vec<u32>,
    /// The scales along a line, where they do not lie together.
    pub strided: Vec<f32>,
}

impl Scratch {
    /// So many zeros.
    pub fn zeroed_bits(&mut self, len: usize) -> &mut [u32] {
        self.bits.clear();
        self.bits.resize(len, 0);
        &mut self.bits
    }

    /// So many floats of any value and zeros.
    pub fn floats_and_bits(&mut self, floats: usize, bits: usize) -> (&mut [f32], &mut [u32]) {
        if self.floats.len() < floats {
            self.floats.resize(floats, 0.0);
        }
        self.zeroed_bits(bits);
        (&mut self.floats[..floats], &mut self.bits)
    }
}

/// Lends the thread's memory to a task, which must not lend it again.
pub fn with_scratch<T>(task: impl FnOnce(&mut Scratch) -> T) -> T {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }
    SCRATCH.with_borrow_mut(task)
}
