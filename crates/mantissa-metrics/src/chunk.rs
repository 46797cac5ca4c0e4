//! A part of a tensor that stays in the first-level cache while several questions are asked of it.

use mantissa_formats::{SimdLevel, prefetch_ahead};
use pulp::{Simd, WithSimd};

/// Elements taken together.
pub const CHUNK: usize = 4096;
/// Elements looked at side by side. Fixed, so that the order of additions, and with it every bit of a result, is the same on
/// machines with narrow and with wide vectors.
pub const LANES: usize = 16;
pub const INFINITY: u32 = f32::INFINITY.to_bits();

/// At most [`CHUNK`] elements, and how far apart they are.
#[derive(Copy, Clone)]
pub struct Chunk<'a> {
    pub values: &'a [f32],
    pub level: SimdLevel,
    /// How many are zero, and how many not finite.
    pub zeros: u32,
    pub non_finite: u32,
    /// Bits of the largest finite magnitude.
    pub amax: u32,
    /// Bits of the smallest magnitude that is not zero, less one; of no number if all are zero or not finite.
    pub least_less_one: u32,
}

impl<'a> Chunk<'a> {
    /// Reads a chunk for the first time.
    pub fn read(level: SimdLevel, values: &'a [f32]) -> Self {
        assert!(
            values.len() <= CHUNK,
            "a chunk of {} elements",
            values.len()
        );
        let mut extremes = level.dispatch(ReadExtremes::<false>(values));
        if extremes.amax >= INFINITY {
            // What is not finite counts as zero then.
            extremes = level.dispatch(ReadExtremes::<true>(values));
        }
        // A zero less one is the largest there is.
        let [zeros, non_finite] = if extremes.most_less_one == u32::MAX {
            level.dispatch(CountOddities(values))
        } else {
            [0, 0]
        };
        Chunk {
            values,
            level,
            zeros,
            non_finite,
            amax: extremes.amax,
            least_less_one: extremes.least_less_one,
        }
    }

    /// Whether all elements are finite.
    pub fn is_finite(&self) -> bool {
        self.non_finite == 0
    }
}

/// The bits of a magnitude; with `MASKED` zero for what is not finite.
#[inline(always)]
fn magnitude<const MASKED: bool>(x: f32) -> u32 {
    let magnitude = x.to_bits() & !(1 << 31);
    if MASKED && magnitude >= INFINITY {
        0
    } else {
        magnitude
    }
}

struct Extremes {
    amax: u32,
    least_less_one: u32,
    most_less_one: u32,
}

struct ReadExtremes<'a, const MASKED: bool>(&'a [f32]);

impl<const MASKED: bool> WithSimd for ReadExtremes<'_, MASKED> {
    type Output = Extremes;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Extremes {
        let mut extremes = Lanes::default();
        let (blocks, rest) = self.0.as_chunks::<LANES>();
        for (i, block) in blocks.iter().enumerate() {
            prefetch_ahead(blocks, i, 1);
            extremes.see::<MASKED>(block);
        }
        if let Some(first) = rest.first() {
            // Seeing an element twice changes no extreme.
            let mut padded = [*first; LANES];
            padded[..rest.len()].copy_from_slice(rest);
            extremes.see::<MASKED>(&padded);
        }
        Extremes {
            amax: extremes.amax.iter().fold(0, |a, &b| a.max(b)),
            least_less_one: extremes
                .least_less_one
                .iter()
                .fold(u32::MAX, |a, &b| a.min(b)),
            most_less_one: extremes.most_less_one.iter().fold(0, |a, &b| a.max(b)),
        }
    }
}

#[derive(Copy, Clone)]
struct Lanes {
    amax: [u32; LANES],
    least_less_one: [u32; LANES],
    most_less_one: [u32; LANES],
}

impl Default for Lanes {
    fn default() -> Self {
        Lanes {
            amax: [0; LANES],
            least_less_one: [u32::MAX; LANES],
            most_less_one: [0; LANES],
        }
    }
}

impl Lanes {
    #[inline(always)]
    fn see<const MASKED: bool>(&mut self, block: &[f32; LANES]) {
        for (lane, &x) in block.iter().enumerate() {
            let magnitude = magnitude::<MASKED>(x);
            // What wraps around is the largest.
            let less_one = magnitude.wrapping_sub(1);
            self.amax[lane] = self.amax[lane].max(magnitude);
            self.least_less_one[lane] = self.least_less_one[lane].min(less_one);
            self.most_less_one[lane] = self.most_less_one[lane].max(less_one);
        }
    }
}

struct CountOddities<'a>(&'a [f32]);

impl WithSimd for CountOddities<'_> {
    type Output = [u32; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> [u32; 2] {
        let (mut zeros, mut non_finite) = (0, 0);
        for x in self.0 {
            zeros += u32::from(*x == 0.0);
            non_finite += u32::from(magnitude::<false>(*x) >= INFINITY);
        }
        [zeros, non_finite]
    }
}
