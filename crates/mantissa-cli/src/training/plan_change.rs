//! A run that goes on under another plan.

use std::fmt;

use mantissa::plan::decision::Change;
use mantissa::plan::{Decision, Plan, Source};
use serde::Serialize;

/// From which step on a run has another plan, and how much of it differs: an event of `--json`, and in
/// words a decision.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanChange {
    /// The first step under the new plan.
    pub step: u64,
    /// What the plan was made from.
    pub from: String,
    /// What the new one is made from.
    pub to: String,
    /// Sites whose numerics differ.
    pub sites: Vec<String>,
    /// Whether the loss is scaled in another way, and its scale begins anew.
    pub loss_scaling: bool,
    /// Whether the optimizer's states have other formats, to which they are rounded.
    pub states: bool,
    /// Whether weights or gradients are stored in another way.
    pub storage: bool,
}

impl PlanChange {
    /// `None` where the two plans train alike.
    pub fn between(from: &Plan, to: &Plan, step: u64) -> Option<Self> {
        let differing = to.sites.iter().filter(|site| {
            let before = from.sites.iter().find(|before| before.name == site.name);
            before.is_none_or(|before| before.numerics != site.numerics)
        });
        let sites: Vec<String> = differing.map(|site| site.name.clone()).collect();
        let loss_scaling = from.loss_scaling != to.loss_scaling;
        let states = from.states != to.states;
        let storage = from.storage != to.storage;
        (loss_scaling || states || storage || !sites.is_empty()).then(|| Self {
            step,
            from: origin(from),
            to: origin(to),
            sites,
            loss_scaling,
            states,
            storage,
        })
    }
}

impl From<&PlanChange> for Decision {
    fn from(change: &PlanChange) -> Self {
        Self {
            step: change.step,
            reason: change.to_string(),
            change: Change::PlanChanged {
                sites: change.sites.clone(),
            },
            evidence: None,
        }
    }
}

fn origin(plan: &Plan) -> String {
    match &plan.source {
        Source::Recipe(name) => format!("recipe {name}"),
        Source::Profile { target, .. } => format!("a profile, for {target}"),
    }
}

impl fmt::Display for PlanChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, from, to, .. } = self;
        write!(
            f,
            "from step {step} on the plan is from {to}, not from {from}"
        )?;
        match self.sites.len() {
            0 => {}
            1 => write!(
                f,
                "; {} has other numerics and calibrates anew",
                self.sites[0]
            )?,
            count => write!(f, "; {count} sites have other numerics and calibrate anew")?,
        }
        if self.loss_scaling {
            f.write_str("; the loss scale begins anew")?;
        }
        if self.states {
            f.write_str("; the optimizer's states are rounded to other formats")?;
        }
        if self.storage {
            f.write_str("; weights are stored anew")?;
        }
        Ok(())
    }
}
