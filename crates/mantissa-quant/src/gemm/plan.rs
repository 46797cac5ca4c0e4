//! How the loops of a product are cut, and what one task does.

use std::ops::Range;

use rayon::prelude::*;

use super::driver::{Job, Out};
use super::pack::{Block, Panels, pack_left, pack_right};
use super::scratch::Scratch;
use super::side::Side;
use super::tile::{Finish, STEPS, STRIDE, Tile};

/// Tiles of rows that a block of the left operand is high.
const TILES: usize = 16;
/// Panels that a block of the right operand is wide.
const PANELS: usize = 8;
/// Rows of the left operand that one task packs.
const ROWS_AT_ONCE: usize = 256;
/// Panels of the right operand that one task packs.
const PANELS_AT_ONCE: usize = 8;
/// The most rows of any kernel's tile.
const MOST_ROWS: usize = 16;

/// How a product of one matrix, or of several that share an operand, is cut.
pub struct Plan<'a> {
    job: &'a Job<'a>,
    /// The first matrix.
    matrix: usize,
    /// Whether it is the left operand that is packed whole.
    pub left_whole: bool,
    panels: Panels,
    /// Elements of a block of the depth, and how many blocks there are.
    block: usize,
    pub blocks: usize,
    /// Cells of one block of the depth in the operand that is packed whole.
    pub slot: usize,
    /// Rows (or panels) of the operand that is cut, and of one of its blocks.
    pub cut: usize,
    pub size: usize,
    /// The scales of the columns, and the bias, filled up to whole panels.
    column_scales: Scratch,
    bias: Option<Scratch>,
    out: Out,
}

impl<'a> Plan<'a> {
    pub fn new(job: &'a Job<'a>, matrix: usize, count: usize, parallel: bool, out: Out) -> Self {
        let (rows, columns, depth) = (job.left.outer, job.right.outer, job.depth.len());
        let panels = Panels::new(job.kernel.columns, columns, out.at(0));
        let left_whole = if count > 1 {
            job.left.batch == 1
        } else {
            rows < columns
        };
        let (cut, unit, largest) = if left_whole {
            (panels.count(), 1, PANELS)
        } else {
            (rows, job.kernel.rows, TILES * job.kernel.rows)
        };
        let mut tasks = cut.div_ceil(largest);
        if parallel {
            // Enough of them to keep all threads busy to the end.
            let threads = rayon::current_num_threads();
            tasks = tasks.max((4 * threads).div_ceil(count));
        }
        let block = STEPS * job.left.elements();
        let width = panels.count() * panels.width;
        Plan {
            job,
            matrix,
            left_whole,
            panels,
            block,
            blocks: depth.div_ceil(block),
            slot: if left_whole {
                rows * STRIDE
            } else {
                panels.count() * job.panel(job.left.cells(depth).min(STEPS))
            },
            cut,
            size: cut.div_ceil(tasks).next_multiple_of(unit),
            column_scales: if job.column_scales.len() == 1 {
                filled(job.column_scales, &panels, width)
            } else {
                let first = Job::matrix_of(job.right, matrix);
                let matrices = if job.right.batch == 1 { 1 } else { count };
                let scales = &job.column_scales[first * columns..][..matrices * columns];
                filled(scales, &panels, matrices * width)
            },
            bias: job.bias.map(|bias| filled(bias, &panels, width)),
            out,
        }
    }

    /// The scales of a matrix's columns.
    fn column_scales(&self, matrix: usize) -> &[f32] {
        let width = self.panels.count() * self.panels.width;
        let scales = self.column_scales.floats();
        let first = (matrix - self.matrix) * width;
        if scales.len() > width {
            &scales[first..first + width]
        } else {
            scales
        }
    }

    /// The elements of a block of the depth.
    fn depth(&self, block: usize) -> (usize, usize) {
        let depth = &self.job.depth;
        let from = depth.start + block * self.block;
        (from, self.block.min(depth.end - from))
    }

    /// Some outer indices of a side in a block of the depth.
    fn block(&self, side: &Side, matrix: usize, outer: Range<usize>, block: usize) -> Block {
        let (from, depth) = self.depth(block);
        Block {
            matrix: Job::matrix_of(side, matrix),
            outer: outer.start,
            count: outer.len(),
            from,
            depth,
        }
    }

    /// Packs some rows of the left operand.
    fn pack_rows(&self, matrix: usize, rows: Range<usize>, block: usize, out: &mut [u32]) {
        let side = self.job.left;
        pack_left(side, self.block(side, matrix, rows, block), out);
    }

    /// Packs some panels of the right operand.
    fn pack_panels(&self, matrix: usize, panels: Range<usize>, block: usize, out: &mut [u32]) {
        let (side, kernel) = (self.job.right, self.job.kernel);
        let part = self.block(side, matrix, self.panels.range(panels.clone()), block);
        pack_right(side, kernel, &self.panels, panels, part, out);
    }

    /// Cells of a panel in a block of the depth.
    fn panel(&self, block: usize) -> usize {
        self.job.panel(self.job.right.cells(self.depth(block).1))
    }

