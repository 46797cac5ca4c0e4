//! The plan as a TOML file.

use std::collections::BTreeMap;
use std::path::Path;

use mantissa_kernels::state::StateFormats;
use mantissa_quant::Numerics;
use serde::{Deserialize, Serialize};

use crate::evidence::Evidence;
use crate::file;
use crate::loss_scaling::LossScaling;
use crate::plan::{Plan, PlanError, PlanPrediction, PlannedSite, SCHEMA, Source};
use crate::site::{Pass, Role, SiteKind, SiteNumerics};
use crate::storage::StorageTable;
use crate::toml_text;

/// A plan of a hundred thousand sites with evidence has about this size.
const LARGEST: u64 = 256 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanFile {
    schema: u32,
    loss_scaling: LossScaling,
    source: Source,
    #[serde(default, skip_serializing_if = "StateFormats::is_default")]
    states: StateFormats,
    #[serde(default, skip_serializing_if = "StorageTable::is_default")]
    storage: StorageTable,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prediction: Option<PlanPrediction>,
    #[serde(default)]
    sites: Vec<SiteEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SiteEntry {
    name: String,
    kind: SiteKind,
    #[serde(default, skip_serializing_if = "PassEntry::is_empty")]
    forward: PassEntry,
    #[serde(default, skip_serializing_if = "PassEntry::is_empty")]
    grad_lhs: PassEntry,
    #[serde(default, skip_serializing_if = "PassEntry::is_empty")]
    grad_rhs: PassEntry,
}

/// A pass's decision with its operands by name, so that nobody has to remember their order.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PassEntry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lhs: Option<Numerics>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rhs: Option<Numerics>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grad: Option<Numerics>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    evidence: Option<Evidence>,
}

impl PassEntry {
    fn is_empty(&self) -> bool {
        self.lhs.is_none() && self.rhs.is_none() && self.grad.is_none() && self.evidence.is_none()
    }

    fn of_mut(&mut self, role: Role) -> &mut Option<Numerics> {
        match role {
            Role::Lhs => &mut self.lhs,
            Role::Rhs => &mut self.rhs,
            Role::Grad => &mut self.grad,
        }
    }
}

impl SiteEntry {
    fn pass_mut(&mut self, pass: Pass) -> &mut PassEntry {
        match pass {
            Pass::Forward => &mut self.forward,
            Pass::GradLhs => &mut self.grad_lhs,
            Pass::GradRhs => &mut self.grad_rhs,
        }
    }

    fn of(site: &PlannedSite) -> Self {
        let mut entry = SiteEntry {
            name: site.name.clone(),
            kind: site.kind,
            forward: PassEntry::default(),
            grad_lhs: PassEntry::default(),
            grad_rhs: PassEntry::default(),
        };
        for pass in Pass::ALL {
            let numerics = site.numerics.pass(pass);
            for (role, numerics) in pass
                .operands()
                .into_iter()
                .zip([numerics.left, numerics.right])
            {
                if has_operand(site.kind, pass, role) {
                    *entry.pass_mut(pass).of_mut(role) = Some(numerics);
                }
            }
            entry.pass_mut(pass).evidence = site.evidence.get(&pass).cloned();
        }
        entry
    }

    fn planned(mut self) -> Result<PlannedSite, PlanError> {
        let mut numerics = SiteNumerics::FP32;
        let mut evidence = BTreeMap::new();
        for pass in Pass::ALL {
            for role in [Role::Lhs, Role::Rhs, Role::Grad] {
                let given = self.pass_mut(pass).of_mut(role).take();
                let Some(given) = given else {
                    if has_operand(self.kind, pass, role) {
                        return Err(PlanError::MissingOperand {
                            site: self.name,
                            pass,
                            role,
                        });
                    }
                    continue;
                };
                if !has_operand(self.kind, pass, role) {
                    return Err(PlanError::ExtraOperand {
                        site: self.name,
                        pass,
                        role,
                    });
                }
                if pass.operands()[0] == role {
                    numerics.pass_mut(pass).left = given;
                } else {
                    numerics.pass_mut(pass).right = given;
                }
            }
            if let Some(found) = self.pass_mut(pass).evidence.take() {
                evidence.insert(pass, found);
            }
        }
        Ok(PlannedSite {
            name: self.name,
            kind: self.kind,
            numerics,
            evidence,
        })
    }
}

/// Whether a site of this kind has this operand in this pass; an embedding only has its table.
fn has_operand(kind: SiteKind, pass: Pass, role: Role) -> bool {
    match kind {
        SiteKind::Embedding => pass == Pass::Forward && role == Role::Rhs,
        SiteKind::Linear | SiteKind::Matmul => pass.operands().contains(&role),
    }
}

pub(crate) fn from_toml(text: &str) -> Result<Plan, PlanError> {
    let file: PlanFile = toml_text::parse(text, SCHEMA)?;
    let sites = file
        .sites
        .into_iter()
        .map(SiteEntry::planned)
        .collect::<Result<_, _>>()?;
    file.storage.check()?;
    let plan = Plan::new(file.source, file.loss_scaling, sites)?;
    Ok(Plan {
        states: file.states,
        storage: file.storage,
        prediction: file.prediction,
        ..plan
    })
}

pub(crate) fn to_toml(plan: &Plan) -> Result<String, PlanError> {
    Ok(toml::to_string(&PlanFile {
        schema: SCHEMA,
        loss_scaling: plan.loss_scaling.clone(),
        source: plan.source.clone(),
        states: plan.states,
        storage: plan.storage.clone(),
        prediction: plan.prediction.clone(),
        sites: plan.sites.iter().map(SiteEntry::of).collect(),
    })?)
}

pub(crate) fn load(path: &Path) -> Result<Plan, PlanError> {
    let in_file = |fault| PlanError::InFile {
        path: path.to_path_buf(),
        fault: Box::new(fault),
    };
    let bytes = file::read_at_most(path, LARGEST).map_err(|source| PlanError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    let text = String::from_utf8(bytes).map_err(|_| in_file(PlanError::NotText))?;
    from_toml(&text).map_err(in_file)
}

pub(crate) fn save(plan: &Plan, path: &Path) -> Result<(), PlanError> {
    let text = to_toml(plan)?;
    file::write_atomically(path, text.as_bytes()).map_err(|source| PlanError::Write {
        path: path.to_path_buf(),
        source,
    })
}
