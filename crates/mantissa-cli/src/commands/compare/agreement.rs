//! What was predicted of the rows of a study against what was measured.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};

use super::RowResult;
use crate::commands::check::percent;
use crate::terminal;
use crate::training::study::Study;

/// The confidence with which two rows are told apart.
const CONFIDENCE: f64 = 0.95;
/// Predicted quality losses up to which what a row loses is about proportional to them.
const SMALL: f64 = 0.5;

/// How well the predicted order of rows agrees with the measured one.
#[derive(Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// Spearman's, of predicted quality losses and mean evaluation losses.
    rank_correlation: Option<f64>,
    /// Pairs of rows whose evaluation losses differ, by a paired t-test over the seeds.
    pairs_apart: usize,
    /// Those of them whose quality losses are predicted to differ in the same direction.
    pairs_in_order: usize,
    /// What a row loses against the first in nats, for all of a step's progress: least squares over the rows that are predicted
    /// to lose something, but no more than [`SMALL`].
    nats_per_quality_loss: Option<f64>,
}

/// Notes, of each row whose plan was chosen, which rows with numerics of their own cost no more and lose less.
pub fn note_beaten(rows: &mut [RowResult], study: &Study) {
    for index in 0..rows.len() {
        let Some(policy) = &study.rows[index].policy else {
            continue;
        };
        let target = policy.target.name.as_str();
        let cost = |row: &RowResult| row.prediction.as_ref().map(|row| row.cost[target]);
        let row = &rows[index];
        let by_hand = rows.iter().zip(&study.rows).filter(|(other, by)| {
            by.policy.is_none() && cost(other) <= cost(row) && is_worse(row, other) == Some(true)
        });
        let beaten_by = by_hand.map(|(other, _)| other.name.clone()).collect();
        if let Some(prediction) = &mut rows[index].prediction {
            prediction.beaten_by = Some(beaten_by);
        }
    }
}

/// How well predictions agree with measurements.
pub fn agreement(rows: &[RowResult]) -> Agreement {
    let predicted: Vec<f64> = rows.iter().map(predicted_quality_loss).collect();
    let measured: Vec<f64> = rows
        .iter()
        .map(|row| row.final_loss.map_or(f64::INFINITY, |loss| loss.mean))
        .collect();
    let (mut pairs_apart, mut pairs_in_order) = (0, 0);
    for (i, a) in rows.iter().enumerate() {
        for (j, b) in rows.iter().enumerate().skip(i + 1) {
            if let Some(worse) = is_worse(a, b) {
                pairs_apart += 1;
                let (worse, better) = if worse { (i, j) } else { (j, i) };
                pairs_in_order += usize::from(predicted[worse] > predicted[better]);
            }
        }
    }
    Agreement {
        rank_correlation: rank_correlation(&predicted, &measured),
        pairs_apart,
        pairs_in_order,
        nats_per_quality_loss: nats_per_quality_loss(rows),
    }
}

fn nats_per_quality_loss(rows: &[RowResult]) -> Option<f64> {
    let small = rows.iter().filter_map(|row| {
        let predicted = predicted_quality_loss(row);
        let is_small = predicted > 0.0 && predicted <= SMALL;
        Some((predicted, row.difference?.mean)).filter(|_| is_small)
    });
    let (products, squares) = small.fold((0.0, 0.0), |(products, squares), (x, y)| {
        (products + x * y, squares + x * x)
    });
    (squares > 0.0).then(|| products / squares)
}

fn predicted_quality_loss(row: &RowResult) -> f64 {
    row.prediction
        .as_ref()
        .map_or(f64::NAN, |row| row.quality_loss.estimate)
}

