//! From lines of an operand to the cells that the microkernel wants.

use std::ops::Range;

use super::kernel::Kernel;
use super::scratch::Scratch;
use super::side::{AREA, Area, Side};
use super::tile::{STEPS, STRIDE};
use super::transpose::{add_codes, transpose};
use crate::panel::Order;

/// Lines of cells that are transposed together: a line of cache.
const LINES: usize = 16;

/// Part of an operand: some indices of the outer axis, and a block of the depth.
#[derive(Copy, Clone)]
pub struct Block {
    /// The matrix.
    pub matrix: usize,
    /// The first outer index.
    pub outer: usize,
    /// How many of them.
    pub count: usize,
    /// The first element along the depth.
    pub from: usize,
    /// How many of them.
    pub depth: usize,
}

impl Block {
    /// Calls `visit` with the areas of a block whose lines run along the outer axis, and with the
    /// first line of cells and the first outer index of each within the block.
    fn depth_major(&self, elements: usize, mut visit: impl FnMut(Area, usize, usize)) {
        let lines = LINES * elements;
        for line in (0..self.depth).step_by(lines) {
            for at in (0..self.count).step_by(AREA / LINES) {
                let area = Area {
                    matrix: self.matrix,
                    line: self.from + line,
                    lines: lines.min(self.depth - line),
                    from: self.outer + at,
                    len: (AREA / LINES).min(self.count - at),
                };
                visit(area, line / elements, at);
            }
        }
    }

    /// Calls `visit` with the areas of a block whose lines run along the depth, and with the first
    /// outer index of each within the block.
    fn outer_major(&self, lines: usize, mut visit: impl FnMut(Area, usize)) {
        for at in (0..self.count).step_by(lines) {
            let area = Area {
                matrix: self.matrix,
                line: self.outer + at,
                lines: lines.min(self.count - at),
                from: self.from,
                len: self.depth,
            };
            visit(area, at);
        }
    }
}

/// Writes rows of cells, [`STRIDE`] apart.
pub fn pack_left(side: &Side, block: Block, out: &mut [u32]) {
    let elements = side.elements();
    match side.order {
        Order::OuterMajor if side.is_quantized() && side.cells(block.depth) < STEPS => {
            // Short rows are better read together, and then put in their places.
            let cells = side.cells(block.depth);
            let mut lines = Scratch::new(LINES * cells);
            block.outer_major(LINES, |area, row| {
                side.read(area, &mut lines, cells);
                let rows = out[row * STRIDE..].chunks_mut(STRIDE).take(area.lines);
                for (row, line) in rows.zip(lines.chunks(cells)) {
                    row[..cells].copy_from_slice(line);
                }
            });
        }
        Order::OuterMajor => block.outer_major(LINES, |area, row| {
            side.read(area, &mut out[row * STRIDE..], STRIDE);
        }),
        Order::DepthMajor => {
            let mut lines = Scratch::new(AREA);
            block.depth_major(elements, |area, step, row| {
                side.read(area, &mut lines, area.len);
                let shape = [area.lines.div_ceil(elements), area.len];
                let out = &mut out[row * STRIDE + step..];
                transpose(out, STRIDE, &lines, area.len, shape);
            });
        }
    }
}

/// How the columns of the right operand are cut into panels.
#[derive(Copy, Clone)]
pub struct Panels {
    /// Columns of all panels but the first and the last.
    pub width: usize,
    /// Columns of the first one: fewer where the others then begin at a line of cache of the result.
    pub first: usize,
    /// All columns.
    pub columns: usize,
}

impl Panels {
    /// The panels of a result that begins at an address.
    pub fn new(width: usize, columns: usize, out: *const f32) -> Self {
        const LINE: usize = 16;
        let beyond = out.addr() / size_of::<f32>() % LINE;
        // Two narrow panels more cost less than writing every line of a wide result in two pieces.
        let possible = columns.is_multiple_of(LINE) && width.is_multiple_of(LINE);
        let aligned = beyond == 0 || !possible || columns < 8 * width;
        Panels {
            width,
            first: if aligned { width } else { width - beyond },
            columns,
        }
    }

    /// How many panels there are.
    pub fn count(&self) -> usize {
        (self.columns + self.width - self.first).div_ceil(self.width)
    }

    /// The columns of some panels.
    pub fn range(&self, panels: Range<usize>) -> Range<usize> {
        let start = |panel: usize| match panel {
            0 => 0,
            _ => (self.first + (panel - 1) * self.width).min(self.columns),
        };
        start(panels.start)..start(panels.end)
    }
}

/// Writes panels of the kernel's columns: what their sums begin with, then the cells of all columns
/// for each step. Columns beyond the operand are zero. The block's columns are those of `range`.
pub fn pack_right(
    side: &Side,
    kernel: &Kernel,
    panels: &Panels,
    range: Range<usize>,
    block: Block,
    out: &mut [u32],
) {
    let (width, elements, header) = (kernel.columns, side.elements(), kernel.header());
    let steps = side.cells(block.depth);
    let panel = header + steps * width;
    // The panels with their columns, counted from the block's first.
    let each = |out: &mut [u32], visit: &mut dyn FnMut(Range<usize>, &mut [u32])| {
        for (index, out) in range.clone().zip(out.chunks_exact_mut(panel)) {
            let columns = panels.range(index..index + 1);
            visit(
                columns.start - block.outer..columns.end - block.outer,
                &mut out[header..],
            );
        }
    };
    each(out, &mut |columns, cells| {
        if columns.len() < width {
            cells.fill(0);
        }
    });
    let mut lines = Scratch::new(AREA);
    match side.order {
        Order::OuterMajor => each(out, &mut |columns, cells| {
            let part = Block {
                outer: block.outer + columns.start,
                count: columns.len(),
                ..block
            };
            part.outer_major(LINES.min(width), |area, at| {
                side.read(area, &mut lines, steps);
                transpose(&mut cells[at..], width, &lines, steps, [area.lines, steps]);
            });
        }),
        Order::DepthMajor => block.depth_major(elements, |area, step, at| {
            side.read(area, &mut lines, area.len);
            let count = area.lines.div_ceil(elements);
            each(out, &mut |columns, cells| {
                let some = columns.start.max(at)..columns.end.min(at + area.len);
                if some.is_empty() {
                    return;
                }
                let cells = &mut cells[step * width + some.start - columns.start..];
                for (i, line) in lines.chunks(area.len).take(count).enumerate() {
                    cells[i * width..][..some.len()]
                        .copy_from_slice(&line[some.start - at..some.end - at]);
                }
            });
        }),
    }
    if header > 0 {
        for panel in out.chunks_exact_mut(panel).take(range.len()) {
            let (sums, cells) = panel.split_at_mut(header);
            let sums: &mut [i32] = pulp::bytemuck::cast_slice_mut(sums);
            sums.fill(0);
            if kernel.offset {
                // The left codes are 128 too large, so each of these was added 128 times too often.
                add_codes(sums, cells);
                sums.iter_mut().for_each(|sum| *sum *= -128);
            }
        }
    }
}
