//! What a pair of numerics must clear to be chosen.

use serde::{Deserialize, Serialize};

use crate::candidates::Candidates;
use crate::cost::{Target, TargetError};
use crate::evaluate::PairError;
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

/// The thresholds, the candidates, and the target whose cost decides among the pairs that clear.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
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
}

impl Policy {
    /// The default thresholds and candidates, for the built-in target of this name.
    pub fn for_target(name: &str) -> Result<Policy, TargetError> {
        Ok(Policy {
            thresholds: Thresholds::default(),
            candidates: Candidates::default(),
            target: Target::preset(name)?,
            outputs: 4096,
            seed: 0,
        })
    }
}

impl Default for Policy {
    fn default() -> Self {
        Policy::for_target("emulate").expect("the targets in the source are read by a test")
    }
}

/// One metric of a pair held against its bound.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Check {
    pub(crate) metric: String,
    pub(crate) high: f64,
    pub(crate) bound: f64,
}

impl Check {
    /// How much of the bound is used up: the pair clears up to 1.
    pub(crate) fn used(&self) -> f64 {
        if self.high <= 0.0 {
            0.0
        } else if self.bound > 0.0 && self.high.is_finite() {
            self.high / self.bound
        } else {
            f64::INFINITY
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

    /// The metric that uses up most of its bound.
    pub(crate) fn tightest(&self, pass: Pass, depth: usize, error: &PairError) -> Check {
        let mut tightest = Check {
            metric: "backward error".to_string(),
            high: backward_error_high(error),
            bound: self.backward_error(pass, depth),
        };
        let operands = [
            (error.left, error.numerics.left),
            (error.right, error.numerics.right),
        ];
        for (role, (operand, numerics)) in pass.operands().into_iter().zip(operands) {
            let gradient = role == Role::Grad;
            let mut checks = vec![
                (
                    "underflow",
                    operand.underflow.high,
                    if gradient {
                        self.gradient_underflow
                    } else {
                        self.underflow
                    },
                ),
                ("saturation", operand.saturation.high, self.saturation),
            ];
            if !(gradient && numerics.rounding == mantissa_formats::Rounding::Stochastic) {
                checks.push((
                    "bias",
                    operand.bias.high,
                    if gradient {
                        self.gradient_bias
                    } else {
                        self.bias
                    },
                ));
            }
            for (metric, high, bound) in checks {
                let check = Check {
                    metric: format!("{metric} of {role}"),
                    high,
                    bound,
                };
                if check.used() > tightest.used() {
                    tightest = check;
                }
            }
        }
        tightest
    }
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
