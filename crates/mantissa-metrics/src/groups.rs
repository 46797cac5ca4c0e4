//! How the groups that could share a scale differ within a tensor.

use mantissa_formats::SimdLevel;
use pulp::{Simd, WithSimd};
use serde::{Deserialize, Serialize};

use crate::chunk::{INFINITY, LANES};
use crate::sketch::MagnitudeSketch;

/// How the groups of one kind spread: mergeable, over any number of tensors.
///
/// A group that is all zeros counts as a zero in all three.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupSpread {
    /// Each group's amax as a share of its tensor's: what a scale of its own would gain the group, in the range it need not
    /// cover.
    pub amax: MagnitudeSketch,
    /// Each group's root mean square in units of its tensor's.
    pub rms: MagnitudeSketch,
    /// Each group's crest factor, its amax over its own root mean square: how much of the group's scale goes to its outlier.
    pub crest: MagnitudeSketch,
}

impl GroupSpread {
    /// Adds the groups that `other` has seen.
    pub fn merge(&mut self, other: &GroupSpread) {
        self.amax.merge(&other.amax);
        self.rms.merge(&other.rms);
        self.crest.merge(&other.crest);
    }

    fn push(&mut self, groups: &[Group], amax: f32, rms: f64) {
        // A group of zeros is zero, also where the whole tensor is.
        let ratio = |part: f64, whole: f64| (part / whole.max(f64::MIN_POSITIVE)) as f32;
        let mut ratios = Vec::with_capacity(groups.len());
        let mut sketch = |sketch: &mut MagnitudeSketch, of: &dyn Fn(&Group) -> f32| {
            ratios.clear();
            ratios.extend(groups.iter().map(of));
            sketch.push(&ratios);
        };
        sketch(&mut self.amax, &|group| {
            ratio(group.amax(), f64::from(amax))
        });
        sketch(&mut self.rms, &|group| ratio(group.rms(), rms));
        sketch(&mut self.crest, &|group| ratio(group.amax(), group.rms()));
    }
}

/// How the channels and the blocks of a tensor spread.
///
/// ```
/// use mantissa_metrics::{GroupSpreads, Moments};
///
/// // Two channels of 64, one of which is a hundredth of the other.
/// let rows: Vec<f32> = (0..128).map(|i| if i < 64 { 1.0 } else { 0.01 }).collect();
/// let spreads = GroupSpreads::of(&rows, 64, 1.0, Moments::of(&rows).rms().unwrap());
/// assert_eq!((spreads.channels.amax.count(), spreads.blocks.amax.count()), (2, 4));
/// assert!((spreads.channels.amax.quantile(0.5).unwrap() - 0.01).abs() < 0.001);
/// assert!((spreads.channels.crest.quantile(1.0).unwrap() - 1.0).abs() < 0.02);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupSpreads {
    /// Whole rows along the contraction.
    pub channels: GroupSpread,
    /// Runs of [`GroupSpreads::BLOCK`] elements along the contraction; at the end of a row, what is left.
    pub blocks: GroupSpread,
}

impl GroupSpreads {
    /// Elements of a block.
    pub const BLOCK: usize = 32;

    /// The spread in whole rows of `depth` elements of a tensor with this `amax` and root mean square, which may be those of
    /// more than these rows. Infinities and NaNs are left out.
    pub fn of(rows: &[f32], depth: usize, amax: f32, rms: f64) -> Self {
        let depth = depth.max(1);
        let mut channels = Vec::with_capacity(rows.len().div_ceil(depth));
        let mut blocks =
            Vec::with_capacity(channels.capacity() * depth.min(rows.len()).div_ceil(Self::BLOCK));
        SimdLevel::best().dispatch(ReadGroups {
            rows,
            depth,
            channels: &mut channels,
            blocks: &mut blocks,
        });
        let mut spreads = Self::default();
        spreads.channels.push(&channels, amax, rms);
        spreads.blocks.push(&blocks, amax, rms);
        spreads
    }

    /// Adds the groups that `other` has seen.
    pub fn merge(&mut self, other: &GroupSpreads) {
        self.channels.merge(&other.channels);
        self.blocks.merge(&other.blocks);
    }
}

/// What is asked of a group's finite elements.
#[derive(Copy, Clone, Default)]
struct Group {
    /// Bits of the largest magnitude.
    amax: u32,
    squares: f64,
    count: u32,
}

impl Group {
    fn amax(&self) -> f64 {
        f64::from(f32::from_bits(self.amax))
    }

    fn rms(&self) -> f64 {
        (self.squares / f64::from(self.count.max(1))).sqrt()
    }
}

/// The groups of every row.
struct ReadGroups<'a> {
    rows: &'a [f32],
    depth: usize,
    channels: &'a mut Vec<Group>,
    blocks: &'a mut Vec<Group>,
}

impl WithSimd for ReadGroups<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for row in self.rows.chunks(self.depth) {
            let mut channel = Group::default();
            for block in row.chunks(GroupSpreads::BLOCK) {
                let block = read(block);
                channel.amax = channel.amax.max(block.amax);
                channel.squares += block.squares;
                channel.count += block.count;
                self.blocks.push(block);
            }
            self.channels.push(channel);
        }
    }
}

#[inline(always)]
fn read(values: &[f32]) -> Group {
    let mut amax = [0u32; LANES];
    let mut squares = [0f64; LANES];
    let mut count = [0u32; LANES];
    let mut see = |lane: usize, x: f32| {
        let magnitude = x.to_bits() & !(1 << 31);
        let is_finite = magnitude < INFINITY;
        let magnitude = if is_finite { magnitude } else { 0 };
        let wide = f64::from(f32::from_bits(magnitude));
        amax[lane] = amax[lane].max(magnitude);
        squares[lane] += wide * wide;
        count[lane] += u32::from(is_finite);
    };
    let (runs, rest) = values.as_chunks::<LANES>();
    for run in runs {
        for (lane, &x) in run.iter().enumerate() {
            see(lane, x);
        }
    }
    for (lane, &x) in rest.iter().enumerate() {
        see(lane, x);
    }
    Group {
        amax: amax.iter().fold(0, |a, &b| a.max(b)),
        squares: squares.iter().sum(),
        count: count.iter().sum(),
    }
}
