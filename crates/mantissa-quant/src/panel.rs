//! From an operand to a panel of elements on a format's grid: one pass for the largest magnitudes,
//! one that divides, rounds and, where asked, multiplies back. Where groups are small, both are made
//! of one task after another, and the second finds its elements in the cache.
//!
//! Every group's amax is a maximum and every element is rounded on its own, so the work may be cut
//! at will and the result does not depend on the number of threads.

mod largest;
mod lines;
mod rounding;
mod task;

use mantissa_formats::{RandomBits, Rounder, Rounding};

use crate::amax::Amax;
use crate::granularity::ScaleLayout;
use crate::line;
use crate::numerics::Numerics;
use crate::operand::Operand;
use crate::scale::ScaleKind;

pub use largest::amax;
use largest::group_amax;
use lines::Lines;
use rounding::Pass;

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
    /// One scale for each group; a single 1 when unscaled.
    pub scales: Vec<f32>,
    /// Where the scale of an element lies.
    pub layout: ScaleLayout,
    /// Elements that were NaN or infinite, or that overflowed to it.
    pub non_finite: u64,
    /// Groups whose amax did not determine their scale.
    pub degenerate_groups: u64,
}

/// The scales of values that lie somewhere else, and what quantization met; fields as in [`Panel`].
pub struct Scaling {
    pub scales: Vec<f32>,
    pub layout: ScaleLayout,
    pub non_finite: u64,
    pub degenerate_groups: u64,
}

/// The scales of an operand, how many groups are degenerate, and whether every element is finite.
pub fn scales(
    operand: &Operand,
    numerics: &Numerics,
    layout: ScaleLayout,
) -> (Vec<f32>, u64, bool) {
    shared_scales(operand, numerics, layout, Amax::Own)
}

/// The same of an operand that may be a part of a larger one.
pub fn shared_scales(
    operand: &Operand,
    numerics: &Numerics,
    layout: ScaleLayout,
    scaled_by: Amax,
) -> (Vec<f32>, u64, bool) {
    let largest = |groups: &[f32]| f32::from_bits(line::amax_bits(groups));
    let mut groups = group_amax(operand, layout);
    let mut tensor = largest(&groups);
    let finite = tensor.is_finite();
    if let Amax::Shared(sharing) = scaled_by {
        if sharing.groups {
            sharing.raise(&mut groups);
            tensor = largest(&groups);
        } else if numerics.scale == ScaleKind::TwoLevel {
            sharing.raise(std::slice::from_mut(&mut tensor));
        }
    }
    let degenerate = numerics.scale_groups(tensor, &mut groups);
    (groups, degenerate, finite)
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
    let mut values = vec![0.0; operand.count()];
    let scaling = quantize_into(operand, numerics, random, order, fold, &mut values);
    Panel {
        values,
        scales: scaling.scales,
        layout: scaling.layout,
        non_finite: scaling.non_finite,
        degenerate_groups: scaling.degenerate_groups,
    }
}

/// The same into memory of the caller's, as long as the operand has elements.
pub fn quantize_into(
    operand: &Operand,
    numerics: &Numerics,
    random: RandomBits,
    order: Order,
    fold: bool,
    values: &mut [f32],
) -> Scaling {
    operand.assert_inside();
    assert_eq!(
        values.len(),
        operand.count(),
        "the result has another length than the operand"
    );
    assert!(
        order == Order::OuterMajor || numerics.rounding != Rounding::Stochastic,
        "stochastic rounding needs lines along the depth"
    );
    let source = Source::Operand(operand, order);
    run(source, numerics, random, fold, values)
}

/// Quantizes rows where they lie and multiplies them by their scales again.
pub fn fold_in_place(
    values: &mut [f32],
    [outer, depth]: [usize; 2],
    numerics: &Numerics,
    random: RandomBits,
) -> Scaling {
    assert_eq!(
        values.len(),
        outer * depth,
        "the values are not {outer} rows of {depth}"
    );
    run(Source::Rows(outer, depth), numerics, random, true, values)
}

enum Source<'a> {
    Operand(&'a Operand<'a>, Order),
    /// The values that are written, so many rows of so many.
    Rows(usize, usize),
}

/// Rows that follow each other.
fn rows(data: &[f32], outer: usize, depth: usize) -> Operand<'_> {
    Operand {
        data,
        offsets: &[0],
        outer,
        depth,
        outer_stride: depth,
        depth_stride: 1,
    }
}

fn run(
    source: Source,
    numerics: &Numerics,
    random: RandomBits,
    fold: bool,
    values: &mut [f32],
) -> Scaling {
    let (operand, order) = match source {
        Source::Operand(operand, order) => (*operand, order),
        // The shape alone; its elements are read where they are written.
        Source::Rows(outer, depth) => (rows(&[], outer, depth), Order::OuterMajor),
    };
    let layout = numerics.granularity.layout(operand.outer, operand.depth);
    let lines = Lines::new(&operand, layout, order);
    let scaled = numerics.granularity.is_scaled();
    let by_task = scaled && numerics.scale != ScaleKind::TwoLevel && lines.tasks_are_whole_groups();
    let (mut scales, mut degenerate_groups, finite) = match &source {
        _ if by_task => (vec![0.0; layout.len(operand.batch())], 0, false),
        _ if !scaled => (vec![1.0], 0, false),
        Source::Operand(operand, _) => self::scales(operand, numerics, layout),
        Source::Rows(outer, depth) => self::scales(&rows(values, *outer, *depth), numerics, layout),
    };
    let mut non_finite = 0;
    if !values.is_empty() {
        let (known, found): (&[f32], &mut [f32]) = if by_task {
            (&[], &mut scales)
        } else {
            (&scales, &mut [])
        };
        let pass = Pass {
            lines,
            numerics,
            rounder: Rounder::new(numerics.format, numerics.rounding, numerics.overflow),
            random,
            fold,
            in_place: matches!(source, Source::Rows(..)),
            finite,
            scales: known,
        };
        let met = pass.run(values, found);
        non_finite = met.non_finite.into_inner();
        degenerate_groups += met.degenerate_groups.into_inner();
    }
    Scaling {
        scales,
        layout,
        non_finite,
        degenerate_groups,
    }
}
