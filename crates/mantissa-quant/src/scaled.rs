//! A factor with its scales: what is known of it before its elements are read for the product.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use mantissa_formats::{Overflow, RandomBits, Rounder, Rounding};
use pulp::bytemuck::{cast_slice, cast_slice_mut};

use crate::amax::Amax;
use crate::factor::{Factor, Source};
use crate::gemm::{Reading, Scales, Side, Values, transpose};
use crate::granularity::{Granularity, ScaleLayout};
use crate::numerics::Numerics;
use crate::operand::Operand;
use crate::panel::{Order, amax, shared_scales};
use crate::product::OperandReport;

/// Values above this may leave the range of f32 when two of them are multiplied and summed, so such
/// formats are scaled back before the product and not after it.
const LARGEST_UNSCALED: f32 = (1u64 << 32) as f32;

/// A factor and its scales.
pub struct Scaled<'a> {
    factor: &'a Factor<'a>,
    scales: Held,
    degenerate_groups: u64,
    /// The operand's own amax, where it was read.
    amax: Option<f32>,
    /// Elements known to be not finite.
    non_finite: u64,
    /// Whether all elements are known to be finite.
    finite: bool,
    /// Whether the scales are multiplied into the result, and not into the elements.
    pending: bool,
}

/// Scales, without memory of their own where there is but one.
enum Held {
    One([f32; 1]),
    Many(Vec<f32>),
}

impl<'a> Scaled<'a> {
    /// Reads the values once if their scales depend on them.
    ///
    /// # Panics
    /// If they reach outside their data.
    pub fn new(factor: &'a Factor<'a>) -> Self {
        let numerics = factor.numerics();
        let pending = matches!(
            numerics.granularity,
            Granularity::Tensor | Granularity::Channel
        ) && numerics.format.max_finite() <= LARGEST_UNSCALED;
        let mut scaled = Scaled {
            factor,
            scales: Held::One([1.0]),
            degenerate_groups: 0,
            amax: None,
            non_finite: 0,
            finite: false,
            pending,
        };
        match &factor.source {
            Source::Values {
                operand,
                numerics,
                amax,
                ..
            } => {
                operand.assert_inside();
                scaled.measure(operand, numerics, *amax);
            }
            Source::Codes { encoded, .. } => {
                scaled.scales = Held::One([encoded.scale]);
                scaled.degenerate_groups = encoded.report.degenerate_groups;
                scaled.amax = encoded.report.amax;
                scaled.non_finite = encoded.report.non_finite;
            }
        }
        scaled
    }

    fn measure(&mut self, operand: &Operand, numerics: &Numerics, scaled_by: Amax) {
        match numerics.granularity {
            Granularity::Unscaled => {}
            Granularity::Tensor => {
                let largest = amax(operand);
                let mut scale = [largest];
                match scaled_by {
                    Amax::Own => {}
                    Amax::Given(amax) => scale = [amax],
                    Amax::Shared(sharing) => sharing.raise(&mut scale),
                }
                self.degenerate_groups = numerics.scale_groups(0.0, &mut scale);
                self.amax = Some(largest);
                self.scales = Held::One(scale);
                self.finite = largest.is_finite();
            }
            _ => {
                let layout = numerics.granularity.layout(operand.outer, operand.depth);
                let (mut many, degenerate, finite) =
                    shared_scales(operand, numerics, layout, scaled_by);
                if order(operand, numerics) == Order::DepthMajor {
                    many = exchanged(many, layout);
                }
                self.scales = Held::Many(many);
                self.degenerate_groups = degenerate;
                self.finite = finite;
            }
        }
    }

    /// All scales, `[batch, outer_groups, depth_groups]`; a single 1 when unscaled.
    pub fn scales(&self) -> &[f32] {
        match &self.scales {
            Held::One(scale) => scale,
            Held::Many(scales) => scales,
        }
    }

    /// The one scale of all elements, if there is only one.
    pub fn scale(&self) -> Option<f32> {
        match self.scales {
            Held::One([scale]) => Some(scale),
            Held::Many(_) => None,
        }
    }

    /// The scales that the result is to be multiplied by.
    pub fn pending(&self) -> &[f32] {
        if self.pending { self.scales() } else { &[1.0] }
    }

    /// The factor as a product reads it.
    pub fn side(&'a self, reading: Reading) -> Side<'a> {
        let factor = self.factor;
        let (order, values) = match &factor.source {
            Source::Values {
                operand, numerics, ..
            } if numerics.is_fp32() => (Order::of(operand), Values::Plain(operand)),
            Source::Values {
                operand,
                numerics,
                random,
                ..
            } => {
                let values = self.rounded(operand, numerics, *random);
                (order(operand, numerics), values)
            }
            Source::Codes {
                encoded,
                transposed,
            } => {
                let order = match transposed {
                    false => Order::OuterMajor,
                    true => Order::DepthMajor,
                };
                let format = encoded.numerics.format;
                let values = Values::Codes {
                    codes: &encoded.codes,
                    rounder: Rounder::new(format, Rounding::Nearest, Overflow::Special),
                    scale: if self.pending { 1.0 } else { encoded.scale },
                };
                (order, values)
            }
        };
        Side {
            values,
            batch: factor.batch(),
            outer: factor.outer(),
            depth: factor.depth(),
            order,
            reading,
            bits: factor.numerics().format.bits(),
            non_finite: AtomicU64::new(self.non_finite),
            poisoned: Mutex::default(),
        }
    }

    fn rounded(
        &'a self,
        operand: &'a Operand<'a>,
        numerics: &Numerics,
        random: RandomBits,
    ) -> Values<'a> {
        let scales = match &self.scales {
            Held::One([scale]) => Scales::One(*scale),
            Held::Many(scales) => {
                let layout = numerics.granularity.layout(operand.outer, operand.depth);
                Scales::Groups(scales, layout)
            }
        };
        Values::Rounded {
            operand,
            rounder: Rounder::new(numerics.format, numerics.rounding, numerics.overflow),
            random: (numerics.rounding == Rounding::Stochastic).then_some(random),
            scales,
            fold: !self.pending,
            finite: self.finite,
            has_nan: numerics.format.has_nan(),
            special: numerics.overflow == Overflow::Special,
        }
    }

    /// What was met, after the side was read.
    pub fn report(&self, side: Side) -> OperandReport {
        OperandReport {
            non_finite: side.non_finite.into_inner(),
            degenerate_groups: self.degenerate_groups,
            amax: self.amax,
        }
    }
}

/// The order in which an operand is read: as it lies, unless random bits are read along with it.
fn order(operand: &Operand, numerics: &Numerics) -> Order {
    match numerics.rounding {
        Rounding::Stochastic => Order::OuterMajor,
        _ => Order::of(operand),
    }
}

/// Scales `[batch, outer_groups, depth_groups]` as `[batch, depth_groups, outer_groups]`.
fn exchanged(scales: Vec<f32>, layout: ScaleLayout) -> Vec<f32> {
    let [outer, depth] = [layout.outer_groups, layout.depth_groups];
    if outer <= 1 || depth <= 1 {
        return scales;
    }
    let mut out = vec![0.0; scales.len()];
    let matrices = out.chunks_mut(outer * depth);
    for (out, scales) in matrices.zip(scales.chunks(outer * depth)) {
        transpose(
            cast_slice_mut(out),
            outer,
            cast_slice(scales),
            depth,
            [outer, depth],
        );
    }
    out
}
