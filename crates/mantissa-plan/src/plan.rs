//! A decision for every site of one model, with its evidence.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::evidence::Evidence;
use crate::loss_scaling::{LossScaling, LossScalingError};
use crate::names;
use crate::plan_file;
use crate::recipe::{Recipe, RecipeError};
use crate::site::{Pass, Role, Site, SiteKind, SiteNumerics};
use crate::storage::{StorageError, StorageTable};
use crate::toml_text::TomlFault;
use mantissa_kernels::state::StateFormats;

/// The version of the plan file this crate reads and writes.
pub const SCHEMA: u32 = 1;

/// Where a plan's decisions come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// The rules of the recipe of this name.
    Recipe(String),
    /// Measurements, weighed for the target of this name.
    Profile {
        /// The target whose cost model was used.
        target: String,
        /// The training steps that were sampled.
        steps: Vec<u64>,
    },
}

/// A recipe, or a choice, bound to the sites of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Where the decisions come from.
    pub source: Source,
    /// How the loss is scaled.
    pub loss_scaling: LossScaling,
    /// The formats of the optimizer's moments.
    pub states: StateFormats,
    /// How weights and their gradients lie in memory.
    pub storage: StorageTable,
    /// What the choice predicted, of a plan that was chosen from a profile with gradients.
    pub prediction: Option<PlanPrediction>,
    /// The decisions, sorted by name (numbers in names by value), so that two plans can be compared line by line.
    pub sites: Vec<PlannedSite>,
}

/// What the policy was that chose a plan, and what it predicted. Numbers are kept to four significant digits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanPrediction {
    /// How the choice was made: `thresholds` or `budget`.
    pub policy: String,
    /// The budget, in shares of a step's progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<f64>,
    /// Of the step's products on the plan's target, in units of their cost in f32.
    pub cost: f64,
    /// The predicted quality loss, in shares of a step's progress.
    pub quality_loss: f64,
    /// The lower end of its 95 % confidence interval.
    pub quality_loss_low: f64,
    /// The upper end.
    pub quality_loss_high: f64,
}

/// The decision for one site.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedSite {
    /// The site's name.
    pub name: String,
    /// What it computes.
    pub kind: SiteKind,
    /// The numerics of its operands.
    pub numerics: SiteNumerics,
    /// Why, for the passes that were measured.
    pub evidence: BTreeMap<Pass, Evidence>,
}

