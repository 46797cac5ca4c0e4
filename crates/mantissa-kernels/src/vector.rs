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
pub(crate) fn fold_lanes<T: Copy>(mut lanes: [T; LANES], combine: impl Fn(T, T) -> T) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = combine(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// Combines `term` of all elements of `row`, starting from `start`, the neutral element. `term` may change its element.
#[inline(always)]
pub(crate) fn reduce_mut(
    row: &mut [f32],
    start: f32,
    term: impl Fn(&mut f32) -> f32,
    combine: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut strands = [[start; LANES]; STRANDS];
    let (blocks, rest) = row.as_chunks_mut::<{ STRANDS * LANES }>();
    for block in blocks {
        for (strand, chunk) in strands.iter_mut().zip(block.as_chunks_mut::<LANES>().0) {
            for (lane, x) in strand.iter_mut().zip(chunk) {
                *lane = combine(*lane, term(x));
            }
        }
    }
    let (chunks, rest) = rest.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (lane, x) in strands[0].iter_mut().zip(chunk) {
            *lane = combine(*lane, term(x));
        }
    }
    for (lane, x) in strands[1].iter_mut().zip(rest) {
        *lane = combine(*lane, term(x));
    }
    fold_strands(strands, combine)
}

/// [`reduce_mut`] of a row that stays as it is.
#[inline(always)]
pub(crate) fn reduce(
    row: &[f32],
    start: f32,
    term: impl Fn(f32) -> f32,
    combine: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut strands = [[start; LANES]; STRANDS];
    let (blocks, rest) = row.as_chunks::<{ STRANDS * LANES }>();
    for block in blocks {
        for (strand, chunk) in strands.iter_mut().zip(block.as_chunks::<LANES>().0) {
            for (lane, x) in strand.iter_mut().zip(chunk) {
                *lane = combine(*lane, term(*x));
            }
        }
    }
    let (chunks, rest) = rest.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, x) in strands[0].iter_mut().zip(chunk) {
            *lane = combine(*lane, term(*x));
        }
    }
    for (lane, x) in strands[1].iter_mut().zip(rest) {
        *lane = combine(*lane, term(*x));
    }
    fold_strands(strands, combine)
}

#[inline(always)]
fn fold_strands(strands: [[f32; LANES]; STRANDS], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let [a, b, c, d] = strands;
    let mut lanes = a;
    for i in 0..LANES {
        lanes[i] = combine(combine(a[i], b[i]), combine(c[i], d[i]));
    }
    fold_lanes(lanes, combine)
}

/// The sum of `term` of all elements of `row`.
#[inline(always)]
pub(crate) fn sum(row: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    reduce(row, 0.0, term, |a, b| a + b)
}

/// The larger one; NaN is skipped.
#[inline(always)]
pub(crate) fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// The sum of the products of `a`'s and `b`'s elements.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = a.as_chunks::<LANES>();
    let (others, others_rest) = b.as_chunks::<LANES>();
    for (a, b) in chunks.iter().zip(others) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    for (i, (a, b)) in rest.iter().zip(others_rest).enumerate() {
        lanes[i] += a * b;
    }
    fold_lanes(lanes, |a, b| a + b)
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
