//! The JSON that `--json` writes.

use std::collections::BTreeMap;

use mantissa::plan::evaluate::{OperandError, PairError};
use mantissa::plan::whatif::{PassOutcome, SiteOutcome};
use mantissa::plan::{Pass, Role, SiteKind, Target};
use mantissa_metrics::{BackwardError, Estimate};
use mantissa_quant::Numerics;
use serde::Serialize;

/// One pair at one pass of one site. `null` is what is undefined: an interval from fewer than 6 rows, the SQNR of what
/// lost nothing, the bias of a product that overflowed.
#[derive(Serialize)]
pub struct Row<'a> {
    site: &'a str,
    kind: SiteKind,
    pass: Pass,
    samples: usize,
    outputs: usize,
    depth: usize,
    operands: BTreeMap<Role, Operand>,
    /// What the pair costs on the target, in units of the f32 product.
    cost: f64,
    /// Of both operands' elements together, scales included.
    bits: f64,
    backward_error: Option<BackwardError>,
    /// Of the signed backward error.
    bias: Option<Estimate>,
    variance: Option<f64>,
    /// Between the exact and the quantized product.
    cosine: Option<Estimate>,
    /// Between the first steps Adam would take; of weights' gradients only.
    update_cosine: Option<Estimate>,
}

#[derive(Serialize)]
struct Operand {
    numerics: Numerics,
    /// Of a fitted Student-t distribution.
    nu: Option<f64>,
    rows: usize,
    #[serde(flatten)]
    error: OperandError,
}

impl<'a> Row<'a> {
    /// The rows of one site.
    pub fn all(site: &'a SiteOutcome, target: &Target) -> Vec<Row<'a>> {
        let of_pass = |pass: &'a PassOutcome| {
            pass.pairs
                .iter()
                .map(move |error| Row::of(site, pass, error, target))
        };
        site.passes.iter().flat_map(of_pass).collect()
    }

    fn of(site: &'a SiteOutcome, pass: &PassOutcome, error: &PairError, target: &Target) -> Self {
        let numerics = error.numerics;
        let sides = [(numerics.left, error.left), (numerics.right, error.right)];
        let operands = pass.pass.operands().into_iter().zip(sides).enumerate();
        let signed = error.signed;
        Row {
            site: &site.site.name,
            kind: site.site.kind,
            pass: pass.pass,
            samples: pass.samples,
            outputs: pass.outputs,
            depth: pass.depth,
            operands: operands
                .map(|(side, (role, (numerics, error)))| {
                    let operand = Operand {
                        numerics,
                        nu: pass.nu[side],
                        rows: pass.rows[side],
                        error,
                    };
                    (role, operand)
                })
                .collect(),
            cost: target.cost(&numerics, pass.depth),
            bits: bits(error, pass.depth),
            backward_error: error.product,
            bias: signed.map(|signed| signed.bias),
            variance: signed.map(|signed| signed.variance),
            cosine: signed.and_then(|signed| signed.cosine),
            update_cosine: signed
                .filter(|_| site.is_weight_gradient(pass.pass))
                .and_then(|signed| signed.sign_cosine),
        }
    }
}

/// Bits of an element, over both operands, its share of the scales included.
pub fn bits(error: &PairError, depth: usize) -> f64 {
    let numerics = error.numerics;
    0.5 * (numerics.left.bits_per_element(depth) + numerics.right.bits_per_element(depth))
}
