//! The report of a run: its data, and one self-contained HTML page made from it.
//!
//! [`render`] is pure. The page loads nothing from anywhere: style, script and data are inside it, and a content
//! security policy in it forbids the rest.

mod evidence;
mod page;
mod tables;
#[cfg(test)]
mod tests;

use mantissa_formats::Format;
use mantissa_quant::{Granularity, Numerics};
use serde::Serialize;

pub use evidence::{bytes_per_element, decision_table, decisions, operands, windows};
pub use page::render;

/// Everything the page shows. A field that is undefined or not finite is shown as a dash.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Heading of the page.
    pub title: String,
    /// When it was made, as it shall be printed.
    pub created: String,
    /// Names and values shown under the heading: model, data, steps, seed, command.
    pub facts: Vec<(String, String)>,
    /// The lowest loss that any model can reach on the evaluation set, where it is known.
    pub loss_floor: Option<f64>,
    /// Standard deviation of the full-precision final loss between seeds, the unit of [`Run::gap_sigma`].
    pub seeds_spread: Option<f64>,
    /// Training runs, the reference first.
    pub runs: Vec<Run>,
    /// Formats drawn over every histogram.
    pub windows: Vec<Window>,
    /// Measured operands, in model order.
    pub operands: Vec<Operand>,
    /// Decisions of the plan, in model order.
    pub decisions: Vec<Decision>,
}

/// One training run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Run {
    /// Recipe or plan, unique in the report.
    pub name: String,
    /// Training loss by step.
    pub losses: Vec<(u64, f64)>,
    /// Loss on the evaluation set at the end.
    pub final_loss: Option<f64>,
    /// Final loss above the floor.
    pub above_floor: Option<f64>,
    /// Final loss minus full precision's.
    pub gap: Option<f64>,
    /// [`Run::gap`] in units of the spread between seeds.
    pub gap_sigma: Option<f64>,
    /// Steps skipped for an overflow.
    pub skipped_steps: u64,
    /// Whether the loss stopped being finite or never left its start.
    pub diverged: bool,
    /// Mean bytes an element of the operands takes, scales included.
    pub bytes_per_element: Option<f64>,
    /// Loss scale by step; empty without loss scaling.
    pub loss_scale: Vec<(u64, f64)>,
}

/// The range of a format on the axis of binary exponents: base-2 logarithms of magnitudes.
#[derive(Clone, Debug, Serialize)]
pub struct Window {
    /// Name of the format or numerics.
    pub format: String,
    /// Of the smallest positive value.
    pub subnormal: f64,
    /// Of the smallest value of full precision.
    pub normal: f64,
    /// Of the largest finite value.
    pub max: f64,
}

impl Window {
    /// The range of `format` as it is, without a scale.
    pub fn of(format: Format) -> Self {
        Self {
            format: format.to_string(),
            subnormal: f64::from(format.min_subnormal()).log2(),
            normal: f64::from(format.min_normal()).log2(),
            max: f64::from(format.max_finite()).log2(),
        }
    }

    /// The range of `numerics` on an operand whose largest magnitude is `amax`: where it is scaled, the window of the
    /// group that holds `amax`; groups with a smaller amax lie lower.
    pub fn placed(numerics: &Numerics, amax: f32) -> Self {
        let mut window = Self::of(numerics.format);
        if numerics.granularity != Granularity::Unscaled && amax > 0.0 && amax.is_finite() {
            let shift = f64::from(amax).log2() - window.max;
            window.subnormal += shift;
            window.normal += shift;
            window.max += shift;
        }
        window.format = numerics.to_string();
        window
    }
}

/// One measured operand of one pass of one site.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Operand {
    /// Name of the site.
    pub site: String,
    /// `forward`, `grad_lhs` or `grad_rhs`.
    pub pass: String,
    /// `lhs`, `rhs` or `grad`.
    pub role: String,
    /// Numerics that the plan gives it.
    pub numerics: String,
    /// Elements counted.
    pub count: u64,
    /// Exact zeros among them.
    pub zeros: u64,
    /// Largest finite magnitude.
    pub amax: Option<f64>,
    /// Elements by floor(log2 |x|).
    pub histogram: Vec<(i32, u64)>,
    /// Where the chosen numerics lies, usually [`Window::placed`].
    pub window: Option<Window>,
    /// Share of elements that become zero without being zero.
    pub underflow: Option<f64>,
    /// Share of elements clipped beyond the scale.
    pub saturation: Option<f64>,
    /// Signal to quantization noise.
    pub sqnr_db: Option<f64>,
    /// Degrees of freedom of the fitted Student-t.
    pub student_nu: Option<f64>,
}

/// What the plan decided for one pass of one site, and why.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Decision {
    /// Name of the site.
    pub site: String,
    /// `forward`, `grad_lhs` or `grad_rhs`.
    pub pass: String,
    /// Numerics of the left operand.
    pub left: String,
    /// Numerics of the right operand.
    pub right: String,
    /// Median backward error of the product.
    pub backward_error: Option<f64>,
    /// 95th percentile of the backward error.
    pub backward_error_p95: Option<f64>,
    /// The larger underflow share of the two operands.
    pub underflow: Option<f64>,
    /// The larger relative bias of the two operands.
    pub bias: Option<f64>,
    /// Cost under the plan's target, in units of the target's full-precision product.
    pub cost: Option<f64>,
    /// The next candidate in line.
    pub runner_up: String,
    /// Median backward error of the runner-up.
    pub runner_up_backward_error: Option<f64>,
    /// One sentence: why this and not the runner-up.
    pub reason: String,
}
