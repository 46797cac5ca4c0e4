//! Running loops on the processor's vector unit, with results that do not depend on how wide it is.
//!
//! Loops are plain Rust inside a [`WithSimd`] struct, so that LLVM vectorises them for the unit that [`dispatch`] chose. Two rules
//! make every unit give the same bits: no fused multiply-add, which Rust never contracts to by itself, and reductions that keep
//! the same partial results, whether the unit has 4, 8 or 16 lanes.

use pulp::WithSimd;

/// Elements that loops handle side by side: as many as the widest unit has lanes.
pub(crate) const LANES: usize = 16;
/// Groups of partial results in flight, so that a reduction does not wait for each addition.
const STRANDS: usize = 4;

/// Runs `op` on the best vector unit of the processor.
#[inline]
pub(crate) fn dispatch<O: WithSimd>(op: O) -> O::Output {
    #[cfg(test)]
    if let Some(unit) = tests::forced() {
        return unit.run(op);
    }
    pulp::Arch::new().dispatch(op)
}

/// Combines the lanes as a tree.
#[inline(always)]
pub(crate) fn fold_lanes<T: Copy, const N: usize>(
    mut lanes: [T; N],
    combine: impl Fn(T, T) -> T,
) -> T {
    let mut half = N / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = combine(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// Combines `term` of all elements of `row`, starting from `start`, the neutral element. For cheap terms: LLVM does not vectorise
/// long ones here.
#[inline(always)]
pub(crate) fn reduce(
    row: &[f32],
    start: f32,
    term: impl Fn(f32) -> f32,
    combine: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut lanes = [start; STRANDS * LANES];
    let (blocks, rest) = row.as_chunks::<{ STRANDS * LANES }>();
    for block in blocks {
        for (lane, x) in lanes.iter_mut().zip(block) {
            *lane = combine(*lane, term(*x));
        }
    }
    // A copy, because the lanes above stay in registers only if nobody asks for one by its number.
    let mut ends = lanes;
    for (lane, x) in ends.iter_mut().zip(rest) {
        *lane = combine(*lane, term(*x));
    }
    fold_lanes(ends, combine)
}

/// The sum of `term` of all elements of `row`.
#[inline(always)]
pub(crate) fn sum(row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    reduce(row, 0.0, term, |a, b| a + b)
}

/// The largest element; NaN is skipped.
#[inline(always)]
pub(crate) fn largest(row: &[f32]) -> f32 {
    reduce(
        row,
        f32::NEG_INFINITY,
        |x| x,
        |a, b| if b > a { b } else { a },
    )
}

/// The sum of `term` of all pairs of elements of `a` and `b`.
#[inline(always)]
pub(crate) fn sum_pairs(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; STRANDS * LANES];
    let (blocks, rest) = a.as_chunks::<{ STRANDS * LANES }>();
    let (others, others_rest) = b.as_chunks::<{ STRANDS * LANES }>();
    for (a, b) in blocks.iter().zip(others) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += term(*a, *b);
        }
    }
    let mut ends = lanes;
    for ((lane, a), b) in ends.iter_mut().zip(rest).zip(others_rest) {
        *lane += term(*a, *b);
    }
    fold_lanes(ends, |a, b| a + b)
}

/// The sum of the products of `a`'s and `b`'s elements.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum_pairs(a, b, |a, b| a * b)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A vector unit to run on, instead of the best.
    #[derive(Clone, Copy, Debug)]
    pub(crate) enum Unit {
        Scalar,
        #[cfg(target_arch = "x86_64")]
        V3(pulp::x86::V3),
        #[cfg(target_arch = "x86_64")]
        V4(pulp::x86::V4),
    }

    impl Unit {
        /// All that this processor has.
        pub(crate) fn all() -> Vec<Self> {
            let scalar = Some(Self::Scalar);
            #[cfg(target_arch = "x86_64")]
            let more = [
                pulp::x86::V3::try_new().map(Self::V3),
                pulp::x86::V4::try_new().map(Self::V4),
            ];
            #[cfg(not(target_arch = "x86_64"))]
            let more = [];
            scalar
                .into_iter()
                .chain(more.into_iter().flatten())
                .collect()
        }

        pub(crate) fn run<O: WithSimd>(self, op: O) -> O::Output {
            use pulp::Simd;
            match self {
                Self::Scalar => Simd::vectorize(pulp::Scalar::new(), op),
                #[cfg(target_arch = "x86_64")]
                Self::V3(unit) => Simd::vectorize(unit, op),
                #[cfg(target_arch = "x86_64")]
                Self::V4(unit) => Simd::vectorize(unit, op),
            }
        }
    }

    /// One more than the index of the forced unit in [`Unit::all`], or 0. For all threads: no test can tell the difference unless
    /// the property under test fails.
    static FORCED: AtomicUsize = AtomicUsize::new(0);

    pub(crate) fn forced() -> Option<Unit> {
        let index = FORCED.load(Ordering::Relaxed).checked_sub(1)?;
        Unit::all().get(index).copied()
    }

    /// Runs `work` on each unit that the processor has; one caller at a time.
    pub(crate) fn on_every_unit(mut work: impl FnMut(Unit)) {
        for (index, unit) in Unit::all().into_iter().enumerate() {
            FORCED.store(index + 1, Ordering::Relaxed);
            work(unit);
        }
        FORCED.store(0, Ordering::Relaxed);
    }
}
