//! Running loops on the processor's vector unit, with results that do not depend on how wide it is.
//!
//! Loops are plain Rust inside a [`WithSimd`] struct, so that LLVM vectorises them for the unit that [`dispatch`] chose. Two rules
//! make every unit give the same bits: no fused multiply-add, which Rust never contracts to by itself, and reductions that keep
//! [`LANES`] partial sums, whether the unit has 4, 8 or 16 lanes.

use pulp::WithSimd;

/// Partial results of every reduction: as many as the widest unit has lanes.
pub(crate) const LANES: usize = 16;

/// Runs `op` on the best vector unit of the processor.
#[inline]
pub(crate) fn dispatch<O: WithSimd>(op: O) -> O::Output {
    pulp::Arch::new().dispatch(op)
}

/// The sum of the partial sums, as a tree.
#[inline(always)]
pub(crate) fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Reduces `row` to [`LANES`] partial results: element `i` goes to lane `i % LANES`.
#[inline(always)]
pub(crate) fn fold_lanes<T: Copy>(
    row: &[f32],
    start: T,
    combine: impl Fn(T, f32) -> T,
) -> [T; LANES] {
    let mut lanes = [start; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = combine(*lane, *x);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = combine(*lane, *x);
    }
    lanes
}