/// Whether row `a` lost more than row `b`, or less; `None` where chance may have it so. A loss that is not finite is beyond
/// all others.
fn is_worse(a: &RowResult, b: &RowResult) -> Option<bool> {
    let differences: Vec<f64> = a
        .runs
        .iter()
        .zip(&b.runs)
        .map(|(a, b)| {
            let loss = |loss: Option<f64>| loss.unwrap_or(f64::INFINITY);
            loss(a.final_loss) - loss(b.final_loss)
        })
        .collect();
    if differences.iter().any(|difference| !difference.is_finite()) {
        let all = |of: f64| differences.iter().all(|&difference| difference == of);
        let worse = all(f64::INFINITY);
        return (worse || all(f64::NEG_INFINITY)).then_some(worse);
    }
    let count = differences.len() as f64;
    let quantile = StudentsT::new(0.0, 1.0, count - 1.0)
        .ok()?
        .inverse_cdf(0.5 + CONFIDENCE / 2.0);
    let mean = differences.iter().sum::<f64>() / count;
    let squares: f64 = differences.iter().map(|d| (d - mean).powi(2)).sum();
    let standard_error = (squares / (count - 1.0) / count).sqrt();
    (mean.abs() > quantile * standard_error).then_some(mean > 0.0)
}

/// Spearman's rank correlation, equal values sharing the mean of their ranks; `None` where either has no order.
fn rank_correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 + 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| (a - mean) * (b - mean)).sum()
    };
    let scale = (product(&a, &a) * product(&b, &b)).sqrt();
    (scale > 0.0).then(|| product(&a, &b) / scale)
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let rank = |&value: &f64| {
        let below = values.iter().filter(|&&other| other < value).count();
        let equal = values.iter().filter(|&&other| other == value).count();
        below as f64 + (equal as f64 + 1.0) / 2.0
    };
    values.iter().map(rank).collect()
}

