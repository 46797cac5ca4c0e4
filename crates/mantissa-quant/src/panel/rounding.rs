//! The pass that divides, rounds and, where asked, multiplies back: from the source to where the values go, each read and written
//! once.

use std::sync::atomic::{AtomicU64, Ordering};

use mantissa_formats::{Overflow, RandomBits, Rounder};

use crate::line;
use crate::numerics::Numerics;
use crate::panel::lines::Lines;
use crate::panel::task::{Piece, Scratch, for_each_piece, with_scratch};

/// What rounding met.
#[derive(Default)]
pub struct Met {
    /// Elements that were not finite, before or after.
    pub non_finite: AtomicU64,
    /// Groups whose amax did not determine their scale.
    pub degenerate_groups: AtomicU64,
}

/// How the elements of an operand become those of a panel.
pub struct Pass<'a> {
    pub lines: Lines<'a>,
    pub numerics: &'a Numerics,
    pub rounder: Rounder,
    pub random: RandomBits,
    /// Whether elements are multiplied by their scales again.
    pub fold: bool,
    /// Whether the values to be written are the source, row after row.
    pub in_place: bool,
    /// Whether it is known that every element is finite.
    pub finite: bool,
    /// The scales, if they are known.
    pub scales: &'a [f32],
}

impl<'a> Pass<'a> {
    /// Writes the whole panel, and the scales that were not known.
    pub fn run(&self, values: &mut [f32], scales: &mut [f32]) -> Met {
        let met = Met::default();
        for_each_piece(&self.lines, values, scales, |piece| {
            with_scratch(|scratch| self.piece(piece, scratch, &met));
        });
        met
    }

    fn piece(&self, piece: Piece, scratch: &mut Scratch, met: &Met) {
        let Piece {
            matrix,
            first,
            values,
            scales,
        } = piece;
        let lines = &self.lines;
        let count = values.len() / lines.len;
        let Scratch {
            floats,
            bits,
            strided,
        } = scratch;
        let gathered = if self.in_place || lines.element_stride == 1 {
            None
        } else {
            if floats.len() < values.len() {
                floats.resize(values.len(), 0.0);
            }
            let gathered = &mut floats[..values.len()];
            lines.gather(matrix, first, gathered);
            Some(&*gathered)
        };
        let mut finite = self.finite;
        if !scales.is_empty() {
            bits.clear();
            bits.resize(scales.len(), 0);
            self.for_each_stretch(matrix, first, gathered, values, |line, source, values| {
                let group = lines.first_group(matrix, line) - lines.first_group(matrix, first);
                line::raise_amax_first(&mut bits[group..], source.unwrap_or(values), lines.run);
            });
            finite = bits.iter().all(|&bits| bits < line::INFINITY_BITS);
            for (scale, bits) in scales.iter_mut().zip(&*bits) {
                *scale = f32::from_bits(*bits);
            }
            let degenerate = self.numerics.scale_groups(0.0, scales);
            met.degenerate_groups
                .fetch_add(degenerate, Ordering::Relaxed);
        }
        let scales: &[f32] = scales;
        self.for_each_stretch(matrix, first, gathered, values, |line, source, values| {
            let start = ((matrix * lines.count + line) * lines.len) as u64;
            let group = lines.first_group(matrix, line);
            let scales = if !scales.is_empty() {
                &scales[group - lines.first_group(matrix, first)..]
            } else if lines.run_step == 1 || lines.runs() == 1 {
                &self.scales[group..]
            } else {
                strided.clear();
                let indices = (0..lines.runs()).map(|run| group + run * lines.run_step);
                strided.extend(indices.map(|index| self.scales[index]));
                &*strided
            };
            let found = self.stretch(start, finite, source, scales, values);
            if found > 0 {
                met.non_finite.fetch_add(found, Ordering::Relaxed);
            }
        });
        debug_assert_eq!(count * lines.len, values.len());
    }

    /// Calls `work` with the number of the first line, the source (if it is not the values themselves) and the values of as many
    /// lines at once as have runs like those of one long line.
    fn for_each_stretch(
        &self,
        matrix: usize,
        first: usize,
        gathered: Option<&[f32]>,
        values: &mut [f32],
        mut work: impl FnMut(usize, Option<&[f32]>, &mut [f32]),
    ) {
        let lines = &self.lines;
        let count = values.len() / lines.len;
        let source = |line: usize, count: usize| match gathered {
            Some(gathered) => Some(&gathered[(line - first) * lines.len..][..count * lines.len]),
            None => lines.contiguous(matrix, line, count),
        };
        if lines.runs_go_on() && (self.in_place || source(first, count).is_some()) {
            let source = if self.in_place {
                None
            } else {
                source(first, count)
            };
            return work(first, source, values);
        }
        for (line, values) in (first..).zip(values.chunks_mut(lines.len)) {
            let source = if self.in_place { None } else { source(line, 1) };
            work(line, source, values);
        }
    }

    /// Rounds neighbouring elements and returns how many were not finite, before or after.
    fn stretch(
        &self,
        start: u64,
        finite: bool,
        source: Option<&[f32]>,
        scales: &[f32],
        values: &mut [f32],
    ) -> u64 {
        let has_nan = self.numerics.format.has_nan();
        // A format with infinity has NaN. Where rounding may overflow to either, elements that are not finite stay so.
        let seen_after = self.numerics.overflow == Overflow::Special && has_nan;
        let (mut non_finite, mut nans) = (0, Vec::new());
        if !finite && !seen_after {
            let source = source.unwrap_or(values);
            if line::amax_bits(source) >= line::INFINITY_BITS {
                non_finite = count_non_finite(source);
                if !has_nan {
                    nans.extend((0..source.len()).filter(|&i| source[i].is_nan()));
                }
            }
        }
        let (rounder, random, run) = (&self.rounder, self.random, self.lines.run);
        let run = if self.lines.layout.shared {
            usize::MAX
        } else {
            run
        };
        let scaled = self.numerics.granularity.is_scaled();
        match (source, scaled && (run != usize::MAX || scales[0] != 1.0)) {
            (Some(xs), false) => rounder.round_scaled(random, start, xs, 1.0, values),
            (Some(xs), true) if self.fold => {
                rounder.round_runs_back(random, start, xs, scales, run, values);
            }
            (Some(xs), true) => rounder.round_runs(random, start, xs, scales, run, values),
            (None, false) => rounder.round(random, start, values),
            (None, true) => rounder.round_runs_in_place(random, start, values, scales, run),
        }
        for i in nans {
            values[i] = f32::NAN;
        }
        if seen_after && line::amax_bits(values) >= line::INFINITY_BITS {
            non_finite = count_non_finite(values);
        }
        non_finite
    }
}

fn count_non_finite(xs: &[f32]) -> u64 {
    xs.iter().filter(|x| !x.is_finite()).count() as u64
}
