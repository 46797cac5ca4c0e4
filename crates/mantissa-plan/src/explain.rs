//! One site's decisions in prose.

use std::collections::BTreeMap;
use std::fmt::Write;

use mantissa_quant::Numerics;

use crate::evidence::{Alternative, Evidence};
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
            &format!(
                ": chosen from measurements, for the target `{target}`{}",
                chosen_by(plan)
            ),
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

/// How a plan was chosen, and what that predicts.
fn chosen_by(plan: &Plan) -> String {
    let Some(prediction) = &plan.prediction else {
        return ".".to_string();
    };
    let how = match prediction.budget {
        Some(budget) => format!(
            ", within a budget of {} of a step's progress for all passes together",
            percent(budget)
        ),
        None => ", pass by pass by thresholds".to_string(),
    };
    format!(
        "{how}. All products of a step are predicted to cost {:.3} of f32, and noise to take {} of a step's progress (95 %: {} to {}).",
        prediction.cost,
        percent(prediction.quality_loss),
        percent(prediction.quality_loss_low),
        percent(prediction.quality_loss_high)
    )
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
    let allowed = match evidence.backward_error_worst_step {
        _ if evidence.backward_error_bound.is_finite() => {
            format!("and {:.2e} is allowed", evidence.backward_error_bound)
        }
        Some(worst) => format!("at the worst step {worst:.2e}, and the budget weighs it"),
        None => "and the budget weighs it".to_string(),
    };
    write_line(
        text,
        &format!(
            "  Backward error: median {:.2e} of {} outputs of depth {} from {steps}; with 95 % confidence at most {:.2e}, {allowed}.",
            evidence.backward_error, evidence.outputs, evidence.depth, evidence.backward_error_high,
        ),
    );
    if let (Some(loss), Some(high)) = (evidence.quality_loss, evidence.quality_loss_high) {
        write_line(
            text,
            &format!(
                "  Predicted quality loss: {} of a step's progress, with 95 % confidence at most {}.",
                percent(loss),
                percent(high)
            ),
        );
    }
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
    let share = evidence.cost_share.map_or(String::new(), |share| {
        format!(
            ", which in f32 takes {} of all products of a step",
            percent(share)
        )
    });
    let rule = match evidence.rule.as_str() {
        "" => String::new(),
        rule => format!(" (rule {rule})"),
    };
    write_line(
        text,
        &format!(
            "  Cost {:.3} of the f32 product{share}; the tightest metric is {}{rule}, with a margin of {}.",
            evidence.cost,
            evidence.tightest,
            percent(evidence.margin)
        ),
    );
    let within_budget = evidence.backward_error_bound.is_infinite();
    let (second, missed) = if within_budget {
        ("Next safer", "Next cheaper")
    } else {
        ("Runner-up", "No cheaper pair cleared; nearest came")
    };
    match &evidence.runner_up {
        Some(other) => explain_alternative(text, second, other),
        None if within_budget => write_line(
            text,
            "  Nothing safer is among the candidates at a higher cost.",
        ),
        None => write_line(
            text,
            "  There is no runner-up: no other pair cleared before f32 did.",
        ),
    }
    match &evidence.rejected {
        Some(other) => explain_alternative(text, missed, other),
        None if within_budget => write_line(
            text,
            "  Nothing cheaper is among the candidates that clear the rules for operands.",
        ),
        None => {}
    }
    if let Some(promotion) = &evidence.promotion {
        write_line(
            text,
            &format!(
                "  Promoting this pass alone to {} would gain {} of a step's progress for {} of the step's products in f32: it {}.",
                listed(&promotion.numerics),
                percent(promotion.gain),
                percent(promotion.cost),
                if promotion.pays {
                    "pays for itself, since demoting another pass would save as much time at a smaller loss"
                } else {
                    "does not pay for itself"
                }
            ),
        );
    }
}

fn explain_alternative(text: &mut String, what: &str, other: &Alternative) {
    write_line(
        text,
        &format!(
            "  {what}: {}, cost {:.3}, backward error {:.2e}; {}.",
            listed(&other.numerics),
            other.cost,
            other.backward_error,
            other.reason
        ),
    );
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
        percent if percent.is_infinite() => "all".to_string(),
        percent if percent.abs() < 0.01 => format!("{percent:.0e} %"),
        percent if percent.abs() < 10.0 => format!("{percent:.2} %"),
        percent => format!("{percent:.0} %"),
    }
}

fn write_line(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line}");
}
