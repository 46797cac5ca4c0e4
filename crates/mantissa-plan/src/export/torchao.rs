//! torchao: `Float8LinearConfig` with a `CastConfig` for each operand, and `Int8MixedPrecisionTrainingConfig`.
//!
//! What it can express (torchao/float8/config.py): E4M3 and E5M2 with dynamic scales per tensor or per axis, to nearest;
//! powers of two for all scales of a module or none; both operands of a product or neither, and not both in E5M2; the same
//! format for an operand in both of its products. INT8 has one scale for each row and column.

use std::fmt::Write;

use mantissa_formats::{Format, Rounding};
use mantissa_quant::{AmaxPolicy, Granularity, Numerics, ScaleKind};

use super::{Export, Notes, alike, is_high_precision, origin, products, without_rounding};
use crate::plan::{Plan, PlannedSite};
use crate::site::{Pass, PassNumerics, SiteKind};

/// What a linear module is converted to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Conversion {
    /// By pass, the casts of its operands, `None` being high precision; and whether scales are powers of two.
    Float8([Option<[Cast; 2]>; 3], bool),
    /// By pass, whether it is in INT8.
    Int8([bool; 3]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cast {
    e5m2: bool,
    axiswise: bool,
}

impl Cast {
    fn of(numerics: Numerics) -> Option<Cast> {
        let plain = without_rounding(numerics);
        let e5m2 = match plain.format {
            Format::E4M3 => false,
            Format::E5M2 => true,
            _ => return None,
        };
        let axiswise = match plain.granularity {
            Granularity::Tensor => false,
            Granularity::Channel => true,
            _ => return None,
        };
        let dynamic = plain.amax == AmaxPolicy::Dynamic && plain.scale == ScaleKind::F32;
        dynamic.then_some(Cast { e5m2, axiswise })
    }

    fn python(self) -> String {
        format!(
            "CastConfig(scaling_granularity=ScalingGranularity.{}, target_dtype={})",
            if self.axiswise {
                "AXISWISE"
            } else {
                "TENSORWISE"
            },
            self.dtype()
        )
    }

    fn dtype(self) -> &'static str {
        if self.e5m2 {
            "torch.float8_e5m2"
        } else {
            "torch.float8_e4m3fn"
        }
    }
}

pub(super) fn export(plan: &Plan) -> Export {
    let mut notes = Notes::default();
    let mut converted = Vec::new();
    for site in products(plan) {
        if let Some(conversion) = conversion(site, &mut notes) {
            converted.push((conversion, site.name.clone()));
        }
    }
    let groups = alike(converted.into_iter());
    let mut text = format!(
        "# Written by mantissa from {}.\n# Module names are those of the plan; rename them where the PyTorch model has others.\n\
         import torch\n\
         from torchao.float8 import Float8LinearConfig, convert_to_float8_training\n\
         from torchao.float8.config import CastConfig, ScalingGranularity, ScalingType\n\
         from torchao.prototype.quantized_training import Int8MixedPrecisionTrainingConfig\n\
         from torchao.quantization import quantize_\n\n\n\
         def high_precision(dtype):\n    return CastConfig(scaling_type=ScalingType.DISABLED, target_dtype=dtype)\n\n\n\
         def named(*names):\n    return lambda module, fqn: fqn in names\n\n\n\
         def convert(model):\n",
        origin(plan)
    );
    for (conversion, names) in &groups {
        let names: String = names
            .iter()
            .map(|name| format!("            {name:?},\n"))
            .collect();
        match conversion {
            Conversion::Float8(passes, pow2) => {
                let at = |[pass, side]: [usize; 2]| passes[pass].map(|pair| pair[side]);
                let mut fields = String::new();
                for (field, place, other) in FIELDS {
                    // torchao compares the types of an operand's two casts, disabled ones too.
                    let cast = at(place).map_or_else(
                        || {
                            let dtype = at(other).map_or("torch.float8_e4m3fn", Cast::dtype);
                            format!("high_precision({dtype})")
                        },
                        Cast::python,
                    );
                    let _ = writeln!(fields, "            {field}={cast},");
                }
                if *pow2 {
                    fields += "            round_scales_to_power_of_2=True,\n";
                }
                let _ = write!(
                    text,
                    "    convert_to_float8_training(\n        model,\n        config=Float8LinearConfig(\n{fields}        ),\n        \
                     module_filter_fn=named(\n{names}        ),\n    )\n"
                );
            }
            Conversion::Int8(passes) => {
                let flag = |on: bool| if on { "True" } else { "False" };
                let _ = write!(
                    text,
                    "    quantize_(\n        model,\n        Int8MixedPrecisionTrainingConfig(output={}, grad_input={}, grad_weight={}),\n        \
                     filter_fn=named(\n{names}        ),\n    )\n",
                    flag(passes[0]),
                    flag(passes[1]),
                    flag(passes[2]),
                );
            }
        }
    }
    text += "    return model\n";
    notes.finish(text, "#")
}

