//! qwix: a `QtRule` for each module, by its path.
//!
//! What it can express (qwix/_src/providers/qt.py): one type each for weights, activations and gradients, the same in both
//! backward products; absmax scales per channel unless `disable_channelwise_axes`, or for each `tile_size` elements along
//! the contraction; stochastic rounding of integer gradients. The backward products reuse the operands of the forward pass
//! as they were quantized, or in high precision where they have tiles; activations' gradients have no tiles. Integers are
//! scaled to half a step beyond the largest one.

use std::fmt::Write;

use mantissa_formats::{Format, Rounding};
use mantissa_quant::{AmaxPolicy, Granularity, Numerics, ScaleKind};

use super::{Export, Notes, escaped, is_high_precision, origin, products};
use crate::plan::{Plan, PlannedSite};
use crate::site::{Pass, SiteKind};

/// A type of qwix, with what it implies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct QType {
    name: &'static str,
    channelwise: bool,
    tile: Option<u32>,
}

impl QType {
    fn of(numerics: Numerics) -> Option<QType> {
        let plain = |name| {
            (numerics.amax == AmaxPolicy::Dynamic && numerics.scale == ScaleKind::F32)
                .then_some(name)
        };
        // The microscaling types ask for their own tile.
        let (name, tile) = match numerics.to_string().as_str() {
            "mxfp8" | "mxfp8/stochastic" => ("mxfp8", Some(32)),
            "mxfp4" | "mxfp4/stochastic" => ("mxfp4", Some(32)),
            "nvfp4" | "nvfp4/stochastic" => ("nvfp4", Some(16)),
            _ => {
                let name = match numerics.format {
                    Format::INT8 => plain("int8"),
                    Format::INT4 => plain("int4"),
                    Format::E4M3 => plain("float8_e4m3fn"),
                    Format::E5M2 => plain("float8_e5m2"),
                    _ => None,
                }?;
                let tile = match numerics.granularity {
                    Granularity::Block(size) => Some(size),
                    Granularity::Tensor | Granularity::Channel => None,
                    _ => return None,
                };
                (name, tile)
            }
        };
        Some(QType {
            name,
            channelwise: numerics.granularity == Granularity::Channel,
            tile,
        })
    }
}

pub(super) fn export(plan: &Plan) -> Export {
    let mut notes = Notes::default();
    let mut text = format!(
        "# Written by mantissa from {}.\n# Module paths are those of the plan with / for dots; change them where the JAX model \
         has others. The first rule that\n# matches counts; what no rule matches stays in high precision.\nimport qwix\n\nRULES = [\n",
        origin(plan)
    );
    for site in products(plan) {
        if let Some(fields) = rule(site, &mut notes) {
            let path = escaped(&site.name.replace('.', "/"));
            let _ = writeln!(
                text,
                "    qwix.QtRule(module_path=r\"{path}\", {}),",
                fields.join(", ")
            );
        }
    }
    text += "]\n\n# model = qwix.quantize_model(model, qwix.QtProvider(RULES), *example_inputs)  # inputs for nnx alone\n";
    notes.finish(text, "#")
}

const HIGH: &str = "high precision";

/// Types whose scales qwix rounds in its own way: powers of two not to OCP's, and NVFP4's without a scale of the tensor.
const MICROSCALING: [&str; 3] = ["mxfp8", "mxfp4", "nvfp4"];

fn rule(site: &PlannedSite, notes: &mut Notes) -> Option<Vec<String>> {
    let forward = &site.numerics.forward;
    let types = QType::of(forward.left).zip(QType::of(forward.right));
    // One granularity for a rule.
    let types =
        types.filter(|(lhs, rhs)| (lhs.channelwise, lhs.tile) == (rhs.channelwise, rhs.tile));
    let Some((lhs, rhs)) = types else {
        for pass in Pass::ALL {
            if !is_high_precision(site.numerics.pass(pass)) {
                notes.lost(site, pass, HIGH);
            }
        }
        return None;
    };
    if forward.left.rounding == Rounding::Stochastic
        || forward.right.rounding == Rounding::Stochastic
    {
        notes.lost(site, Pass::Forward, "the same types, to nearest");
    }
    if [lhs, rhs]
        .iter()
        .any(|side| MICROSCALING.contains(&side.name))
    {
        notes.lost(site, Pass::Forward, "the same types, scaled as qwix does");
    }
    let rhs = if site.kind == SiteKind::Linear {
        rhs
    } else {
        if lhs.name != rhs.name {
            notes.lost(site, Pass::Forward, &format!("{} for both", lhs.name));
        }
        lhs
    };
    // A rule without a type for weights quantizes nothing, a product of activations neither.
    let mut fields = vec![
        format!("weight_qtype=\"{}\"", rhs.name),
        format!("act_qtype=\"{}\"", lhs.name),
    ];
    if !lhs.channelwise && lhs.tile.is_none() {
        fields.push("disable_channelwise_axes=True".to_string());
    }
    if let Some(tile) = lhs.tile {
        fields.push(format!("tile_size={tile}"));
    }
    fields.extend(backward(site, lhs, rhs, notes));
    Some(fields)
}

/// The fields of the backward passes: one type for the gradient, beside the types of the forward pass.
fn backward(site: &PlannedSite, lhs: QType, rhs: QType, notes: &mut Notes) -> Vec<String> {
    let (grad_lhs, grad_rhs) = (&site.numerics.grad_lhs, &site.numerics.grad_rhs);
    let gradient = |numerics: Numerics, other: Numerics, forward: QType| {
        let found = QType::of(numerics)?;
        let tiled = found.tile.is_some() || forward.tile.is_some();
        let fits = QType::of(other)? == forward && found.channelwise == forward.channelwise;
        (fits && !tiled).then_some(found)
    };
    let left = gradient(grad_lhs.left, grad_lhs.right, rhs);
    let right = gradient(grad_rhs.right, grad_rhs.left, lhs);
    let same =
        |a: QType, b: QType| a.name == b.name && grad_lhs.left.rounding == grad_rhs.right.rounding;
    let kept = left.zip(right).filter(|&(a, b)| same(a, b));
    let Some((found, _)) = kept else {
        for pass in [Pass::GradLhs, Pass::GradRhs] {
            if !is_high_precision(site.numerics.pass(pass)) {
                notes.lost(site, pass, HIGH);
            }
        }
        return Vec::new();
    };
    let mut fields = vec![format!("bwd_qtype=\"{}\"", found.name)];
    if found.channelwise {
        // Its scales of the forward pass lie along the contraction here and go into the gradient.
        for pass in [Pass::GradLhs, Pass::GradRhs] {
            notes.lost(
                site,
                pass,
                "the same types, the other operand as quantized in the forward pass",
            );
        }
    }
    if grad_lhs.left.rounding == Rounding::Stochastic {
        if found.name.starts_with("int") {
            fields.push("bwd_stochastic_rounding=\"uniform\"".to_string());
            // Otherwise all elements of a row are given the same random number.
            fields.push("channelwise_noise_axes=(0, 1, 2, 3)".to_string());
        } else {
            // Its float branch returns before the noise is added.
            for pass in [Pass::GradLhs, Pass::GradRhs] {
                notes.lost(site, pass, "the same types, to nearest");
            }
        }
    }
    fields
}
