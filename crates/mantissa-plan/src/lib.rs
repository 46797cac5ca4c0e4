//! Sites, recipes, profiles and plans: which product is computed in which numerics, and why.
//!
//! | module | what it answers |
//! |---|---|
//! | [`site`] | which products a model has, and which numerics each operand of each pass gets |
//! | [`recipe`] | rules a person wrote, and the named presets |
//! | [`autocast`] | which operations run in low precision, and which never do |
//! | [`loss_scaling`] | how the loss is scaled: which scaler, with which settings |
//! | [`storage`] | how weights and their gradients lie in memory between the passes |
//! | [`plan`] | a decision for every site of one model, with its evidence, as a TOML file |
//! | [`profile`] | the measurements a plan is made from, as one safetensors file |
//! | [`description`] | what a profile says of each operand, in the words of statistics |
//! | [`dump`] | a profile from tensors that another framework dumped |
//! | [`sampling`] | which rows of an operand are looked at |
//! | [`drift`](mod@drift) | how an operand moves from step to step |
//! | [`candidates`] | which numerics are considered for which operand |
//! | [`cost`] | what a pair of numerics costs on a named target |
//! | [`evaluate`] | what a pair of numerics does to a measured product |
//! | [`noise`] | how much noise that is, and how much of it is systematic |
//! | [`quality`] | what that noise is predicted to take from a training step |
//! | [`policy`] | which thresholds a pair must clear, or which budget all must keep |
//! | [`choose`](mod@choose) | the cheapest pairs that the policy lets through, with confidence |
//! | [`predict`](mod@predict) | what any plan costs and loses by a profile |
//! | [`check`] | whether operands stay within the policy's bounds |
//! | [`sensitivity`](mod@sensitivity) | what each pass contributes, and whether other numerics would pay there |
//! | [`export`] | the plan as settings of torchao, TransformerEngine or qwix |
//! | [`whatif`] | what every candidate would do to every measured product, over sites, and what follows from it |
//! | [`guard`] | when a running plan is out of budget, and what then |
//! | [`decision`] | what was decided during a run, and why |
//! | [`warning`] | which parts of a recipe or plan contradict each other |
//! | [`explain`](mod@explain) | one site's decisions in prose |
//!
//! # Example
//!
//! A recipe bound to the sites of a model, and a plan chosen from a profile:
//!
//! ```
//! use mantissa_plan::{
//!     OperandStatistics, Pass, PassSample, Plan, Policy, Profile, Recipe, Site, SiteKind, choose, explain,
//! };
//!
//! let sites = [Site::new("encoder.query", SiteKind::Linear)];
//! let plan = Plan::from_recipe(&Recipe::preset("fp8-hybrid")?, &sites)?;
//! assert_eq!(plan.site("encoder.query")?.numerics.grad_rhs.right.to_string(), "e5m2/tensor");
//!
//! // One step's forward operands: 16 rows of each, 64 deep.
//! let rows: Vec<f32> = (0..16 * 64).map(|i| (i as f32 * 0.7).sin()).collect();
//! let sample = PassSample {
//!     step: 100,
//!     batch: 1,
//!     outer_left: 16,
//!     outer_right: 16,
//!     depth: 64,
//!     left: rows.clone(),
//!     right: rows.iter().map(|x| x * 0.02).collect(),
//!     left_amax: 1.0,
//!     right_amax: 0.02,
//! };
//! let left = OperandStatistics::of(sample.step, [1, 512, 64], 1.0, &sample.left);
//! let right = OperandStatistics::of(sample.step, [1, 256, 64], 0.02, &sample.right);
//! let mut profile = Profile::new(&sites);
//! profile.record("encoder.query", Pass::Forward, sample, left, right)?;
//!
//! let plan = choose(&profile, &Policy::for_target("cpu-vnni")?)?;
//! assert_eq!(plan.site("encoder.query")?.numerics.forward.left.to_string(), "int8/tensor");
//! assert_eq!(Plan::from_toml(&plan.to_toml()?)?, plan);
//! println!("{}", explain(&plan, "encoder.query")?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod assess;
pub mod autocast;
pub mod candidates;
pub mod check;
pub mod choose;
pub mod cost;
pub mod decision;
pub mod description;
pub mod drift;
pub mod dump;
pub mod evaluate;
pub mod evidence;
pub mod explain;
pub mod export;
mod file;
pub mod guard;
mod knapsack;
pub mod loss_scaling;
mod names;
pub mod noise;
pub mod plan;
mod plan_file;
pub mod policy;
mod policy_file;
pub mod predict;
pub mod predict_json;
mod presets;
pub mod profile;
mod profile_file;
pub mod quality;
pub mod recipe;
pub mod sampling;
pub mod sensitivity;
pub mod site;
pub mod storage;
mod toml_text;
pub mod warning;
pub mod whatif;

pub use candidates::Candidates;
pub use check::{Violation, violations};
pub use choose::{ChooseError, choose, choose_after};
pub use cost::{Target, TargetError};
pub use decision::Decision;
pub use drift::{Drift, Jump, StepSummary};
pub use dump::DumpError;
pub use evidence::Evidence;
pub use explain::explain;
pub use export::{Export, ExportTarget};
pub use guard::Guard;
pub use loss_scaling::{LossScaling, LossScalingError};
pub use plan::{Plan, PlanError, PlanPrediction, PlannedSite, Source};
pub use policy::{Choice, Policy, Thresholds};
pub use policy_file::PolicyError;
pub use predict::{PredictError, Prediction, predict, predict_cost};
pub use profile::{OperandStatistics, PassProfile, PassSample, Profile, ProfileError, SiteProfile};
pub use quality::{QualityError, QualityLoss, QualityModel};
pub use recipe::{Only, OperandNumerics, Recipe, RecipeError, Rule};
pub use sampling::{SampledPass, Sampling};
pub use sensitivity::{Sensitivity, Trade, sensitivity};
pub use site::{Pass, PassNumerics, Role, Site, SiteKind, SiteNumerics};
pub use storage::{SiteStorage, Storage, StorageError, StorageRule, StorageTable};
pub use toml_text::TomlFault;
pub use warning::Warning;
pub use whatif::WhatIf;
