//! One operand as a product reads it: lines of f32 on their grid, or of codes, quantized on the way.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use mantissa_formats::{RandomBits, Rounder};
use pulp::bytemuck::{cast_slice, cast_slice_mut};

use super::scratch::Scratch;
use super::transpose::{offset, transpose, zip};
use crate::granularity::ScaleLayout;
use crate::line::{INFINITY_BITS, amax_bits};
use crate::operand::Operand;
use crate::panel::Order;

/// An operand in the middle of a product.
pub struct Side<'a> {
    /// Where its elements come from.
    pub values: Values<'a>,
    /// Matrices in the batch.
    pub batch: usize,
    /// Length of the axis that is not contracted.
    pub outer: usize,
    /// Length of the contracted axis.
    pub depth: usize,
    /// Along which axis lines are read.
    pub order: Order,
    /// What is read.
    pub reading: Reading,
    /// Bits of a code.
    pub bits: u32,
    /// Elements that were not finite, or that overflowed to it.
    pub non_finite: AtomicU64,
    /// Matrix and outer index of NaN elements that codes could not hold.
    pub poisoned: Mutex<Vec<[usize; 2]>>,
}

/// What the cells of a side are.
#[derive(Copy, Clone, PartialEq, Eq)]
pub enum Reading {
    /// An f32 each.
    Floats,
    /// Four codes each, offset by 128 if so.
    Codes {
        /// Whether they are unsigned, offset by 128.
        offset: bool,
    },
}

/// Where elements come from.
pub enum Values<'a> {
    /// Values as they are.
    Plain(&'a Operand<'a>),
    /// Values to be quantized.
    Rounded {
        /// The values.
        operand: &'a Operand<'a>,
        /// How they are rounded.
        rounder: Rounder,
        /// What stochastic rounding reads; nothing for others.
        random: Option<RandomBits>,
        /// What they are divided by first.
        scales: Scales<'a>,
        /// Whether they are multiplied by their scales again.
        fold: bool,
        /// Whether it is known that all of them are finite.
        finite: bool,
        /// Whether the format has a NaN.
        has_nan: bool,
        /// Whether rounding may overflow to infinity or NaN.
        special: bool,
    },
    /// Codes `[batch, lines, elements]`.
    Codes {
        /// The codes.
        codes: &'a [u8],
        /// How they are decoded.
        rounder: Rounder,
        /// What their values are multiplied by.
        scale: f32,
    },
}

/// The scales of a side.
#[derive(Copy, Clone)]
pub enum Scales<'a> {
    /// One for all.
    One(f32),
    /// One for each group, groups along a line one after another: `[batch, outer_groups, depth_groups]` where
    /// lines run along the depth, else `[batch, depth_groups, outer_groups]`.
    Groups(&'a [f32], ScaleLayout),
}

/// Elements that lie together in the matrices of a side.
#[derive(Copy, Clone)]
pub struct Area {
    /// The matrix.
    pub matrix: usize,
    /// The first line.
    pub line: usize,
    /// How many lines.
    pub lines: usize,
    /// The first element of each line.
    pub from: usize,
    /// How many elements of each line.
    pub len: usize,
}

/// The most cells that are read at once, so that they stay in the first-level cache.
pub const AREA: usize = 4096;

