//! From the largest magnitude of a group to its scale.

use std::fmt;
use std::str::FromStr;

use mantissa_formats::{Format, Overflow, RandomBits, Rounder, Rounding, SimdLevel};
use pulp::{Simd, WithSimd};
use serde::{Deserialize, Serialize};

/// Which numbers a scale may be.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScaleKind {
    /// `amax / max_finite`, any f32.
    F32,
    /// The smallest power of two that is at least `amax / max_finite`, so that nothing saturates.
    Pow2,
    /// The shared exponent of OCP Microscaling Formats (MX) v1.0, section 6.3:
    /// `2^(floor(log2 amax) - emax)`, clamped to the range of E8M0; elements above the largest
    /// finite value saturate.
    #[serde(rename = "e8m0")]
    E8M0,
    /// An E4M3 scale for each group under one f32 scale for the tensor, as in NVFP4.
    TwoLevel,
}

impl ScaleKind {
    /// Every kind with its name in the grammar of numerics.
    pub const NAMED: [(&'static str, ScaleKind); 4] = [
        ("f32", ScaleKind::F32),
        ("pow2", ScaleKind::Pow2),
        ("e8m0", ScaleKind::E8M0),
        ("two-level", ScaleKind::TwoLevel),
    ];

    /// Bits that one scale costs: a power of two needs only its exponent, a two-level scale only
    /// its E4M3 code.
    pub const fn bits(self) -> u32 {
        match self {
            ScaleKind::F32 => 32,
            ScaleKind::Pow2 | ScaleKind::E8M0 | ScaleKind::TwoLevel => 8,
        }
    }

    /// The scale of a group with largest magnitude `group_amax`, in a tensor with largest magnitude
    /// `tensor_amax` (read by `TwoLevel` only). Both are non-negative, infinite or NaN.
    ///
    /// A zero or non-finite amax has no scale of its own: the group gets 1 and is degenerate.
    pub fn scale(self, format: Format, group_amax: f32, tensor_amax: f32) -> Scale {
        let mut scale = [group_amax];
        let degenerate = self.scale_all(format, tensor_amax, &mut scale) > 0;
        Scale {
            value: scale[0],
            degenerate,
        }
    }

    /// Replaces the amax of every group by its scale and returns how many groups are degenerate.
    pub(crate) fn scale_all(self, format: Format, tensor_amax: f32, groups: &mut [f32]) -> u64 {
        let max = format.max_finite();
        match self {
            ScaleKind::F32 => each(groups, |amax| (amax / max).max(f32::MIN_POSITIVE)),
            ScaleKind::Pow2 => each(groups, |amax| power_of_two_at_least(amax, max)),
            ScaleKind::E8M0 => {
                let max_exponent = exponent(max);
                each(groups, |amax| shared_exponent(amax, max_exponent))
            }
            ScaleKind::TwoLevel => two_level(groups, tensor_amax, max),
        }
    }
}

/// Whether an amax determines a scale.
fn has_scale(amax: f32) -> bool {
    amax.is_finite() && amax != 0.0
}

fn each(groups: &mut [f32], scale: impl Fn(f32) -> f32) -> u64 {
    SimdLevel::best().dispatch(Each { groups, scale })
}

/// Replaces amaxes by scales, many at a time, and counts those that determine none.
struct Each<'a, F> {
    groups: &'a mut [f32],
    scale: F,
}

impl<F: Fn(f32) -> f32> WithSimd for Each<'_, F> {
    type Output = u64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> u64 {
        let mut degenerate = 0;
        for group in self.groups {
            let amax = *group;
            degenerate += u64::from(!has_scale(amax));
            let scale = (self.scale)(amax);
            *group = if has_scale(amax) { scale } else { 1.0 };
        }
        degenerate
    }
}

/// The scale of one group.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Scale {
    /// What codes are multiplied by; finite and positive.
    pub value: f32,
    /// The group's amax did not determine the scale.
    pub degenerate: bool,
}

/// `floor(log2 x)` of a positive finite f32; every f32, subnormals too, is a normal f64.
fn exponent(x: f32) -> i32 {
    ((f64::from(x).to_bits() >> 52) & 0x7ff) as i32 - 1023
}

/// 2^e as f32, subnormal where it must be; `e` in -149..=127.
fn power_of_two(e: i32) -> f32 {
    f64::from_bits(((e + 1023) as u64) << 52) as f32
}

fn power_of_two_at_least(amax: f32, max: f32) -> f32 {
    // A quotient of two f32 that differs from a power of two does so by a relative 2^-24 at least,
    // which the f64 division cannot hide.
    let quotient = f64::from(amax) / f64::from(max);
    let bits = quotient.to_bits();
    let floor = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let exact = bits & ((1 << 52) - 1) == 0;
    power_of_two((floor + i32::from(!exact)).clamp(f32::MIN_EXP - 1, 127))
}

#[inline(always)]
fn shared_exponent(amax: f32, max_exponent: i32) -> f32 {
    // int8 under E8M0 is MXINT8: its codes stand for code/64 there and for whole numbers here, and
    // floor(log2 127) = 6 makes up for it.
    let bits = amax.to_bits();
    // A subnormal number is a whole number of 2^-149, whose exponent field is that of f32's bias and no less.
    let field = match bits >> 23 {
        0 => ((bits as i32 as f32).to_bits() >> 23) as i32 - 149,
        field => field as i32,
    };
    let field = (field - max_exponent).clamp(0, 254) as u32;
    // 2^-127 is subnormal itself.
    f32::from_bits((field << 23).max(1 << 22))
}

/// Largest E4M3 value.
const E4M3_MAX: f32 = 448.0;
/// Smallest positive E4M3 value.
const E4M3_MIN: f32 = 1.0 / 512.0;

fn two_level(groups: &mut [f32], tensor_amax: f32, max: f32) -> u64 {
    let tensor = if has_scale(tensor_amax) {
        (tensor_amax / (max * E4M3_MAX)).max(f32::MIN_POSITIVE)
    } else {
        1.0
    };
    let mut blocks: Vec<f32> = groups.iter().map(|amax| amax / max / tensor).collect();
    let rounder = Rounder::new(Format::E4M3, Rounding::Nearest, Overflow::Saturate);
    rounder.round(RandomBits::NONE, 0, &mut blocks);
    let mut degenerate = 0;
    for (group, block) in groups.iter_mut().zip(blocks) {
        degenerate += u64::from(!has_scale(*group) || block == 0.0);
        // A group too small for an E4M3 scale takes the smallest one: dividing by zero would lose it.
        *group = match has_scale(*group) {
            true => (block.max(E4M3_MIN) * tensor).max(f32::MIN_POSITIVE),
            false => 1.0,
        };
    }
    degenerate
}

impl fmt::Display for ScaleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ScaleKind::F32 => "f32",
            ScaleKind::Pow2 => "pow2",
            ScaleKind::E8M0 => "e8m0",
            ScaleKind::TwoLevel => "two-level",
        })
    }
}

/// A word that is no scale kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a scale kind: write f32, pow2, e8m0 or two-level")]
pub struct ParseScaleKindError(pub String);

impl FromStr for ScaleKind {
    type Err = ParseScaleKindError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let found = Self::NAMED.iter().find(|(name, _)| *name == word);
        found
            .map(|(_, kind)| *kind)
            .ok_or_else(|| ParseScaleKindError(word.to_owned()))
    }
}
