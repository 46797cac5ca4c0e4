//! What a profile and a plan say, as the report shows it.

use std::collections::BTreeMap;

use mantissa::plan::{Pass, Plan, Profile, Role};
use mantissa_formats::Format;
use mantissa_quant::Numerics;

use super::{Decision, Operand, Window};
use crate::terminal;

/// The formats drawn over every histogram.
pub fn windows() -> Vec<Window> {
    [Format::FP16, Format::E5M2, Format::E4M3, Format::INT8]
        .map(Window::of)
        .into()
}

/// Every measured operand, with the numerics that `plan` gives it.
pub fn operands(profile: &Profile, plan: &Plan) -> Vec<Operand> {
    let mut operands = Vec::new();
    for measured in &profile.sites {
        let Ok(planned) = plan.site(&measured.site.name) else {
            continue;
        };
        for (&pass, statistics) in &measured.passes {
            let numerics = planned.numerics.pass(pass);
            let sides = [
                (&statistics.left, numerics.left),
                (&statistics.right, numerics.right),
            ];
            let evidence = planned.evidence.get(&pass);
            for (role, (side, numerics)) in pass.operands().into_iter().zip(sides) {
                let error = evidence.and_then(|evidence| evidence.operands.get(&role));
                operands.push(Operand {
                    site: measured.site.name.clone(),
                    pass: pass.to_string(),
                    role: role.to_string(),
                    numerics: numerics.to_string(),
                    count: side.moments.total(),
                    zeros: side.moments.zeros,
                    amax: Some(f64::from(side.amax)),
                    histogram: side.exponents.iter().collect(),
                    window: Some(Window::placed(&numerics, side.amax)),
                    underflow: error.map(|error| error.underflow),
                    saturation: error.map(|error| error.saturation),
                    sqnr_db: None,
                    student_nu: None,
                });
            }
        }
    }
    operands
}

/// Every decision of `plan`, with its evidence.
pub fn decisions(plan: &Plan) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for site in plan.sites.iter().filter(|site| site.kind.is_product()) {
        for pass in Pass::ALL {
            let numerics = site.numerics.pass(pass);
            let mut decision = Decision {
                site: site.name.clone(),
                pass: pass.to_string(),
                left: numerics.left.to_string(),
                right: numerics.right.to_string(),
                ..Decision::default()
            };
            if let Some(evidence) = site.evidence.get(&pass) {
                let worst = |metric: fn(&mantissa::plan::evidence::OperandEvidence) -> f64| {
                    evidence.operands.values().map(metric).reduce(f64::max)
                };
                decision.backward_error = Some(evidence.backward_error);
                decision.underflow = worst(|operand| operand.underflow);
                decision.bias = worst(|operand| operand.bias);
                decision.cost = Some(evidence.cost);
                if let Some(other) = &evidence.runner_up {
                    decision.runner_up = pair(pass, &other.numerics);
                    decision.runner_up_backward_error = Some(other.backward_error);
                    decision.reason = format!("the runner-up {}", other.reason);
                }
            }
            decisions.push(decision);
        }
    }
    decisions
}

/// `left x right`.
fn pair(pass: Pass, numerics: &BTreeMap<Role, Numerics>) -> String {
    pass.operands()
        .map(|role| {
            numerics
                .get(&role)
                .map_or("?".to_owned(), Numerics::to_string)
        })
        .join(" x ")
}

/// The decisions of `plan` for a terminal.
pub fn decision_table(plan: &Plan) -> String {
    let rows = decisions(plan)
        .into_iter()
        .map(|decision| {
            vec![
                decision.site,
                decision.pass,
                decision.left,
                decision.right,
                terminal::rounded(decision.backward_error),
                terminal::rounded(decision.underflow),
                terminal::rounded(decision.bias),
                terminal::rounded(decision.cost),
            ]
        })
        .collect();
    let headings = [
        "site",
        "pass",
        "left",
        "right",
        "backward error",
        "underflow",
        "bias",
        "cost",
    ];
    terminal::table(&headings, 4, rows)
}

/// Mean bytes that an element of the measured operands takes under `plan`, scales included: each operand of each
/// pass weighted by its size.
pub fn bytes_per_element(profile: &Profile, plan: &Plan) -> Option<f64> {
    let (mut bits, mut elements) = (0.0, 0.0);
    for measured in &profile.sites {
        let planned = plan.site(&measured.site.name).ok()?;
        for (&pass, statistics) in &measured.passes {
            let numerics = planned.numerics.pass(pass);
            for (side, numerics) in [
                (&statistics.left, numerics.left),
                (&statistics.right, numerics.right),
            ] {
                let [batch, outer, depth] = side.shape;
                let count = (batch * outer * depth) as f64;
                bits += count * numerics.bits_per_element(depth);
                elements += count;
            }
        }
    }
    (elements > 0.0).then(|| bits / 8.0 / elements)
}