/// The fields of `Float8LinearConfig`, each with the place of its pass and of its operand there, and with those of the
/// same operand in its other product.
const FIELDS: [(&str, [usize; 2], [usize; 2]); 6] = [
    ("cast_config_input", [0, 0], [2, 0]),
    ("cast_config_weight", [0, 1], [1, 1]),
    ("cast_config_grad_output", [1, 0], [2, 1]),
    ("cast_config_weight_for_grad_input", [1, 1], [0, 1]),
    ("cast_config_input_for_grad_weight", [2, 0], [0, 0]),
    ("cast_config_grad_output_for_grad_weight", [2, 1], [1, 0]),
];

const HIGH: &str = "high precision";

fn conversion(site: &PlannedSite, notes: &mut Notes) -> Option<Conversion> {
    if site.kind != SiteKind::Linear {
        for pass in Pass::ALL {
            if !is_high_precision(site.numerics.pass(pass)) {
                notes.lost(site, pass, HIGH);
            }
        }
        return None;
    }
    let int8 = Pass::ALL.map(|pass| is_int8(site.numerics.pass(pass)));
    if int8.iter().any(|&on| on) {
        for (pass, on) in Pass::ALL.into_iter().zip(int8) {
            let numerics = site.numerics.pass(pass);
            if !on && !is_high_precision(numerics) {
                notes.lost(site, pass, HIGH);
            } else if on && differs_from(numerics, Granularity::Channel) {
                notes.lost(
                    site,
                    pass,
                    "INT8 with a scale per row and column, rounded as torchao does",
                );
            }
        }
        return Some(Conversion::Int8(int8));
    }
    let mut casts = Pass::ALL.map(|pass| {
        let numerics = site.numerics.pass(pass);
        let pair = [Cast::of(numerics.left)?, Cast::of(numerics.right)?];
        // torch._scaled_mm has no kernel for two of E5M2.
        (!(pair[0].e5m2 && pair[1].e5m2)).then_some(pair)
    });
    // An operand has one format in both of its products: input in 0 and 2, weight in 0 and 1, gradient in 1 and 2.
    for (a, a_side, b, b_side) in [(0, 0, 2, 0), (0, 1, 1, 1), (1, 0, 2, 1)] {
        if let (Some(first), Some(second)) = (casts[a], casts[b])
            && first[a_side].e5m2 != second[b_side].e5m2
        {
            casts[b] = None;
        }
    }
    let sides = |pass: Pass| {
        let numerics = site.numerics.pass(pass);
        [numerics.left, numerics.right]
    };
    // One setting for all casts of a module.
    let mut cast_passes = Pass::ALL
        .into_iter()
        .zip(casts)
        .filter(|(_, cast)| cast.is_some());
    let pow2 =
        cast_passes.all(|(pass, _)| sides(pass).map(|side| side.scale) == [ScaleKind::Pow2; 2]);
    let (scale, instead) = if pow2 {
        (
            ScaleKind::Pow2,
            "the same formats, granularity and scales, to nearest",
        )
    } else {
        (
            ScaleKind::F32,
            "the same formats and granularity with f32 scales, to nearest",
        )
    };
    for (pass, cast) in Pass::ALL.into_iter().zip(casts) {
        let exact =
            sides(pass).map(|side| side.rounding == Rounding::Nearest && side.scale == scale);
        match cast {
            None if !is_high_precision(site.numerics.pass(pass)) => notes.lost(site, pass, HIGH),
            Some(_) if exact != [true, true] => notes.lost(site, pass, instead),
            _ => {}
        }
    }
    casts
        .iter()
        .any(Option::is_some)
        .then_some(Conversion::Float8(casts, pow2))
}

fn is_int8(numerics: &PassNumerics) -> bool {
    let int8 = |side: Numerics| {
        side.format == Format::INT8
            && matches!(side.granularity, Granularity::Tensor | Granularity::Channel)
    };
    int8(numerics.left) && int8(numerics.right)
}

fn differs_from(numerics: &PassNumerics, granularity: Granularity) -> bool {
    let wanted = Numerics::scaled(Format::INT8, granularity);
    numerics.left != wanted || numerics.right != wanted
}
