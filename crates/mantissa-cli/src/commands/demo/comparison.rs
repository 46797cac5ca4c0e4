//! What the runs of the demo came to, against full precision.

use std::path::PathBuf;

use mantissa::plan::Profile;
use serde::Serialize;

use super::runs::Outcome;
use crate::report;
use crate::terminal;

/// A line of the table, and of `--json`.
#[derive(Clone, Debug, Serialize)]
pub struct RunSummary {
    pub name: String,
    pub final_loss: Option<f64>,
    pub above_floor: Option<f64>,
    pub gap: Option<f64>,
    pub gap_sigma: Option<f64>,
    pub skipped_steps: u64,
    pub bytes_per_element: Option<f64>,
    pub diverged: bool,
}

/// The last line of `--json`.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub event: &'static str,
    pub loss_floor: f64,
    pub unigram_loss: f64,
    pub steps: u64,
    pub seed: u64,
    pub seeds_spread: f64,
    pub profiling_overhead: f64,
    pub seconds: f64,
    pub runs: Vec<RunSummary>,
    pub out: PathBuf,
}

/// The runs of the demo's seed, the first of them full precision, and the standard deviation of full precision over
/// all its seeds, which gaps are measured in.
pub fn compare(
    outcomes: &[Outcome],
    seed: u64,
    loss_floor: f64,
    profile: &Profile,
) -> (Vec<RunSummary>, f64) {
    let (compared, seeds): (Vec<_>, Vec<_>) =
        outcomes.iter().partition(|outcome| outcome.seed == seed);
    let reference = compared[0].final_loss;
    let full_precision: Vec<f64> = std::iter::once(reference)
        .chain(seeds.iter().map(|outcome| outcome.final_loss))
        .collect();
    let spread = standard_deviation(&full_precision);
    let finite = |value: f64| Some(value).filter(|value| value.is_finite());
    let runs = compared
        .iter()
        .map(|outcome| {
            let gap = outcome.final_loss - reference;
            RunSummary {
                name: outcome.name.clone(),
                final_loss: finite(outcome.final_loss),
                above_floor: finite(outcome.final_loss - loss_floor),
                gap: finite(gap),
                gap_sigma: finite(gap / spread),
                skipped_steps: outcome.skipped_steps,
                bytes_per_element: report::bytes_per_element(profile, &outcome.plan),
                diverged: outcome.diverged,
            }
        })
        .collect();
    (runs, spread)
}

/// Of a sample: with n - 1 in the denominator.
fn standard_deviation(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let square: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (square / (values.len() - 1) as f64).sqrt()
}

/// The result for a terminal.
pub fn result_table(summary: &Summary) -> String {
    let rows = summary
        .runs
        .iter()
        .map(|run| {
            vec![
                run.name.clone(),
                if run.diverged {
                    "diverged".to_owned()
                } else {
                    terminal::rounded(run.above_floor)
                },
                run.gap_sigma
                    .map_or("–".to_owned(), |gap| format!("{gap:+.1}")),
                run.skipped_steps.to_string(),
                run.bytes_per_element
                    .map_or("–".to_owned(), |bytes| format!("{bytes:.2}")),
            ]
        })
        .collect();
    let headings = [
        "run",
        "loss above floor",
        "gap in sigmas",
        "skipped steps",
        "bytes an operand element",
    ];
    terminal::table(&headings, 1, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_the_sample_standard_deviation() {
        assert_eq!(standard_deviation(&[1.0, 2.0, 3.0]), 1.0);
    }
}
