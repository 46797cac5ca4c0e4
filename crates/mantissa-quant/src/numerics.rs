//! How one operand of one product is represented.

use mantissa_formats::{Format, Overflow, Rounding};
use serde::{Deserialize, Serialize};

use crate::amax_policy::AmaxPolicy;
use crate::granularity::Granularity;
use crate::scale::ScaleKind;

/// Format, granularity, scale kind, amax policy, rounding and overflow of an operand, written as one token
/// such as `e4m3/tensor`, `int8/block32`, `e5m2/tensor/stochastic`, `e4m3/tensor/delayed16`, `mxfp8` or `bf16`.
///
/// The grammar is `FORMAT[/GRANULARITY][/SCALE][/AMAX][/ROUNDING][/OVERFLOW]`; what is left out takes its
/// default, and printing leaves out what is a default, except the granularity of a scaled format. In
/// serde data it is that string.
///
/// ```
/// use mantissa_quant::{Granularity, Numerics, ScaleKind};
///
/// let numerics: Numerics = "mxfp8".parse()?;
/// assert_eq!(numerics, "e4m3/block32/e8m0".parse()?);
/// assert_eq!(numerics.granularity, Granularity::Block(32));
/// assert_eq!(numerics.scale, ScaleKind::E8M0);
/// assert_eq!(numerics.to_string(), "mxfp8");
/// # Ok::<(), mantissa_quant::ParseNumericsError>(())
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Numerics {
    /// How an element is coded.
    pub format: Format,
    /// How many elements share a scale.
    pub granularity: Granularity,
    /// Which numbers a scale may be; not read when unscaled.
    pub scale: ScaleKind,
    /// Where the amax of a scale comes from; delayed only for the one scale of a tensor.
    pub amax: AmaxPolicy,
    /// How an element between two codes is rounded.
    pub rounding: Rounding,
    /// What becomes of an element beyond the largest finite code.
    pub overflow: Overflow,
}

impl Numerics {
    /// Full precision: elements as they are.
    pub const FP32: Numerics = Numerics::unscaled(Format::FP32);
    /// bfloat16 without a scale.
    pub const BF16: Numerics = Numerics::unscaled(Format::BF16);
    /// IEEE half precision without a scale.
    pub const FP16: Numerics = Numerics::unscaled(Format::FP16);

    /// A format without a scale: ties to even, overflow to infinity or NaN.
    pub const fn unscaled(format: Format) -> Numerics {
        Numerics {
            format,
            granularity: Granularity::Unscaled,
            scale: ScaleKind::F32,
            amax: AmaxPolicy::Dynamic,
            rounding: Rounding::Nearest,
            overflow: Overflow::Special,
        }
    }

    /// A format with f32 scales: ties to even, saturating.
    pub const fn scaled(format: Format, granularity: Granularity) -> Numerics {
        Numerics {
            format,
            granularity,
            scale: ScaleKind::F32,
            amax: AmaxPolicy::Dynamic,
            rounding: Rounding::Nearest,
            overflow: Overflow::Saturate,
        }
    }

    /// Whether elements pass through untouched, so that a product is plain f32.
    pub fn is_fp32(&self) -> bool {
        self.format == Format::FP32 && self.granularity == Granularity::Unscaled
    }

    /// Replaces the amax of every group by its scale and returns how many groups are degenerate. `tensor_amax` is read
    /// by two-level scales only.
    pub(crate) fn scale_groups(&self, tensor_amax: f32, groups: &mut [f32]) -> u64 {
        if self.amax != AmaxPolicy::Dynamic {
            for amax in &mut *groups {
                *amax = self.amax.with_margin(*amax);
            }
        }
        self.scale.scale_all(self.format, tensor_amax, groups)
    }

    /// Bits an element costs, its share of the scales included, when `depth` elements lie along the
    /// contraction. The one scale of a tensor is not counted.
    pub fn bits_per_element(&self, depth: usize) -> f64 {
        let element = f64::from(self.format.bits());
        let groups = |size: u32| depth.div_ceil(size.max(1) as usize) as f64 / depth.max(1) as f64;
        let scales = match self.granularity {
            Granularity::Unscaled | Granularity::Tensor => 0.0,
            Granularity::Channel => 1.0 / depth.max(1) as f64,
            Granularity::Block(n) => groups(n),
            Granularity::Tile(r, c) => groups(c) / f64::from(r.max(1)),
        };
        element + f64::from(self.scale.bits()) * scales
    }

    /// What keeps these fields from being numerics, if anything: every combination that passes also
    /// parses back from its printed form.
    pub fn check(&self) -> Result<(), String> {
        if self.format == Format::E8M0 {
            return Err(
                "e8m0 codes scales, not elements: it has no zero and no sign; use it as a \
                        scale kind, as in e4m3/block32/e8m0"
                    .to_owned(),
            );
        }
        if self.format.name().parse() != Ok(self.format) {
            return Err(format!(
                "the name {} belongs to another format",
                self.format
            ));
        }
        if matches!(
            self.granularity,
            Granularity::Block(0) | Granularity::Tile(0, _) | Granularity::Tile(_, 0)
        ) {
            return Err("a block or tile needs a size of at least 1".to_owned());
        }
        if self.amax != AmaxPolicy::Dynamic && self.granularity != Granularity::Tensor {
            return Err(format!(
                "{} needs the one scale of a tensor, whose amax is remembered from step to step; use the granularity \
                 tensor, or leave it out",
                self.amax
            ));
        }
        match (self.granularity, self.scale) {
            (Granularity::Unscaled, ScaleKind::Pow2 | ScaleKind::E8M0 | ScaleKind::TwoLevel) => {
                Err(format!(
                    "scale kind {} needs scales; add a granularity such as tensor or block32",
                    self.scale
                ))
            }
            (Granularity::Tensor, ScaleKind::TwoLevel) => Err(
                "two-level scales need groups smaller than a tensor; use channel or block16"
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }
}
