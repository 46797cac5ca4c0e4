//! Running loops on the processor's vector unit, with results that do not depend on how wide it is.
//!
//! Loops are plain Rust inside a [`WithSimd`] struct, so that LLVM vectorises them for the unit that [`dispatch`] chose. Two rules
//! make every unit give the same bits: a multiply-add is fused where the code says so and nowhere else, for Rust never contracts by
//! itself and `f32::mul_add` is rounded once even where a function has to do it; and reductions keep the same partial results,
//! whether the unit has 4, 8 or 16 lanes.

use pulp::bytemuck::cast_slice;
use pulp::{Simd, WithSimd};

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

/// Partial results of a reduction.
type Partials = [f32; STRANDS * LANES];

/// Combines `term` of all elements of `row` with partial results. For cheap terms: LLVM does not vectorise long ones here.
#[inline(always)]
fn reduce(
    row: &[f32],
    start: f32,
    term: impl Fn(f32) -> f32,
    combine: impl Fn(f32, f32) -> f32,
) -> Partials {
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
    ends
}

/// Combines partial results as a tree, the same one on every unit.
#[inline(always)]
fn fold<S: Simd>(
    simd: S,
    partials: &Partials,
    combine: impl Fn(S::f32s, S::f32s) -> S::f32s,
) -> f32 {
    let mut vectors = [simd.splat_f32s(0.0); STRANDS * LANES];
    let mut count = STRANDS * LANES / S::F32_LANES;
    vectors[..count].copy_from_slice(S::as_simd_f32s(partials).0);
    while count > 1 {
        count /= 2;
        for i in 0..count {
            vectors[i] = combine(vectors[i], vectors[i + count]);
        }
    }
    let mut lanes = vectors[0];
    let mut distance = S::F32_LANES / 2;
    while distance > 0 {
        lanes = combine(lanes, simd.rotate_right_f32s(lanes, distance));
        distance /= 2;
    }
    cast_slice::<S::f32s, f32>(&[lanes])[0]
}

/// The sum of `term` of all elements of `row`.
#[inline(always)]
pub(crate) fn sum<S: Simd>(simd: S, row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let partials = reduce(row, 0.0, term, |a, b| a + b);
    fold(simd, &partials, |a, b| simd.add_f32s(a, b))
}

/// The largest `term` of the elements of `row`; NaN is skipped.
#[inline(always)]
pub(crate) fn largest<S: Simd>(simd: S, row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    // A choice between two numbers would leave the old one in memory, and be stored with a mask, which the next load waits for.
    let partials = reduce(row, f32::NEG_INFINITY, term, f32::max);
    fold(simd, &partials, |a, b| simd.max_f32s(a, b))
}

/// The smallest `term` of the elements of `row`; NaN is skipped.
#[inline(always)]
pub(crate) fn smallest<S: Simd>(simd: S, row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let partials = reduce(row, f32::INFINITY, term, f32::min);
    fold(simd, &partials, |a, b| simd.min_f32s(a, b))
}

/// The sum of `term` of all pairs of elements of `a` and `b`.
#[inline(always)]
pub(crate) fn sum_pairs<S: Simd>(
    simd: S,
    a: &[f32],
    b: &[f32],
    term: impl Fn(f32, f32) -> f32,
) -> f32 {
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
    fold(simd, &ends, |a, b| simd.add_f32s(a, b))
}

/// The sum of the products of `a`'s and `b`'s elements.
#[inline(always)]
pub(crate) fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    sum_pairs(simd, a, b, |a, b| a * b)
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
