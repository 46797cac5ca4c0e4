//! TransformerEngine: one recipe for the model, and the products that are to be left out of it.
//!
//! A recipe (transformer_engine/common/recipe) gives the same numerics to every TransformerEngine module; the debug tools
//! (nvdlfw-inspect) can turn quantization off for single layers and products. So the recipe is taken that fits most
//! products, and the rest stays in high precision. The features' names are those of TransformerEngine 2.13 and later;
//! before, they were DisableFP8Layer and DisableFP8GEMM.

use std::fmt::Write;

use mantissa_quant::{AmaxPolicy, Numerics};

use super::{Export, Notes, alike, escaped, is_high_precision, origin, products, without_rounding};
use crate::plan::{Plan, PlannedSite};
use crate::site::{Pass, PassNumerics, SiteKind};

/// A recipe and the numerics it stands for.
struct TeRecipe {
    python: &'static str,
    lhs: &'static str,
    rhs: &'static str,
    grad: &'static str,
}

const RECIPES: [TeRecipe; 7] = [
    TeRecipe {
        python: "Float8CurrentScaling(fp8_format=Format.HYBRID)",
        lhs: "e4m3/tensor",
        rhs: "e4m3/tensor",
        grad: "e5m2/tensor",
    },
    TeRecipe {
        python: "Float8CurrentScaling(fp8_format=Format.E4M3)",
        lhs: "e4m3/tensor",
        rhs: "e4m3/tensor",
        grad: "e4m3/tensor",
    },
    TeRecipe {
        python: "DelayedScaling(fp8_format=Format.HYBRID, amax_history_len=16, amax_compute_algo=\"max\")",
        lhs: "e4m3/tensor/delayed16",
        rhs: "e4m3/tensor/delayed16",
        grad: "e5m2/tensor/delayed16",
    },
    // Its E8M0 scales are rounded up, those of `mxfp8` down.
    TeRecipe {
        python: "MXFP8BlockScaling()",
        lhs: "mxfp8",
        rhs: "mxfp8",
        grad: "mxfp8",
    },
    // Its scales are powers of two, unless NVTE_FP8_BLOCK_SCALING_FP32_SCALES=1.
    TeRecipe {
        python: "Float8BlockScaling()",
        lhs: "e4m3/block128/pow2",
        rhs: "e4m3/tile128x128/pow2",
        grad: "e4m3/block128/pow2",
    },
    // Without being told otherwise it rotates the operands of the weight's gradient too.
    TeRecipe {
        python: "NVFP4BlockScaling(disable_rht=True)",
        lhs: "nvfp4",
        rhs: "e2m1/tile16x16/two-level",
        grad: "nvfp4/stochastic",
    },
    TeRecipe {
        python: "NVFP4BlockScaling(disable_rht=True, disable_2d_quantization=True)",
        lhs: "nvfp4",
        rhs: "nvfp4",
        grad: "nvfp4/stochastic",
    },
];

impl TeRecipe {
    fn numerics(&self, pass: Pass) -> PassNumerics {
        let read = |token: &str| -> Numerics {
            token.parse().expect("the tokens above are read by a test")
        };
        let (lhs, rhs, grad) = (read(self.lhs), read(self.rhs), read(self.grad));
        let (left, right) = match pass {
            Pass::Forward => (lhs, rhs),
            Pass::GradLhs => (grad, rhs),
            Pass::GradRhs => (lhs, grad),
        };
        PassNumerics { left, right }
    }

    /// Whether format, granularity and amax policy are the recipe's; rounding may differ.
    fn fits(&self, pass: Pass, numerics: &PassNumerics) -> bool {
        let wanted = self.numerics(pass);
        let same = |a: Numerics, b: Numerics| {
            // The history's length is a setting of the recipe.
            let delayed = |policy: AmaxPolicy| policy != AmaxPolicy::Dynamic;
            let (mut a, mut b) = (without_rounding(a), without_rounding(b));
            let same_policy = delayed(a.amax) == delayed(b.amax);
            (a.amax, b.amax) = (AmaxPolicy::Dynamic, AmaxPolicy::Dynamic);
            same_policy && a == b
        };
        same(wanted.left, numerics.left) && same(wanted.right, numerics.right)
    }
}

const GEMMS: [&str; 3] = ["fprop", "dgrad", "wgrad"];

pub(super) fn export(plan: &Plan) -> Export {
    let linear: Vec<&PlannedSite> = products(plan)
        .filter(|site| site.kind == SiteKind::Linear)
        .collect();
    let fitting = |recipe: &TeRecipe| {
        let passes = linear
            .iter()
            .flat_map(|site| Pass::ALL.map(|pass| (site, pass)));
        passes
            .filter(|(site, pass)| recipe.fits(*pass, site.numerics.pass(*pass)))
            .count()
    };
    // Of equals the first.
    let best = RECIPES
        .iter()
        .rev()
        .max_by_key(|recipe| fitting(recipe))
        .filter(|recipe| fitting(recipe) > 0);
    let mut notes = Notes::default();
    let mut disabled = Vec::new();
    for site in products(plan) {
        let quantized = Pass::ALL.map(|pass| {
            let numerics = site.numerics.pass(pass);
            let fits = site.kind == SiteKind::Linear
                && best.is_some_and(|recipe| recipe.fits(pass, numerics));
            if !fits && !is_high_precision(numerics) {
                notes.lost(site, pass, "high precision");
            } else if fits && best.is_some_and(|recipe| recipe.numerics(pass) != *numerics) {
                notes.lost(site, pass, "the recipe's rounding and scales");
            }
            fits
        });
        let off: Vec<&str> = GEMMS
            .into_iter()
            .zip(quantized)
            .filter(|(_, on)| !on)
            .map(|(gemm, _)| gemm)
            .collect();
        if !off.is_empty() && site.kind == SiteKind::Linear {
            disabled.push((off, site.name.clone()));
        }
    }
    let mut text = format!("# Written by mantissa from {}.\n#\n", origin(plan));
    match best {
        Some(recipe) => {
            let name = recipe.python.split('(').next().unwrap_or_default();
            let _ = write!(
                text,
                "# The recipe:\n#   from transformer_engine.common.recipe import Format, {name}\n#   recipe = {}\n#\n\
                 # The layers and products that are not in it, for nvdlfw-inspect (debug_api.initialize(config_file=..., \
                 feature_dirs=[...]),\n# the folder of features being transformer_engine/debug/features).\n\
                 # Layer names are those of the plan; rename them where the model has others.\n",
                recipe.python
            );
        }
        None => {
            text +=
                "# No recipe of TransformerEngine has the numerics of any product of this plan.\n"
        }
    }
    for (index, (off, names)) in alike(disabled.into_iter()).iter().enumerate() {
        let names: Vec<String> = names.iter().map(|name| escaped(name)).collect();
        let _ = write!(
            text,
            "\nhigh_precision_{}:\n  enabled: True\n  layers:\n    layer_name_regex_pattern: '^({})$'\n  transformer_engine:\n",
            index + 1,
            names.join("|")
        );
        if off.len() == GEMMS.len() {
            text += "    DisableQuantizationLayer:\n      enabled: True\n";
        } else {
            let _ = write!(
                text,
                "    DisableQuantizationGEMM:\n      enabled: True\n      gemms: [{}]\n",
                off.join(", ")
            );
        }
    }
    notes.finish(text, "#")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_fits_itself() {
        for recipe in &RECIPES {
            for pass in Pass::ALL {
                assert!(
                    recipe.fits(pass, &recipe.numerics(pass)),
                    "{}",
                    recipe.python
                );
            }
        }
    }
}
