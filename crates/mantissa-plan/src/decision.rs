//! A change of the numerics during a run, with its evidence: a line of the decision log.

use std::collections::BTreeMap;
use std::fmt;

use mantissa_quant::Numerics;
use serde::{Deserialize, Serialize};

use crate::site::{Pass, PassNumerics, Role};

/// What was decided about the numerics of a run, and why.
///
/// As JSON it is one flat object: `{"step":120,"kind":"promoted","site":…,"pass":…,"from":{…},"to":{…},"reason":…,
/// "metric":…,"value":…,"bound":…}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The step it was decided at: the one whose measurement or loss is the evidence. A plan that a person changed has the
    /// first step under the new one.
    pub step: u64,
    /// What changes.
    #[serde(flatten)]
    pub change: Change,
    /// Why, in a sentence.
    pub reason: String,
    /// The measurement behind it; none where a person decided.
    #[serde(flatten)]
    pub evidence: Option<Exceeded>,
}

/// What a [`Decision`] changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// A pass gets safer numerics.
    Promoted(PassChange),
    /// A pass gets back the cheaper numerics that it was promoted from.
    Demoted(PassChange),
    /// The run goes on from an earlier step.
    RolledBack {
        /// The next step it takes.
        to_step: u64,
    },
    /// A person had the run go on under another plan.
    PlanChanged {
        /// Sites whose numerics differ.
        sites: Vec<String>,
    },
}

/// Other numerics for a pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PassChange {
    /// The site.
    pub site: String,
    /// The pass.
    pub pass: Pass,
    /// What its operands had.
    pub from: BTreeMap<Role, Numerics>,
    /// What they have from the next step on.
    pub to: BTreeMap<Role, Numerics>,
}

/// A metric and the bound it was held against.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exceeded {
    /// The metric.
    pub metric: String,
    /// What was measured, to four significant digits.
    pub value: f64,
    /// What it may be.
    pub bound: f64,
}

impl PassChange {
    /// The change of a pass from one pair to another.
    pub fn new(site: &str, pass: Pass, from: PassNumerics, to: PassNumerics) -> Self {
        PassChange {
            site: site.to_string(),
            pass,
            from: from.by_role(pass),
            to: to.by_role(pass),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Decision { step, reason, .. } = self;
        match &self.change {
            Change::Promoted(change) => write!(f, "step {step}: promoted {change}: {reason}"),
            Change::Demoted(change) => write!(f, "step {step}: demoted {change}: {reason}"),
            Change::RolledBack { to_step } => {
                write!(f, "step {step}: rolled back to step {to_step}: {reason}")
            }
            Change::PlanChanged { .. } => f.write_str(reason),
        }
    }
}

impl fmt::Display for PassChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.site, self.pass)?;
        for (role, to) in &self.to {
            match self.from.get(role) {
                Some(from) if from == to => {}
                Some(from) => write!(f, ", {role} from {from} to {to}")?,
                None => write!(f, ", {role} to {to}")?,
            }
        }
        Ok(())
    }
}
