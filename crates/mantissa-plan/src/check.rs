//! Whether operands stay within the budgets of a policy.

use serde::Serialize;

use crate::policy::{Check, Policy};
use crate::predict::Prediction;
use crate::site::{Pass, Role};

/// An operand, a product, or all of them together, beyond a bound.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Violation {
    /// The site; none where it is the sum over all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// The pass, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass: Option<Pass>,
    /// The operand; none where it is the product itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operand: Option<Role>,
    /// The rule of the policy, by its name.
    pub rule: &'static str,
    /// What was measured.
    pub metric: &'static str,
    /// The estimate, which is beyond the bound; infinite is `null` in JSON.
    pub value: f64,
    /// The bound.
    pub bound: f64,
}

/// Every metric of a predicted plan that is beyond its bound, by site in forward order, and
/// last the predicted quality loss of all of them if it is beyond `budget`.
///
/// A pair is chosen only if the upper end of each metric's confidence interval is within its bound; here the estimate
/// itself must be beyond. Between the two lies what chance alone can do, so that a fresh profile of an unchanged model
/// rarely fails.
pub fn violations(prediction: &Prediction, policy: &Policy, budget: Option<f64>) -> Vec<Violation> {
    let passes = prediction.passes.iter();
    let beyond = passes.flat_map(|predicted| {
        let checks: Vec<Check> = policy.checks(predicted.pass, predicted.depth, &predicted.error);
        checks
            .into_iter()
            .filter(Check::is_exceeded)
            .map(|check| Violation {
                site: Some(predicted.site.clone()),
                pass: Some(predicted.pass),
                operand: check.operand,
                rule: check.rule,
                metric: check.metric.name(),
                value: check.value,
                bound: check.bound,
            })
    });
    let total = prediction.quality_loss.estimate();
    let over_budget = budget
        .filter(|&budget| total > budget)
        .map(|budget| Violation {
            site: None,
            pass: None,
            operand: None,
            rule: "budget",
            metric: "predicted quality loss",
            value: total,
            bound: budget,
        });
    beyond.chain(over_budget).collect()
}
