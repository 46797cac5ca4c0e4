//! One site's decisions in prose.

use std::collections::BTreeMap;
use std::fmt::Write;

use mantissa_quant::Numerics;

use crate::evidence::Evidence;
use crate::plan::{Plan, PlanError, PlannedSite, Source};
use crate::site::{Pass, PassNumerics, Role};

/// Says, in sentences, what the plan decided for a site, on what evidence, and what came second. An unknown site is an
/// error that suggests the nearest name.
pub fn explain(plan: &Plan, site: &str) -> Result<String, PlanError> {
    let site = plan.site(site)?;
    let mut text = format!("{} ({})", site.name, site.kind);
    match &plan.source {
        Source::Recipe(recipe) => write_line(
            &mut text,
            &format!(": decided by the recipe `{recipe}`; nothing was measured."),
        ),
        Source::Profile { target, .. } => write_line(
            &mut text,
            &format!(": chosen from measurements, for the target `{target}`."),
        ),
    }
    if !site.kind.is_product() {
        write_line(
            &mut text,
            &format!(
                "It looks up rows of a table and multiplies nothing; the table is kept in {}.",
                site.numerics.forward.right
            ),
        );
        return Ok(text);
    }
    for pass in Pass::ALL {
        text.push('\n');
        explain_pass(&mut text, plan, site, pass);
    }
    Ok(text)
}

fn explain_pass(text: &mut String, plan: &Plan, site: &PlannedSite, pass: Pass) {
    let numerics = site.numerics.pass(pass);
    write_line(
        text,
        &format!("{pass}, {}: {}.", formula(pass), operands(pass, numerics)),
    );
    match (site.evidence.get(&pass), &plan.source) {
        (Some(evidence), _) => explain_evidence(text, evidence),
        (None, Source::Profile { .. }) => {
            write_line(text, "  This pass was not measured, so it stays in f32.")
        }
        (None, Source::Recipe(_)) => {}
    }
}

fn explain_evidence(text: &mut String, evidence: &Evidence) {
    let steps = match evidence.samples {
        1 => format!("step {}", evidence.first_step),
        count => format!(
            "{count} samples of the steps {} to {}",
            evidence.first_step, evidence.last_step
        ),
    };
    write_line(
        text,
        &format!(
            "  Backward error: median {:.2e} of {} outputs of depth {} from {steps}; with 95 % confidence at most {:.2e}, and {:.2e} is allowed.",
            evidence.backward_error,
            evidence.outputs,
            evidence.depth,
            evidence.backward_error_high,
            evidence.backward_error_bound
        ),
    );
    for (role, error) in &evidence.operands {
        write_line(
            text,
            &format!(
                "  {role}: underflow {}, saturation {}, bias {} of the mean magnitude.",
                percent(error.underflow),
                percent(error.saturation),
                percent(error.bias)
            ),
        );
    }
    write_line(
        text,
        &format!(
            "  Cost {:.3} of the f32 product; the tightest metric is {}, with a margin of {}.",
            evidence.cost,
            evidence.tightest,
            percent(evidence.margin)
        ),
    );
    match &evidence.runner_up {
        Some(second) => write_line(
            text,
            &format!(
                "  Runner-up: {}, cost {:.3}, backward error {:.2e}; {}.",
                listed(&second.numerics),
                second.cost,
                second.backward_error,
                second.reason
            ),
        ),
        None => write_line(
            text,
            "  There is no runner-up: no other pair cleared before f32 did.",
        ),
    }
    if let Some(missed) = &evidence.rejected {
        write_line(
            text,
            &format!(
                "  No cheaper pair cleared; {} (cost {:.3}) came nearest, but {}.",
                listed(&missed.numerics),
                missed.cost,
                missed.reason
            ),
        );
    }
}

fn formula(pass: Pass) -> &'static str {
    match pass {
        Pass::Forward => "Y = L R",
        Pass::GradLhs => "dL = G Rᵀ",
        Pass::GradRhs => "dR = Lᵀ G",
    }
}

fn operands(pass: Pass, numerics: &PassNumerics) -> String {
    let [left, right] = pass.operands();
    format!("{left} in {}, {right} in {}", numerics.left, numerics.right)
}

fn listed(numerics: &BTreeMap<Role, Numerics>) -> String {
    let parts: Vec<String> = numerics
        .iter()
        .map(|(role, numerics)| format!("{role} in {numerics}"))
        .collect();
    parts.join(" with ")
}

fn percent(share: f64) -> String {
    match 100.0 * share {
        0.0 => "0 %".to_string(),
        percent if percent.abs() < 0.01 => "less than 0.01 %".to_string(),
        percent if percent.abs() < 10.0 => format!("{percent:.2} %"),
        percent => format!("{percent:.0} %"),
    }
}

fn write_line(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line}");
}
