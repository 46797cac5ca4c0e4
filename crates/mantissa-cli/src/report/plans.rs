//! What a plan decided, and why.

use std::collections::BTreeMap;

use mantissa::plan::{Evidence, Pass, Plan, PlannedSite, Profile, Role, SiteKind, Source};
use mantissa_formats::Format;
use mantissa_quant::{Granularity, Numerics};
use serde::Serialize;

use super::short;
use crate::terminal;

/// A plan as the page shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanView {
    /// Where it comes from, in words.
    pub source: String,
    /// Its products, in its own order.
    pub sites: Vec<SiteView>,
}

/// The numerics of one product.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SiteView {
    /// Its name.
    pub name: String,
    /// What it computes.
    pub kind: SiteKind,
    /// Its decisions, pass by pass.
    pub passes: Vec<Decision>,
}

/// What was decided for one pass of one site, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// The pass.
    pub pass: Pass,
    /// Its left and its right operand.
    pub operands: [OperandView; 2],
    /// What was measured for the decision; absent where a recipe made it.
    pub evidence: Option<Reasons>,
}

/// The numerics of one operand.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OperandView {
    /// Which of the site's tensors it is.
    pub role: Role,
    /// Its numerics.
    pub numerics: String,
    /// Their format.
    pub format: String,
    /// Whether they have a scale.
    pub scaled: bool,
    /// Share of elements that become zero without being zero.
    pub underflow: Option<f64>,
    /// Share of elements beyond what the scale can hold.
    pub saturation: Option<f64>,
}

/// The evidence of a decision.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reasons {
    /// Median backward error of the product.
    pub backward_error: Option<f64>,
    /// The upper end of its confidence interval.
    pub backward_error_high: Option<f64>,
    /// The bound that it was held against.
    pub backward_error_bound: Option<f64>,
    /// The larger relative bias of the two operands.
    pub bias: Option<f64>,
    /// Cost on the plan's target, in units of its f32 product.
    pub cost: Option<f64>,
    /// Predicted quality loss, in shares of a step's progress.
    pub quality_loss: Option<f64>,
    /// The pair that was next in line.
    pub runner_up: Option<String>,
    /// Its median backward error.
    pub runner_up_error: Option<f64>,
    /// Why that was not taken.
    pub reason: Option<String>,
}

impl PlanView {
    /// Of a plan.
    pub fn of(plan: &Plan) -> Self {
        let products = plan.sites.iter().filter(|site| site.kind.is_product());
        Self {
            source: match &plan.source {
                Source::Recipe(name) => format!("the recipe {name}"),
                Source::Profile { target, steps } => {
                    format!("a profile of {} steps, for {target}", steps.len())
                }
            },
            sites: products.map(SiteView::of).collect(),
        }
    }
}

impl SiteView {
    fn of(site: &PlannedSite) -> Self {
        let passes = Pass::ALL.map(|pass| {
            let numerics = site.numerics.pass(pass);
            let evidence = site.evidence.get(&pass);
            let [left, right] = pass.operands();
            Decision {
                pass,
                operands: [(left, numerics.left), (right, numerics.right)]
                    .map(|(role, numerics)| OperandView::of(role, numerics, evidence)),
                evidence: evidence.map(|evidence| Reasons::of(pass, evidence)),
            }
        });
        Self {
            name: site.name.clone(),
            kind: site.kind,
            passes: passes.into(),
        }
    }
}

impl OperandView {
    fn of(role: Role, numerics: Numerics, evidence: Option<&Evidence>) -> Self {
        let measured = evidence.and_then(|evidence| evidence.operands.get(&role));
        Self {
            role,
            numerics: numerics.to_string(),
            format: numerics.format.to_string(),
            scaled: numerics.granularity != Granularity::Unscaled,
            underflow: measured.and_then(|operand| short(operand.underflow)),
            saturation: measured.and_then(|operand| short(operand.saturation)),
        }
    }
}

impl Reasons {
    fn of(pass: Pass, evidence: &Evidence) -> Self {
        let biases = evidence.operands.values().map(|operand| operand.bias);
        let next = evidence.runner_up.as_ref();
        Self {
            backward_error: short(evidence.backward_error),
            backward_error_high: short(evidence.backward_error_high),
            backward_error_bound: short(evidence.backward_error_bound),
            bias: biases.reduce(f64::max).and_then(short),
            cost: short(evidence.cost),
            quality_loss: evidence.quality_loss.and_then(short),
            runner_up: next.map(|next| pair(pass, &next.numerics)),
            runner_up_error: next.and_then(|next| short(next.backward_error)),
            reason: next.map(|next| next.reason.clone()),
        }
    }
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

/// The range of a format on the axis of binary exponents: base-2 logarithms of magnitudes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Window {
    /// Of the smallest positive value.
    pub subnormal: f64,
    /// Of the smallest value of full precision.
    pub normal: f64,
    /// Of the largest finite value.
    pub max: f64,
}

impl Window {
    /// The range of a format without a scale.
    pub fn of(format: Format) -> Self {
        let log2 = |x: f32| f64::from(x).log2();
        Self {
            subnormal: log2(format.min_subnormal()),
            normal: log2(format.min_normal()),
            max: log2(format.max_finite()),
        }
    }
}

/// The decisions of `plan` for a terminal.
pub fn decision_table(plan: &Plan) -> String {
    let mut rows = Vec::new();
    for site in PlanView::of(plan).sites {
        for decision in site.passes {
            let [left, right] = decision.operands;
            let underflow = [left.underflow, right.underflow].into_iter().flatten();
            let underflow = underflow.reduce(f64::max);
            let because = decision.evidence.as_ref();
            rows.push(vec![
                site.name.clone(),
                decision.pass.to_string(),
                left.numerics,
                right.numerics,
                terminal::rounded(because.and_then(|because| because.backward_error)),
                terminal::rounded(underflow),
                terminal::rounded(because.and_then(|because| because.bias)),
                terminal::rounded(because.and_then(|because| because.cost)),
                terminal::rounded(because.and_then(|because| because.quality_loss)),
            ]);
        }
    }
    let headings = [
        "site",
        "pass",
        "left",
        "right",
        "backward error",
        "underflow",
        "bias",
        "cost",
        "quality loss",
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
