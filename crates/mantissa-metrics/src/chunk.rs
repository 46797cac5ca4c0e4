//! A part of a tensor that stays in the first-level cache while several questions are asked of it.

use mantissa_formats::SimdLevel;
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
        let mut seen = level.dispatch(See::<false>(values));
        if values.is_empty() || seen.is_odd() {
            seen = level.dispatch(See::<true>(values));
        }
        Chunk {
            values,
            level,
            zeros: seen.zeros,
            non_finite: seen.non_finite,
            amax: seen.amax,
            least_less_one: seen.least_less_one,
        }
    }

    /// Whether all elements are finite.
    pub fn is_finite(&self) -> bool {
        self.non_finite == 0
    }
}

/// Looks for the extremes of a chunk; where there is nothing but finite numbers other than zero, without `ODD`, or else with it.
struct See<'a, const ODD: bool>(&'a [f32]);

struct Seen {
    amax: u32,
    least_less_one: u32,
    zeros: u32,
    non_finite: u32,
}

impl Seen {
    /// Whether there was a zero or something that is not finite.
    fn is_odd(&self) -> bool {
        !(1..INFINITY).contains(&self.amax)
    }
}

impl<const ODD: bool> WithSimd for See<'_, ODD> {
    type Output = Seen;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Seen {
        let mut lanes = Lanes::default();
        let (blocks, rest) = self.0.as_chunks::<LANES>();
        for block in blocks {
            lanes.see::<ODD>(block);
        }
        let (mut zeros, mut non_finite): (u32, u32) =
            (lanes.zeros.iter().sum(), lanes.non_finite.iter().sum());
        if let Some(first) = rest.first() {
            // Seeing an element twice changes no extreme.
            let mut padded = [*first; LANES];
            padded[..rest.len()].copy_from_slice(rest);
            lanes.see::<ODD>(&padded);
        }
        if ODD {
            zeros += rest.iter().filter(|x| **x == 0.0).count() as u32;
            non_finite += rest.iter().filter(|x| !x.is_finite()).count() as u32;
        }
        let most_less_one = lanes.most_less_one.into_iter().fold(0, u32::max);
        let amax = lanes.amax.into_iter().fold(0, u32::max);
        Seen {
            amax: if ODD {
                amax
            } else {
                most_less_one.wrapping_add(1)
            },
            least_less_one: lanes.least_less_one.into_iter().fold(u32::MAX, u32::min),
            zeros,
            non_finite,
        }
    }
}

/// Magnitudes less one: zero wraps around and becomes the largest, so that it is noticed, and is no minimum.
#[derive(Copy, Clone)]
struct Lanes {
    least_less_one: [u32; LANES],
    most_less_one: [u32; LANES],
    /// With `ODD`: the largest finite magnitude, and how many are zero and not finite.
    amax: [u32; LANES],
    zeros: [u32; LANES],
    non_finite: [u32; LANES],
}

impl Default for Lanes {
    fn default() -> Self {
        Lanes {
            least_less_one: [u32::MAX; LANES],
            most_less_one: [0; LANES],
            amax: [0; LANES],
            zeros: [0; LANES],
            non_finite: [0; LANES],
        }
    }
}

impl Lanes {
    #[inline(always)]
    fn see<const ODD: bool>(&mut self, block: &[f32; LANES]) {
        for (lane, &x) in block.iter().enumerate() {
            let magnitude = x.to_bits() & !(1 << 31);
            if ODD {
                let is_finite = magnitude < INFINITY;
                self.zeros[lane] += u32::from(magnitude == 0);
                self.non_finite[lane] += u32::from(!is_finite);
                // What is not finite counts as zero.
                let finite = if is_finite { magnitude } else { 0 };
                let less_one = finite.wrapping_sub(1);
                self.amax[lane] = self.amax[lane].max(finite);
                self.least_less_one[lane] = self.least_less_one[lane].min(less_one);
            } else {
                let less_one = magnitude.wrapping_sub(1);
                self.most_less_one[lane] = self.most_less_one[lane].max(less_one);
                self.least_less_one[lane] = self.least_less_one[lane].min(less_one);
            }
        }
    }
}
