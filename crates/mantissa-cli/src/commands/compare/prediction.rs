//! What a profile predicts of the rows of a study.

use std::collections::BTreeMap;
use std::path::Path;

use mantissa::plan::predict_json::LossJson;
use mantissa::plan::{Plan, Policy, Profile, Target, choose, predict, predict_cost};
use serde::Serialize;

use crate::error::Error;
use crate::terminal;
use crate::training::folder::folder_name;
use crate::training::study::Study;
use crate::training::{Progress, RunFolder};

/// What is predicted of a row.
#[derive(Debug, Serialize)]
pub struct RowPrediction {
    /// The quality loss of its plan.
    pub quality_loss: LossJson,
    /// By target, in units of the products of a step in f32.
    pub cost: BTreeMap<String, f64>,
    /// For a row whose plan was chosen: the others that cost no more on its target and lose less, with confidence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beaten_by: Option<Vec<String>>,
}

/// Predictions of the rows of a study from one profile.
pub struct Predictor {
    profile: Profile,
    /// At least one.
    targets: Vec<Target>,
}

impl Predictor {
    /// Costs are predicted for the targets of the study's policies, or without any for `emulate`.
    pub fn new(profile: Profile, study: &Study) -> Result<Self, Error> {
        let mut targets: Vec<Target> = Vec::new();
        for policy in study.rows.iter().filter_map(|row| row.policy.as_ref()) {
            if !targets.contains(&policy.target) {
                targets.push(policy.target.clone());
            }
        }
        if targets.is_empty() {
            targets.push(Target::preset("emulate")?);
        }
        Ok(Self { profile, targets })
    }

    /// Refuses a profile of another model than that of this plan.
    pub fn check(&self, plan: &Plan) -> Result<(), Error> {
        let sites = self.profile.sites.iter();
        let sites: Vec<_> = sites.map(|measured| measured.site.clone()).collect();
        Ok(plan.check_sites(&sites)?)
    }

    /// Chooses the plans of the rows that have a policy, into `plans` in the study's folder.
    pub fn choose_plans(
        &self,
        study: &mut Study,
        out: &Path,
        progress: &Progress,
    ) -> Result<(), Error> {
        let folder = out.join("plans");
        for row in &mut study.rows {
            let Some(policy) = &row.policy else { continue };
            std::fs::create_dir_all(&folder).map_err(|source| Error::Write {
                path: folder.clone(),
                source,
            })?;
            if let Some(warning) = policy.warning() {
                terminal::complain("warning", &format!("row `{}`: {warning}", row.name));
            }
            let path = folder.join(folder_name(&row.name) + ".toml");
            let spinner = progress.spinner(format!("choosing the plan of `{}`", row.name));
            choose(&self.profile, policy)?.save(&path)?;
            spinner.finish_and_clear();
            row.config.numerics.plan = Some(path);
            row.config.resolve_paths(Path::new(""))?;
        }
        Ok(())
    }

    /// Predicts the loss and cost of a row from the plan in the folder of one of its runs.
    pub fn predict(&self, run: &RunFolder) -> Result<RowPrediction, Error> {
        let plan = Plan::load(run.plan())?;
        let predicted = predict(&plan, &self.profile, &Policy::of(self.targets[0].clone()))?;
        let cost = self.targets.iter().map(|target| {
            let cost = predict_cost(&plan, &self.profile, target)?;
            Ok((target.name.clone(), cost))
        });
        Ok(RowPrediction {
            quality_loss: predicted.quality_loss.into(),
            cost: cost.collect::<Result<_, Error>>()?,
            beaten_by: None,
        })
    }
}
