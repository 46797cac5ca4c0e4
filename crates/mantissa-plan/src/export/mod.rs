//! A plan as the settings of other systems, as far as they can express it.
//!
//! Each exporter writes what the other system reads, with a comment for every pass whose numerics it cannot express and what
//! stands there instead: high precision, or the nearest setting where only the rounding differs.

mod qwix;
mod te;
mod torchao;

use std::collections::BTreeMap;
use std::fmt::Write;

use mantissa_formats::Rounding;
use mantissa_quant::{Numerics, ScaleKind};

use crate::names;
use crate::plan::{Plan, PlannedSite, Source};
use crate::site::{Pass, PassNumerics};

/// A system that plans can be written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportTarget {
    /// torchao's float8 and INT8 training, for PyTorch: a Python module.
    Torchao,
    /// NVIDIA TransformerEngine: a recipe, and the settings file of its debug tools.
    TransformerEngine,
    /// Google's qwix, for JAX: a Python list of rules.
    Qwix,
}

/// A name of no [`ExportTarget`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("plans cannot be exported to `{name}`{hint} The systems are torchao, te and qwix.")]
pub struct UnknownExportTarget {
    name: String,
    hint: String,
}

impl std::str::FromStr for ExportTarget {
    type Err = UnknownExportTarget;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "torchao" => Ok(ExportTarget::Torchao),
            "te" => Ok(ExportTarget::TransformerEngine),
            "qwix" => Ok(ExportTarget::Qwix),
            _ => Err(UnknownExportTarget {
                name: name.to_string(),
                hint: names::did_you_mean(name, ["torchao", "te", "qwix"]),
            }),
        }
    }
}

/// A plan in another system's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The file's text.
    pub text: String,
    /// What could not be expressed, a sentence each; the text has them as comments.
    pub not_expressed: Vec<String>,
}

impl Plan {
    /// The plan as settings of another system.
    pub fn export(&self, target: ExportTarget) -> Export {
        match target {
            ExportTarget::Torchao => torchao::export(self),
            ExportTarget::TransformerEngine => te::export(self),
            ExportTarget::Qwix => qwix::export(self),
        }
    }
}

/// Notes of what could not be expressed.
#[derive(Default)]
struct Notes(Vec<String>);

impl Notes {
    fn lost(&mut self, site: &PlannedSite, pass: Pass, instead: &str) {
        let numerics = site.numerics.pass(pass);
        self.0.push(format!(
            "{}, {pass}: {}; taken instead: {instead}",
            site.name,
            described(pass, numerics)
        ));
    }

    fn finish(self, mut text: String, comment: &str) -> Export {
        if !self.0.is_empty() {
            let _ = write!(text, "\n{comment} Not expressed:\n");
        }
        for note in &self.0 {
            let _ = writeln!(text, "{comment}   {note}");
        }
        Export {
            text,
            not_expressed: self.0,
        }
    }
}

fn described(pass: Pass, numerics: &PassNumerics) -> String {
    let operands = numerics.by_role(pass);
    let parts: Vec<String> = operands
        .iter()
        .map(|(role, numerics)| format!("{role} in {numerics}"))
        .collect();
    parts.join(" with ")
}

/// Where the plan comes from, for the head of a file.
fn origin(plan: &Plan) -> String {
    match &plan.source {
        Source::Recipe(recipe) => format!("a plan of the recipe {recipe}"),
        Source::Profile { target, .. } => format!("a plan chosen from a profile, for {target}"),
    }
}

/// The sites that multiply.
fn products(plan: &Plan) -> impl Iterator<Item = &PlannedSite> {
    plan.sites.iter().filter(|site| site.kind.is_product())
}

/// Whether both are plain 16 or 32 bits: what other systems call high precision.
fn is_high_precision(numerics: &PassNumerics) -> bool {
    let high = |numerics: &Numerics| numerics.format.bits() >= 16;
    high(&numerics.left) && high(&numerics.right)
}

/// Nearest rounding and plain scales of any kind that f32 holds: what is left to compare is format and granularity.
fn without_rounding(numerics: Numerics) -> Numerics {
    let mut plain = numerics;
    plain.rounding = Rounding::Nearest;
    if plain.scale == ScaleKind::Pow2 {
        plain.scale = ScaleKind::F32;
    }
    plain
}

/// Sites that are set alike, in the plan's order, by what they are set to.
fn alike<K: Ord>(sites: impl Iterator<Item = (K, String)>) -> BTreeMap<K, Vec<String>> {
    let mut groups: BTreeMap<K, Vec<String>> = BTreeMap::new();
    for (key, name) in sites {
        groups.entry(key).or_default().push(name);
    }
    groups
}

/// A name with everything escaped that a regular expression would read.
fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for character in name.chars() {
        if !(character.is_alphanumeric() || character == '_' || character == '/') {
            text.push('\\');
        }
        text.push(character);
    }
    text
}
