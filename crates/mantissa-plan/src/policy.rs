//! What a pair of numerics must clear to be chosen.

use std::fmt;

use mantissa_formats::Rounding;
use serde::{Deserialize, Serialize};

use crate::candidates::Candidates;
use crate::cost::{Target, TargetError};
use crate::evaluate::{PairError, Share};
use crate::site::{Pass, Role};

/// The bounds a pair of numerics must stay below, each with the upper end of its metric's 95 % confidence interval.
///
/// The defaults let E4M3 with one scale per tensor through on Gaussian operands (backward error 1.8e-3 at depth 512) and
/// on moderately heavy tails, in the forward pass to nearest and for gradients also stochastically (times 1.41), and
/// keep INT8 with one scale per tensor away from heavy tails (2e-2 for Student-t with nu = 3).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    /// Median backward error of the forward product at `reference_depth`.
    pub forward_backward_error: f64,
    /// Median backward error of the two gradient products at `reference_depth`.
    pub gradient_backward_error: f64,
    /// The depth the two bounds are stated for. Rounding errors add up like a random walk and |L||R| adds up linearly, so
    /// at the same relative accuracy of the output the backward error falls with the square root of the depth; the bounds
    /// fall with it.
    pub reference_depth: usize,
    /// Share of elements of `lhs` and `rhs` that may become zero.
    pub underflow: f64,
    /// Share of elements of `grad` that may become zero.
    pub gradient_underflow: f64,
    /// Share of elements of any operand that may be clipped.
    pub saturation: f64,
    /// Mean error of `lhs` and `rhs` as a share of their mean magnitude.
    pub bias: f64,
    /// Likewise of `grad`. This is the rule that gradients need unbiased rounding or a bound on bias: stochastic rounding
    /// is unbiased and exempt, any other rounding must stay below this bound, which is tighter than `bias`.
    pub gradient_bias: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds {
            forward_backward_error: 4e-3,
            gradient_backward_error: 6e-3,
            reference_depth: 512,
            underflow: 0.10,
            gradient_underflow: 0.05,
            saturation: 1e-3,
            bias: 1e-2,
            gradient_bias: 2e-3,
        }
    }
}

/// How a choice is made among the candidates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// For each pass by itself, the cheapest pair that clears every threshold.
    Thresholds,
    /// For all passes together, the cheapest pairs whose predicted quality losses, each with the upper end of its confidence
    /// interval, add up to at most this share of a step's progress. The thresholds of saturation and bias hold for each;
    /// those of what the predicted loss weighs by itself, the backward error and underflow, do not.
    Budget(f64),
}

impl Choice {
    /// `thresholds` or `budget`.
    pub fn name(&self) -> &'static str {
        match self {
            Choice::Thresholds => "thresholds",
            Choice::Budget(_) => "budget",
        }
    }
}

/// The thresholds, the candidates, and the target whose cost decides among the pairs that clear.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// How the choice is made.
    pub choice: Choice,
    /// What a pair must clear.
    pub thresholds: Thresholds,
    /// The numerics considered.
    pub candidates: Candidates,
    /// The cost model.
    pub target: Target,
    /// About how many outputs of each pass's product are evaluated, over all its samples.
    pub outputs: usize,
    /// Keys the random bits of stochastic candidates.
    pub seed: u64,
    /// An earlier plan's decision is kept unless the new one is cheaper by more than this share, so that plans of
    /// successive profiles do not flap.
    pub hysteresis: f64,
}

impl Policy {
    /// The default policy for a target: its candidates, or the default ones.
    pub fn of(target: Target) -> Policy {
        Policy {
            choice: Choice::Thresholds,
            thresholds: Thresholds::default(),
            candidates: target.candidates.clone().unwrap_or_default(),
            target,
            outputs: 4096,
            seed: 0,
            hysteresis: 0.05,
        }
    }

    /// The default policy for the built-in target of this name, or the target in this file where the name ends in `.toml`.
    pub fn for_target(name: &str) -> Result<Policy, TargetError> {
        Target::named(name).map(Policy::of)
    }

    /// That no candidate but f32 is native on the target, if so, and what happens then.
    pub fn warning(&self) -> Option<String> {
        let native = Pass::ALL.into_iter().any(|pass| {
            let pairs = self.candidates.pairs(pass);
            pairs
                .iter()
                .any(|pair| !pair.is_fp32() && self.target.is_native(pair))
        });
        (!native).then(|| {
            format!(
                "the target `{}` multiplies none of the candidates natively: each is emulated at {} times the rate of f32, so that \
                 narrow formats save at most traffic; name candidates that are native there in a policy file, or add \
                 [[products]] to the target",
                self.target.name, self.target.otherwise
            )
        })
    }
}

impl Policy {
    /// Every metric of a pair that the policy bounds. A budget weighs noise, so that it bounds no metric of noise by itself.
    pub(crate) fn checks(&self, pass: Pass, depth: usize, error: &PairError) -> Vec<Check> {
        let mut checks = self.thresholds.checks(pass, depth, error);
        match self.choice {
            Choice::Thresholds => {}
            Choice::Budget(_) => checks.retain(|check| !check.metric.is_noise()),
        }
        checks
    }
}

impl Default for Policy {
    fn default() -> Self {
        Policy::for_target("emulate").expect("the targets in the source are read by a test")
    }
}

/// What is measured of a pair of numerics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// The error of the product against that of its absolute values.
    BackwardError,
    /// The share of an operand's elements that are clipped.
    Saturation,
    /// The share of an operand's elements that become zero.
    Underflow,
    /// The mean error of an operand as a share of its mean magnitude.
    Bias,
}