impl Side<'_> {
    /// Cells along the depth for a number of elements.
    pub fn cells(&self, depth: usize) -> usize {
        match self.reading {
            Reading::Floats => depth,
            Reading::Codes { .. } => depth.div_ceil(4),
        }
    }

    /// Elements along the depth in one cell.
    pub fn elements(&self) -> usize {
        match self.reading {
            Reading::Floats => 1,
            Reading::Codes { .. } => 4,
        }
    }

    /// Whether elements are anything else than copied.
    pub fn is_quantized(&self) -> bool {
        !matches!(self.values, Values::Plain(_))
    }

    /// Lines of one matrix and their length.
    fn lines(&self) -> [usize; 2] {
        match self.order {
            Order::OuterMajor => [self.outer, self.depth],
            Order::DepthMajor => [self.depth, self.outer],
        }
    }

    /// Writes the cells of an area, lines of cells `stride` apart. A line of cells is a line of
    /// elements, but four of them where lines run along the outer axis and cells are of codes. What a
    /// cell has beyond the matrix is zero.
    pub fn read(&self, area: Area, out: &mut [u32], stride: usize) {
        debug_assert!(area.lines * area.len <= AREA * self.elements());
        let gathered = self.gather(area);
        match (self.reading, self.order) {
            (Reading::Floats, _) => {
                self.pieces(area, stride == area.len, |piece, at| {
                    let out = &mut out[at * stride..][..piece.len];
                    let source = self.source(area, &gathered, at, piece.len);
                    self.floats(piece, source, cast_slice_mut(out));
                });
            }
            (Reading::Codes { offset: by }, Order::OuterMajor) => {
                self.pieces(area, 4 * stride == area.len, |piece, at| {
                    let out = &mut out[at * stride..][..piece.len.div_ceil(4)];
                    if let Some(last) = out.last_mut() {
                        *last = 0;
                    }
                    let codes = &mut cast_slice_mut::<u32, u8>(out)[..piece.len];
                    self.codes(piece, self.source(area, &gathered, at, piece.len), codes);
                    self.extend_signs(codes);
                    if by {
                        offset(out);
                    }
                });
            }
            (Reading::Codes { offset: by }, Order::DepthMajor) => {
                let mut bytes = Scratch::new(area.lines.div_ceil(4) * area.len);
                let bytes: &mut [u8] = cast_slice_mut(&mut bytes);
                bytes[area.lines * area.len..].fill(0);
                self.pieces(area, true, |piece, at| {
                    let codes = &mut bytes[at * area.len..][..piece.len];
                    self.codes(piece, self.source(area, &gathered, at, piece.len), codes);
                });
                self.extend_signs(bytes);
                for (lines, out) in bytes.chunks(4 * area.len).zip(out.chunks_mut(stride)) {
                    let (low, high) = lines.split_at(2 * area.len);
                    let (a, b) = low.split_at(area.len);
                    let (c, d) = high.split_at(area.len);
                    zip(&mut out[..area.len], [a, b, c, d]);
                    if by {
                        offset(&mut out[..area.len]);
                    }
                }
            }
        }
    }

    /// Calls `visit` with areas of one line each and the lines before it, or with all lines as one long one
    /// if that is allowed and they follow each other, as in short rows: many short pieces take longer.
    fn pieces(&self, area: Area, together: bool, mut visit: impl FnMut(Area, usize)) {
        let [_, len] = self.lines();
        let follow = match &self.values {
            Values::Plain(operand) => self.strides(operand) == [len, 1],
            Values::Rounded {
                operand, scales, ..
            } => {
                let runs_go_on = match scales {
                    Scales::One(_) => true,
                    Scales::Groups(_, layout) => {
                        self.order == Order::OuterMajor
                            && layout.outer_group == 1
                            && len.is_multiple_of(layout.depth_group)
                    }
                };
                let [line_stride, element_stride] = self.strides(operand);
                runs_go_on && (element_stride != 1 || line_stride == len)
            }
            Values::Codes { .. } => true,
        };
        if together && follow && area.len == len {
            let all = Area {
                lines: 1,
                len: area.lines * area.len,
                ..area
            };
            return visit(all, 0);
        }
        for at in 0..area.lines {
            let one = Area {
                line: area.line + at,
                lines: 1,
                ..area
            };
            visit(one, at);
        }
    }

    /// Writes the codes of whole lines from `line` on, right-aligned.
    pub fn encode(&self, matrix: usize, line: usize, codes: &mut [u8]) {
        const LINES: usize = 16;
        let [_, len] = self.lines();
        let width = match &self.values {
            Values::Rounded { operand, .. } if self.strides(operand)[1] != 1 => AREA / LINES,
            _ => len,
        };
        for (group, codes) in codes.chunks_mut(LINES * len).enumerate() {
            for from in (0..len).step_by(width) {
                let area = Area {
                    matrix,
                    line: line + group * LINES,
                    lines: codes.len() / len,
                    from,
                    len: width.min(len - from),
                };
                let gathered = self.gather(area);
                self.pieces(area, true, |piece, at| {
                    let codes = &mut codes[at * len + from..][..piece.len];
                    self.codes(piece, self.source(area, &gathered, at, piece.len), codes);
                });
            }
        }
    }

    /// `len` values of an area from a line on, unless they are codes.
    fn source<'b>(
        &'b self,
        area: Area,
        gathered: &'b Option<Scratch>,
        line: usize,
        len: usize,
    ) -> &'b [f32] {
        match (gathered, &self.values) {
            (Some(gathered), _) => &gathered.floats()[line * area.len..][..len],
            (None, Values::Plain(operand) | Values::Rounded { operand, .. }) => {
                let [line_stride, _] = self.strides(operand);
                let start = operand.offsets[area.matrix] + (area.line + line) * line_stride;
                &operand.data[start + area.from..][..len]
            }
            (None, Values::Codes { .. }) => &[],
        }
    }

    /// Distances between lines and between the elements of a line.
    fn strides(&self, operand: &Operand) -> [usize; 2] {
        match self.order {
            Order::OuterMajor => [operand.outer_stride, operand.depth_stride],
            Order::DepthMajor => [operand.depth_stride, operand.outer_stride],
        }
    }

    /// The values of an area whose lines are not contiguous in memory, line by line.
    fn gather(&self, area: Area) -> Option<Scratch> {
        let (Values::Plain(operand) | Values::Rounded { operand, .. }) = &self.values else {
            return None;
        };
        let [line_stride, element_stride] = self.strides(operand);
        if element_stride == 1 {
            return None;
        }
        let start =
            operand.offsets[area.matrix] + area.line * line_stride + area.from * element_stride;
        let source = &operand.data[start..];
        let mut gathered = Scratch::new(area.lines * area.len);
        if line_stride == 1 {
            let shape = [area.len, area.lines];
            transpose(
                &mut gathered,
                area.len,
                cast_slice(source),
                element_stride,
                shape,
            );
        } else {
            for (line, out) in gathered.floats_mut().chunks_mut(area.len).enumerate() {
                for (element, out) in out.iter_mut().enumerate() {
                    *out = source[line * line_stride + element * element_stride];
                }
            }
        }
        Some(gathered)
    }

    /// The index of an area's first element in `[batch, lines, elements]`.
    fn index(&self, area: Area) -> usize {
        let [lines, len] = self.lines();
        (area.matrix * lines + area.line) * len + area.from
    }

    /// Writes an area of one line as f32.
    fn floats(&self, area: Area, source: &[f32], out: &mut [f32]) {
        let start = self.index(area);
        match &self.values {
            Values::Plain(_) => out.copy_from_slice(source),
            Values::Codes {
                codes,
                rounder,
                scale,
            } => rounder.decode_scaled_u8(&codes[start..start + out.len()], *scale, out),
            Values::Rounded {
                rounder,
                random,
                scales,
                fold,
                finite,
                has_nan,
                special,
                ..
            } => {
                let (random, first) = drawn(*random, start);
                self.runs(area, scales, |at, len, scales, run| {
                    let start = first + at as u64;
                    let (source, out) = (&source[at..at + len], &mut out[at..at + len]);
                    match (scales, fold) {
                        ([scale], false) => {
                            rounder.round_scaled(random, start, source, *scale, out);
                        }
                        ([scale], true) => {
                            rounder.round_scaled_back(random, start, source, *scale, out);
                        }
                        (_, false) => rounder.round_runs(random, start, source, scales, run, out),
                        (_, true) => {
                            rounder.round_runs_back(random, start, source, scales, run, out);
                        }
                    }
                });
                let mut found = 0;
                let after_tells = *special && *has_nan;
                if !(*finite || after_tells) {
                    found = Self::look(source, |at| {
                        if !has_nan {
                            out[at] = f32::NAN;
                        }
                    });
                }
                if *special && amax_bits(out) >= INFINITY_BITS {
                    let after = out.iter().filter(|x| !x.is_finite()).count();
                    found = found.max(after as u64);
                }
                self.count(found);
            }
        }
    }

    /// Writes an area of one line as codes, right-aligned.
    fn codes(&self, area: Area, source: &[f32], out: &mut [u8]) {
        let start = self.index(area);
        match &self.values {
            Values::Plain(_) => unreachable!("fp32 has no codes"),
            Values::Codes { codes, .. } => {
                out.copy_from_slice(&codes[start..start + out.len()]);
            }
            Values::Rounded {
                rounder,
                random,
                scales,
                finite,
                has_nan,
                ..
            } => {
                let (random, first) = drawn(*random, start);
                self.runs(area, scales, |at, len, scales, run| {
                    let start = first + at as u64;
                    let (source, out) = (&source[at..at + len], &mut out[at..at + len]);
                    match scales {
                        [scale] => rounder.encode_scaled_u8(random, start, source, *scale, out),
                        _ => rounder.encode_runs_u8(random, start, source, scales, run, out),
                    }
                });
                if !finite {
                    let found = Self::look(source, |at| {
                        if *has_nan {
                            return;
                        }
                        let [_, len] = self.lines();
                        let outer = match self.order {
                            Order::OuterMajor => area.line + (area.from + at) / len,
                            Order::DepthMajor => (area.from + at) % len,
                        };
                        let mut poisoned = self.poisoned.lock().expect("no thread panicked");
                        poisoned.push([area.matrix, outer]);
                    });
                    self.count(found);
                }
            }
        }
    }

    /// Makes right-aligned codes of fewer than eight bits bytes of the same value.
    fn extend_signs(&self, codes: &mut [u8]) {
        let unused = 8 - self.bits;
        if unused > 0 {
            for code in codes {
                *code = (((*code << unused) as i8) >> unused) as u8;
            }
        }
    }

    /// Counts what is not finite and shows where NaN is.
    fn look(source: &[f32], mut nan: impl FnMut(usize)) -> u64 {
        if amax_bits(source) < INFINITY_BITS {
            return 0;
        }
        let mut found = 0;
        for (at, x) in source.iter().enumerate() {
            found += u64::from(!x.is_finite());
            if x.is_nan() {
                nan(at);
            }
        }
        found
    }

    fn count(&self, found: u64) {
        if found > 0 {
            self.non_finite.fetch_add(found, Ordering::Relaxed);
        }
    }

    /// Calls `visit` with pieces of a piece of a line: where it begins, its length, the scales of
    /// its runs and the length of a run.
    fn runs(
        &self,
        area: Area,
        scales: &Scales,
        mut visit: impl FnMut(usize, usize, &[f32], usize),
    ) {
        let (scales, layout) = match scales {
            Scales::One(scale) => return visit(0, area.len, &[*scale], area.len),
            Scales::Groups(scales, layout) => (scales, layout),
        };
        let (line_group, line_groups, run) = match self.order {
            Order::OuterMajor => (layout.outer_group, layout.depth_groups, layout.depth_group),
            Order::DepthMajor => (layout.depth_group, layout.outer_groups, layout.outer_group),
        };
        let matrix = area.matrix * layout.outer_groups * layout.depth_groups;
        let first = matrix + area.line / line_group * line_groups;
        let (within, rest) = (area.from % run, area.len);
        // The end of a run that has begun before, then the others.
        let begun = match within {
            0 => 0,
            _ => rest.min(run - within),
        };
        let group = first + area.from / run;
        if begun > 0 {
            visit(0, begun, &scales[group..=group], begun);
        }
        if begun < rest {
            let group = group + usize::from(begun > 0);
            let groups = (rest - begun).div_ceil(run);
            visit(begun, rest - begun, &scales[group..group + groups], run);
        }
    }
}

/// The random bits and the index of the first of them. Where none are read the index is zero, so that the
/// rounder's blocks begin where the piece does.
fn drawn(random: Option<RandomBits>, start: usize) -> (RandomBits, u64) {
    match random {
        Some(random) => (random, start as u64),
        None => (RandomBits::NONE, 0),
    }
}
