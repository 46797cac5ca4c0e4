//! An operand as lines in some order, and how groups lie along them.

use crate::granularity::ScaleLayout;
use crate::line;
use crate::operand::Operand;
use crate::panel::Order;

/// Elements that one task takes: enough to outweigh its start, few enough for a first-level cache.
const TASK_ELEMENTS: usize = 4096;

/// The lines of an operand in an order, and how groups lie along them.
#[derive(Copy, Clone)]
pub struct Lines<'a> {
    pub operand: &'a Operand<'a>,
    pub layout: ScaleLayout,
    pub order: Order,
    /// Lines of one matrix.
    pub count: usize,
    /// Elements of a line.
    pub len: usize,
    pub line_stride: usize,
    pub element_stride: usize,
    /// Lines and elements that share a group.
    pub line_group: usize,
    pub run: usize,
    /// Distance between the scales of neighbouring groups across and along lines.
    pub line_step: usize,
    pub run_step: usize,
}

impl<'a> Lines<'a> {
    pub fn new(operand: &'a Operand<'a>, layout: ScaleLayout, order: Order) -> Self {
        match order {
            Order::OuterMajor => Lines {
                operand,
                layout,
                order,
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
                order,
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

    /// Groups along a line.
    pub fn runs(&self) -> usize {
        self.len.div_ceil(self.run)
    }

    /// Index of the scale of a line's first run.
    pub fn first_group(&self, matrix: usize, line: usize) -> usize {
        if self.layout.shared {
            return 0;
        }
        matrix * self.layout.outer_groups * self.layout.depth_groups
            + line / self.line_group * self.line_step
    }

    /// Lines that one task takes: whole groups if they are not too tall.
    pub fn task_lines(&self) -> usize {
        let mut lines = (TASK_ELEMENTS / self.len).max(1);
        if self.element_stride != 1 {
            lines = lines.max(4 * line::TILE);
        }
        if self.line_group <= 4 * lines.max(16) {
            lines = lines.next_multiple_of(self.line_group);
        }
        lines.min(self.count)
    }

    /// Whether a task sees all of its groups, and the groups of a line are neighbours.
    pub fn tasks_are_whole_groups(&self) -> bool {
        let lines = if self.len == 0 || self.count == 0 {
            0
        } else {
            self.task_lines()
        };
        !self.layout.shared
            && self.order == Order::OuterMajor
            && (lines == self.count || lines.is_multiple_of(self.line_group))
    }

    /// Whether a line ends where the next one begins.
    fn follow_each_other(&self) -> bool {
        self.element_stride == 1 && (self.line_stride == self.len || self.count == 1)
    }

    /// Whether the runs of several lines are those of one long line: whether `run` divides a line, or all lines are one group.
    pub fn runs_go_on(&self) -> bool {
        self.layout.shared
            || self.run_step == 1 && self.line_group == 1 && self.len.is_multiple_of(self.run)
    }

    /// `count` lines as they lie in the source, if their elements are neighbours there.
    pub fn contiguous(&self, matrix: usize, line: usize, count: usize) -> Option<&'a [f32]> {
        let together = match count {
            1 => self.element_stride == 1,
            _ => self.follow_each_other(),
        };
        let start = self.operand.offsets[matrix] + line * self.line_stride;
        together.then(|| &self.operand.data[start..start + count * self.len])
    }

    /// Writes consecutive lines of a matrix to `out`, one after another.
    pub fn gather(&self, matrix: usize, first: usize, out: &mut [f32]) {
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
