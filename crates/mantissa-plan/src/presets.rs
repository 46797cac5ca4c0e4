//! The recipes that have a name.

use crate::names;
use crate::recipe::{Recipe, RecipeError};

const PRESETS: [(&str, &str); 18] = [
    ("fp32", include_str!("presets/fp32.toml")),
    ("bf16", include_str!("presets/bf16.toml")),
    ("fp16", include_str!("presets/fp16.toml")),
    ("micikevicius", include_str!("presets/micikevicius.toml")),
    ("mellempudi", include_str!("presets/mellempudi.toml")),
    ("fp8-hybrid", include_str!("presets/fp8-hybrid.toml")),
    ("fp8-delayed", include_str!("presets/fp8-delayed.toml")),
    ("fp8-rowwise", include_str!("presets/fp8-rowwise.toml")),
    ("fp8-block", include_str!("presets/fp8-block.toml")),
    ("fp8-lm-o1", include_str!("presets/fp8-lm-o1.toml")),
    ("fp8-lm-o2", include_str!("presets/fp8-lm-o2.toml")),
    ("fp8-lm-o3", include_str!("presets/fp8-lm-o3.toml")),
    ("mxfp8", include_str!("presets/mxfp8.toml")),
    ("mxfp4-weights", include_str!("presets/mxfp4-weights.toml")),
    ("nvfp4", include_str!("presets/nvfp4.toml")),
    ("int8", include_str!("presets/int8.toml")),
    ("int8-tensor", include_str!("presets/int8-tensor.toml")),
    ("e5m2-unscaled", include_str!("presets/e5m2-unscaled.toml")),
];

impl Recipe {
    /// The names of the presets.
    pub fn preset_names() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|&(name, _)| name)
    }

    /// The preset of this name.
    pub fn preset(name: &str) -> Result<Recipe, RecipeError> {
        match PRESETS.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => Recipe::from_toml(text),
            None => Err(RecipeError::UnknownPreset {
                name: name.to_string(),
                hint: names::did_you_mean(name, Recipe::preset_names()),
                known: names::listed(&Recipe::preset_names().collect::<Vec<_>>(), usize::MAX),
            }),
        }
    }

    /// The TOML text of the preset of this name, with its comments.
    pub fn preset_toml(name: &str) -> Option<&'static str> {
        let mut presets = PRESETS.iter();
        presets
            .find(|(known, _)| *known == name)
            .map(|(_, text)| *text)
    }
}