impl Metric {
    /// As it is written in evidence and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Metric::BackwardError => "backward error",
            Metric::Saturation => "saturation",
            Metric::Underflow => "underflow",
            Metric::Bias => "bias",
        }
    }

    /// Whether it measures noise, all of which the predicted quality loss weighs: an element that becomes zero has an error
    /// like any other. An operand's bias reaches more than the product it is predicted from, and the largest elements, which
    /// are clipped, are those that samples hold fewest of.
    fn is_noise(&self) -> bool {
        matches!(self, Metric::BackwardError | Metric::Underflow)
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One metric of a pair held against the bound of a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// The rule: a field of [`Thresholds`].
    pub rule: &'static str,
    /// What is measured.
    pub metric: Metric,
    /// The operand it is measured of; none for the product itself.
    pub operand: Option<Role>,
    /// The estimate.
    pub value: f64,
    /// The upper end of its 95 % confidence interval; infinite where the samples are too few for one.
    pub high: f64,
    /// What it may be.
    pub bound: f64,
}

impl Check {
    /// How much of the bound is used up, with confidence: the pair clears up to 1.
    pub fn used(&self) -> f64 {
        self.share(self.high)
    }

    /// Whether the estimate itself is beyond the bound.
    pub fn is_exceeded(&self) -> bool {
        self.share(self.value) > 1.0
    }

    fn share(&self, value: f64) -> f64 {
        if value <= 0.0 || self.bound == f64::INFINITY {
            0.0
        } else if self.bound > 0.0 && value.is_finite() {
            value / self.bound
        } else {
            f64::INFINITY
        }
    }

    /// The metric, and of what.
    pub fn measure(&self) -> String {
        match self.operand {
            Some(role) => format!("{} of {role}", self.metric),
            None => self.metric.to_string(),
        }
    }
}

impl Thresholds {
    /// The bound on the backward error of a pass's product of this depth.
    pub fn backward_error(&self, pass: Pass, depth: usize) -> f64 {
        let at_reference = match pass {
            Pass::Forward => self.forward_backward_error,
            Pass::GradLhs | Pass::GradRhs => self.gradient_backward_error,
        };
        at_reference * (self.reference_depth as f64 / depth.max(1) as f64).sqrt()
    }

    /// The product's backward error held against its bound.
    fn product_check(&self, pass: Pass, depth: usize, error: &PairError) -> Check {
        Check {
            rule: match pass {
                Pass::Forward => "forward_backward_error",
                Pass::GradLhs | Pass::GradRhs => "gradient_backward_error",
            },
            metric: Metric::BackwardError,
            operand: None,
            value: match error.product {
                _ if error.numerics.is_fp32() => 0.0,
                Some(product) => product.median,
                None => 0.0,
            },
            high: backward_error_high(error),
            bound: self.backward_error(pass, depth),
        }
    }

    /// Each operand's own errors held against their bounds.
    fn operand_checks(&self, pass: Pass, error: &PairError) -> Vec<Check> {
        let [left, right] = pass.operands();
        let operands = [
            (left, error.left, error.numerics.left),
            (right, error.right, error.numerics.right),
        ];
        let mut checks = Vec::new();
        for (role, operand, numerics) in operands {
            let mut hold = |rule, metric, share: Share, bound| {
                checks.push(Check {
                    rule,
                    metric,
                    operand: Some(role),
                    value: share.estimate,
                    high: share.high,
                    bound,
                });
            };
            hold(
                "saturation",
                Metric::Saturation,
                operand.saturation,
                self.saturation,
            );
            if role == Role::Grad {
                hold(
                    "gradient_underflow",
                    Metric::Underflow,
                    operand.underflow,
                    self.gradient_underflow,
                );
                if numerics.rounding != Rounding::Stochastic {
                    hold(
                        "gradient_bias",
                        Metric::Bias,
                        operand.bias,
                        self.gradient_bias,
                    );
                }
            } else {
                hold(
                    "underflow",
                    Metric::Underflow,
                    operand.underflow,
                    self.underflow,
                );
                hold("bias", Metric::Bias, operand.bias, self.bias);
            }
        }
        checks
    }

    /// Every metric of a pair held against its bound, the backward error first.
    pub fn checks(&self, pass: Pass, depth: usize, error: &PairError) -> Vec<Check> {
        let mut checks = vec![self.product_check(pass, depth, error)];
        checks.extend(self.operand_checks(pass, error));
        checks
    }

    /// The metric that uses up most of its bound.
    pub(crate) fn tightest(&self, pass: Pass, depth: usize, error: &PairError) -> Check {
        tightest(self.checks(pass, depth, error))
    }
}

/// Of some checks, at least one, the first of those that use up most of their bound.
pub(crate) fn tightest(checks: Vec<Check>) -> Check {
    checks
        .into_iter()
        .reduce(|tightest, check| {
            if check.used() > tightest.used() {
                check
            } else {
                tightest
            }
        })
        .expect("at least one check")
}

/// The upper end of the median's confidence interval; infinite where the samples are too few or say nothing.
pub(crate) fn backward_error_high(error: &PairError) -> f64 {
    if error.numerics.is_fp32() {
        // The products that are compared with are computed in f64, and f32's own error is what any model lives with.
        return 0.0;
    }
    let interval = error.product.and_then(|product| product.median_interval);
    interval.map_or(f64::INFINITY, |interval| interval.high)
}
