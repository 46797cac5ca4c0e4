//! A decision for every site of one model, with its evidence.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::evidence::Evidence;
use crate::recipe::{LossScaling, Recipe};
use crate::site::{Pass, Site, SiteKind, SiteNumerics};

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
        /// The training steps that were measured.
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
    /// The decisions, in the model's forward order.
    pub sites: Vec<PlannedSite>,
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
pub enum PlanError {}

impl Plan {
    /// Binds a recipe to the sites of a model.
    pub fn from_recipe(recipe: &Recipe, sites: &[Site]) -> Result<Plan, crate::RecipeError> {
        let _ = (recipe, sites);
        todo!()
    }

    /// The decision for the site of this name.
    pub fn site(&self, name: &str) -> Option<&PlannedSite> {
        self.sites.iter().find(|site| site.name == name)
    }

    /// Checks that the plan was made for a model with these sites.
    pub fn check_sites(&self, sites: &[Site]) -> Result<(), PlanError> {
        let _ = sites;
        todo!()
    }

    /// Reads a plan from TOML.
    pub fn from_toml(text: &str) -> Result<Plan, PlanError> {
        todo!("{text}")
    }

    /// Prints the plan as TOML: one fact a line, in a fixed order, so that two plans can be compared line by line.
    pub fn to_toml(&self) -> Result<String, PlanError> {
        todo!()
    }

    /// Reads a plan file.
    pub fn load(path: impl AsRef<Path>) -> Result<Plan, PlanError> {
        let _ = path.as_ref();
        todo!()
    }

    /// Writes the plan file whole or not at all.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), PlanError> {
        let _ = path.as_ref();
        todo!()
    }
}