    /// Packs some blocks of the depth of the operand that every task reads, one after another.
    pub fn pack_whole(&self, blocks: &Range<usize>, parallel: bool, packed: &mut [u32]) {
        let pack = |(index, slot): (usize, &mut [u32])| {
            let block = blocks.start + index;
            let (cells, unit, all) = if self.left_whole {
                (STRIDE, ROWS_AT_ONCE, self.job.left.outer)
            } else {
                (self.panel(block), PANELS_AT_ONCE, self.panels.count())
            };
            let pack = |(piece, out): (usize, &mut [u32])| {
                let range = piece * unit..all.min((piece + 1) * unit);
                if self.left_whole {
                    self.pack_rows(self.matrix, range, block, out);
                } else {
                    self.pack_panels(self.matrix, range, block, out);
                }
            };
            let slot = &mut slot[..all * cells];
            if parallel {
                slot.par_chunks_mut(unit * cells).enumerate().for_each(pack);
            } else {
                slot.chunks_mut(unit * cells).enumerate().for_each(pack);
            }
        };
        if parallel {
            let slots = packed.par_chunks_mut(self.slot).take(blocks.len());
            slots.enumerate().for_each(pack);
        } else {
            let slots = packed.chunks_mut(self.slot).take(blocks.len());
            slots.enumerate().for_each(pack);
        }
    }

    /// Packs a block of rows of the left operand and multiplies it with all panels of the right one.
    pub fn multiply_rows(
        &self,
        matrix: usize,
        first: usize,
        blocks: &Range<usize>,
        packed: &[u32],
    ) {
        let rows = first..self.cut.min(first + self.size);
        let mut own = Scratch::new(rows.len() * STRIDE);
        for (block, right) in blocks.clone().zip(packed.chunks(self.slot)) {
            self.pack_rows(matrix, rows.clone(), block, &mut own);
            let right = &right[..self.panels.count() * self.panel(block)];
            for (group, right) in right.chunks(PANELS * self.panel(block)).enumerate() {
                self.multiply_block(matrix, rows.clone(), &own, group * PANELS, right, block);
            }
        }
    }

    /// Packs a block of panels of the right operand and multiplies all rows of the left one with it.
    pub fn multiply_panels(
        &self,
        matrix: usize,
        first: usize,
        blocks: &Range<usize>,
        packed: &[u32],
    ) {
        let panels = first..self.cut.min(first + self.size);
        let mut own = Scratch::new(panels.len() * self.panel(blocks.start));
        for (block, left) in blocks.clone().zip(packed.chunks(self.slot)) {
            self.pack_panels(matrix, panels.clone(), block, &mut own);
            let rows = 0..self.job.left.outer;
            let own = &own[..panels.len() * self.panel(block)];
            self.multiply_block(matrix, rows, left, first, own, block);
        }
    }

    /// Multiplies packed rows with packed panels from `first` on. The result is written a tile's rows
    /// at a time from left to right, so that the processor can fetch ahead of it.
    fn multiply_block(
        &self,
        matrix: usize,
        rows: Range<usize>,
        left: &[u32],
        first: usize,
        right: &[u32],
        block: usize,
    ) {
        let job = self.job;
        let (kernel, columns) = (job.kernel, job.right.outer);
        let (width, panel) = (self.panels.width, self.panel(block));
        let steps = job.left.cells(self.depth(block).1);
        let column_scales = self.column_scales(matrix);
        let first_scale = Job::matrix_of(job.left, matrix) * job.left.outer;
        let mut row_scale = [job.row_scales[0]; MOST_ROWS];
        for tile in tiles(rows.clone(), kernel.rows) {
            if job.row_scales.len() > 1 {
                let scales = &job.row_scales[first_scale..][tile.clone()];
                row_scale[..scales.len()].copy_from_slice(scales);
            }
            let left = &left[(tile.start - rows.start) * STRIDE..][..tile.len() * STRIDE];
            for (index, right) in (first..).zip(right.chunks_exact(panel)) {
                let range = self.panels.range(index..index + 1);
                let scales = &column_scales[index * width..][..width];
                let bias = self.bias.as_ref().map_or(std::ptr::null(), |bias| {
                    bias.floats()[index * width..][..width].as_ptr()
                });
                let at = (matrix * job.left.outer + tile.start) * columns + range.start;
                let tile = Tile {
                    rows: tile.len(),
                    columns: range.len(),
                    steps,
                    left: left.as_ptr(),
                    right: right.as_ptr(),
                    out: self.out.at(at),
                    out_stride: columns,
                    add: block > 0,
                    finish: (block + 1 == self.blocks && !job.raw).then_some(Finish {
                        row_scales: row_scale.as_ptr(),
                        column_scales: scales.as_ptr(),
                        bias,
                    }),
                };
                // SAFETY: the packed rows are STRIDE cells each, of which the steps are the first; the panel
                // is one of this kernel's, and so are the scales and the bias; the tile lies in the result.
                unsafe { kernel.run(&tile) };
            }
        }
    }
}

/// Cuts rows into tiles of at most `most` rows that are about equally high.
fn tiles(rows: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = rows.len().div_ceil(most);
    (0..count).map(move |i| {
        rows.start + i * rows.len() / count..rows.start + (i + 1) * rows.len() / count
    })
}

/// The numbers of each row's columns where the panels have them; a single number fills all.
fn filled(numbers: &[f32], panels: &Panels, len: usize) -> Scratch {
    let mut scratch = Scratch::new(len);
    let out = scratch.floats_mut();
    if let [number] = numbers {
        out.fill(*number);
        return scratch;
    }
    let rows = out.chunks_mut(panels.count() * panels.width);
    for (out, numbers) in rows.zip(numbers.chunks(panels.columns)) {
        for (panel, out) in out.chunks_mut(panels.width).enumerate() {
            let range = panels.range(panel..panel + 1);
            let (out, rest) = out.split_at_mut(range.len());
            out.copy_from_slice(&numbers[range]);
            rest.fill(1.0);
        }
    }
    scratch
}