/// What was predicted beside what was measured, as a table and in words.
pub fn table(rows: &[RowResult], agreement: &Agreement) -> String {
    let targets: Vec<&String> = rows
        .iter()
        .find_map(|row| row.prediction.as_ref())
        .map_or(Vec::new(), |prediction| prediction.cost.keys().collect());
    let lines = rows.iter().map(|row| {
        let mut line = vec![row.name.clone()];
        match &row.prediction {
            None => line.extend(vec!["–".to_owned(); 1 + targets.len()]),
            Some(prediction) => {
                line.push(percent(Some(prediction.quality_loss.estimate)));
                line.extend(prediction.cost.values().map(|cost| format!("{cost:.3}")));
            }
        }
        line.push(terminal::rounded(row.step_time));
        let beaten_by = row
            .prediction
            .as_ref()
            .and_then(|row| row.beaten_by.as_ref());
        line.push(beaten_by.map_or(String::new(), |rows| match &rows[..] {
            [] => "none".to_owned(),
            rows => rows.join("; "),
        }));
        line
    });
    let costs: Vec<String> = targets.iter().map(|name| format!("cost, {name}")).collect();
    let mut headings = vec!["row", "predicted quality loss"];
    headings.extend(costs.iter().map(String::as_str));
    headings.extend(["step time", "beaten by"]);
    let table = terminal::table(&headings, 1, lines.collect());
    let correlation = agreement
        .rank_correlation
        .map_or("none".to_owned(), |correlation| format!("{correlation:.2}"));
    let Agreement {
        pairs_apart,
        pairs_in_order,
        ..
    } = agreement;
    let nats = agreement.nats_per_quality_loss.map_or(String::new(), |nats| {
        let small = percent(Some(SMALL));
        format!(" Up to {small} predicted, rows lose {nats:.2} nats for all of a step's progress, by least squares.")
    });
    format!(
        "{table}\nQuality loss: a share of a step's progress. Cost: of a step's products in f32. Step time: of the fastest step, of the \
         first row's. Beaten by: rows by hand that cost no more on the plan's target and lose less, by a paired t-test at 95 %.\n\
         Rank correlation of predicted quality loss and evaluation loss: {correlation}. Of {pairs_apart} pairs of rows whose \
         losses differ by that test, {pairs_in_order} are predicted in that order.{nats}\n"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mantissa::plan::predict_json::LossJson;

    use super::*;
    use crate::commands::compare::prediction::RowPrediction;
    use crate::commands::compare::{RunResult, Spread, summarize};

    fn row(name: &str, losses: [f64; 3], predicted: f64, cost: f64) -> RowResult {
        let run = |(seed, loss): (usize, &f64)| RunResult {
            seed: seed as u64,
            final_loss: loss.is_finite().then_some(*loss),
            ..RunResult::default()
        };
        let runs: Vec<RunResult> = losses.iter().enumerate().map(run).collect();
        RowResult {
            prediction: Some(RowPrediction {
                quality_loss: LossJson {
                    estimate: predicted,
                    low: predicted,
                    high: predicted,
                },
                cost: BTreeMap::from([("emulate".to_owned(), cost)]),
                beaten_by: None,
            }),
            ..summarize(name, &runs, &runs)
        }
    }

    #[test]
    fn rank_correlation_is_spearmans() {
        // Zar, Biostatistical Analysis, has ranks with ties treated so; the first two are the extremes.
        assert_eq!(
            rank_correlation(&[1.0, 2.0, 9.0], &[0.1, 0.2, 0.3]),
            Some(1.0)
        );
        assert_eq!(
            rank_correlation(&[1.0, 2.0, f64::INFINITY], &[3.0, 2.0, 1.0]),
            Some(-1.0)
        );
        assert_eq!(rank_correlation(&[1.0, 1.0], &[3.0, 2.0]), None);
        // 1 − 6 Σ d² / (n (n² − 1)) without ties: d = (1, 1, 1, 1, 0).
        let found = rank_correlation(&[1.0, 2.0, 3.0, 4.0, 5.0], &[2.0, 1.0, 4.0, 3.0, 5.0]);
        assert!((found.unwrap() - 0.8).abs() < 1e-12);
        assert_eq!(ranks(&[4.0, 1.0, 4.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
    }

    #[test]
    fn rows_are_told_apart_with_confidence() {
        let [base, worse, noisy, lost] = [
            [1.0, 2.0, 3.0],
            [1.10, 2.11, 3.09],
            [1.4, 1.9, 3.3],
            [f64::NAN; 3],
        ]
        .map(|losses| row("row", losses, 0.0, 1.0));
        assert_eq!(is_worse(&worse, &base), Some(true));
        assert_eq!(is_worse(&base, &worse), Some(false));
        assert_eq!(is_worse(&noisy, &base), None);
        assert_eq!(is_worse(&base, &base), None);
        let same = row("row", [1.5, 2.5, 3.5], 0.0, 1.0);
        assert_eq!(is_worse(&same, &base), Some(true));
        assert_eq!(is_worse(&lost, &base), Some(true));
        assert_eq!(is_worse(&lost, &lost), None);
    }

    #[test]
    fn agreement_counts_what_differs() {
        let rows = [
            row("a", [1.0, 2.0, 3.0], 0.0, 1.0),
            row("b", [1.10, 2.11, 3.09], 0.2, 0.5),
            row("c", [1.20, 2.21, 3.19], 0.1, 0.5),
        ];
        let found = agreement(&rows);
        assert_eq!((found.pairs_apart, found.pairs_in_order), (3, 2));
        assert_eq!(found.rank_correlation, Some(0.5));
        // Each row is its own first one in this table.
        assert_eq!(found.nats_per_quality_loss, Some(0.0));
        let lost = |predicted, lost| RowResult {
            difference: Some(Spread {
                mean: lost,
                deviation: None,
            }),
            ..row("row", [1.0; 3], predicted, 1.0)
        };
        let rows = [lost(0.1, 0.03), lost(0.2, 0.04), lost(0.9, 5.0)];
        assert!((agreement(&rows).nats_per_quality_loss.unwrap() - 0.22).abs() < 1e-12);
    }
}
