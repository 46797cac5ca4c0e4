//! Sites, recipes, profiles and plans: which product is computed in which numerics, and why.
//!
//! | module | what it answers |
//! |---|---|
//! | [`site`] | which products a model has, and which numerics each operand of each pass gets |
//! | [`recipe`] | rules a person wrote, and the named presets |
//! | [`plan`] | a decision for every site of one model, with its evidence, as a TOML file |
//! | [`profile`] | the measurements a plan is made from, as one safetensors file |
//! | [`candidates`] | which numerics are considered for which operand |
//! | [`cost`] | what a pair of numerics costs on a named target |
//! | [`evaluate`] | what a pair of numerics does to a measured product |
//! | [`policy`] | which thresholds a pair must clear |
//! | [`choose`](mod@choose) | the cheapest pair that clears the thresholds with confidence |
//! | [`explain`](mod@explain) | one site's decisions in prose |
#![forbid(unsafe_code)]

pub mod candidates;
pub mod choose;
pub mod cost;
pub mod evaluate;
pub mod evidence;
pub mod explain;
mod file;
mod names;
pub mod plan;
mod plan_file;
pub mod policy;
pub mod profile;
mod profile_file;
pub mod recipe;
pub mod site;
mod toml_text;

pub use candidates::Candidates;
pub use choose::{ChooseError, choose};
pub use cost::{Target, TargetError};
pub use evidence::Evidence;
pub use explain::explain;
pub use plan::{Plan, PlanError, PlannedSite, Source};
pub use policy::{Policy, Thresholds};
pub use profile::{OperandStatistics, PassProfile, PassSample, Profile, ProfileError, SiteProfile};
pub use recipe::{LossScaling, OperandNumerics, Recipe, RecipeError, Rule};
pub use site::{Pass, PassNumerics, Role, Site, SiteKind, SiteNumerics};
pub use toml_text::TomlFault;