/// Why a plan cannot be made, read or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The file cannot be read.
    #[error("cannot read the plan {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the plan {}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What is wrong, and in which file.
    #[error("{}: {fault}", .path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: Box<PlanError>,
    },
    /// The file is not text.
    #[error("the plan is not UTF-8 text")]
    NotText,
    /// The text is not a plan.
    #[error("the plan cannot be read: {0}")]
    Toml(#[from] TomlFault),
    /// The plan cannot be put into TOML.
    #[error("the plan cannot be printed as TOML: {0}")]
    Print(#[from] toml::ser::Error),
    /// Two decisions for one site.
    #[error("the plan decides site `{0}` twice; remove one of the two")]
    DuplicateSite(String),
    /// A decision lacks an operand.
    #[error(
        "the plan's site `{site}` names no numerics for {role} in the pass {pass}; write `{role} = \"fp32\"` there if it is not to be quantized"
    )]
    MissingOperand {
        /// The site.
        site: String,
        /// The pass.
        pass: Pass,
        /// The operand.
        role: Role,
    },
    /// A decision has an operand too many.
    #[error(
        "the plan's site `{site}` names numerics for {role} in the pass {pass}, which has no such operand; remove them"
    )]
    ExtraOperand {
        /// The site.
        site: String,
        /// The pass.
        pass: Pass,
        /// The operand.
        role: Role,
    },
    /// The loss scaling's settings contradict each other.
    #[error("the plan's loss scaling cannot be used: {0}")]
    LossScaling(#[from] LossScalingError),
    /// The storage table cannot be used.
    #[error("the plan's storage cannot be used: {0}")]
    Storage(#[from] StorageError),
    /// The plan was made for another model.
    #[error("the plan was made for another model: {difference}; make a plan for this model")]
    OtherModel {
        /// Which sites are missing or too many, or of another kind.
        difference: String,
    },
    /// No site of the plan has this name.
    #[error("the plan has no site `{name}`{hint}")]
    UnknownSite {
        /// The name asked for.
        name: String,
        /// The nearest name, in words.
        hint: String,
    },
}

impl Plan {
    /// A plan of these decisions, with everything stored in f32; two for one site are an error.
    pub fn new(
        source: Source,
        loss_scaling: LossScaling,
        mut sites: Vec<PlannedSite>,
    ) -> Result<Plan, PlanError> {
        loss_scaling.check()?;
        sites.sort_by(|a, b| names::natural_order(&a.name, &b.name));
        if let Some(twice) = sites.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(PlanError::DuplicateSite(twice[0].name.clone()));
        }
        Ok(Plan {
            source,
            loss_scaling,
            states: StateFormats::default(),
            storage: StorageTable::default(),
            prediction: None,
            sites,
        })
    }

    /// Binds a recipe to the sites of a model.
    pub fn from_recipe(recipe: &Recipe, sites: &[Site]) -> Result<Plan, RecipeError> {
        recipe
            .loss_scaling
            .check()
            .map_err(|source| RecipeError::LossScaling {
                recipe: recipe.name.clone(),
                source,
            })?;
        let stored = recipe.storage.assign(sites);
        stored.map_err(|source| recipe.storage_error(source))?;
        let assigned = recipe.assign(sites)?;
        let mut planned: Vec<PlannedSite> = sites
            .iter()
            .zip(assigned)
            .map(|(site, numerics)| PlannedSite::unmeasured(site, numerics))
            .collect();
        planned.sort_by(|a, b| names::natural_order(&a.name, &b.name));
        Ok(Plan {
            source: Source::Recipe(recipe.name.clone()),
            loss_scaling: recipe.loss_scaling.clone(),
            states: recipe.states,
            storage: recipe.storage.clone(),
            prediction: None,
            sites: planned,
        })
    }

    /// The decision for the site of this name; the error suggests the nearest name.
    pub fn site(&self, name: &str) -> Result<&PlannedSite, PlanError> {
        self.sites
            .iter()
            .find(|site| site.name == name)
            .ok_or_else(|| PlanError::UnknownSite {
                name: name.to_string(),
                hint: names::did_you_mean(name, self.sites.iter().map(|site| site.name.as_str())),
            })
    }

    /// Checks that the plan was made for a model with these sites; the error names those missing and those too many.
    pub fn check_sites(&self, sites: &[Site]) -> Result<(), PlanError> {
        let planned: HashMap<&str, SiteKind> = self
            .sites
            .iter()
            .map(|site| (site.name.as_str(), site.kind))
            .collect();
        let present: HashSet<&str> = sites.iter().map(|site| site.name.as_str()).collect();
        let missing: Vec<&str> = sites
            .iter()
            .map(|site| site.name.as_str())
            .filter(|name| !planned.contains_key(name))
            .collect();
        let extra: Vec<&str> = self
            .sites
            .iter()
            .map(|site| site.name.as_str())
            .filter(|name| !present.contains(name))
            .collect();
        let other_kind = sites.iter().find_map(|site| {
            let planned = *planned.get(site.name.as_str())?;
            (planned != site.kind).then(|| {
                format!(
                    "`{}` is planned as {planned} but is {}",
                    site.name, site.kind
                )
            })
        });
        let mut differences = Vec::new();
        if !missing.is_empty() {
            differences.push(format!("it does not decide {}", names::listed(&missing, 3)));
        }
        if !extra.is_empty() {
            differences.push(format!(
                "it decides {}, which the model does not have",
                names::listed(&extra, 3)
            ));
        }
        differences.extend(other_kind);
        if differences.is_empty() {
            Ok(())
        } else {
            Err(PlanError::OtherModel {
                difference: differences.join(", and "),
            })
        }
    }

    /// Reads a plan from TOML.
    pub fn from_toml(text: &str) -> Result<Plan, PlanError> {
        plan_file::from_toml(text)
    }

    /// Prints the plan as TOML: one fact a line, sites sorted by name, so that two plans can be compared line by line.
    pub fn to_toml(&self) -> Result<String, PlanError> {
        plan_file::to_toml(self)
    }

    /// Reads a plan file.
    pub fn load(path: impl AsRef<Path>) -> Result<Plan, PlanError> {
        plan_file::load(path.as_ref())
    }

    /// Writes the plan file whole or not at all.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), PlanError> {
        plan_file::save(self, path.as_ref())
    }
}

impl PlannedSite {
    /// A decision that rests on no measurement. An embedding keeps only the numerics of its table.
    pub fn unmeasured(site: &Site, numerics: SiteNumerics) -> Self {
        let mut kept = numerics;
        if !site.kind.is_product() {
            kept = SiteNumerics::FP32;
            kept.forward.right = numerics.forward.right;
        }
        PlannedSite {
            name: site.name.clone(),
            kind: site.kind,
            numerics: kept,
            evidence: BTreeMap::new(),
        }
    }
}
