//! What was measured of every product over the steps of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use mantissa::plan::evaluate::{Evaluator, Excerpt};
use mantissa::plan::guard::Measurement;
use mantissa::plan::{Pass, Plan, Profile, Role};
use rayon::prelude::*;
use serde::Serialize;

use super::{json_lines, short};
use crate::error::Error;

/// The most measured steps on the page; of more, evenly spaced ones are shown.
const STEPS: usize = 150;
/// Elements of a product that are compared where a profile is evaluated.
const OUTPUTS: usize = 1024;

/// Measurements, step by step.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Measurements {
    /// Whether they were computed from the samples of a profile, and not during the run.
    pub from_profile: bool,
    /// The measured steps that are shown.
    pub steps: Vec<u64>,
    /// Those that are not.
    pub left_out: usize,
    /// One row for each pass of each site.
    pub rows: Vec<Row>,
}

/// One pass of one site; every list has a place for each step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The site.
    pub site: String,
    /// The pass.
    pub pass: Pass,
    /// Backward error of the product.
    pub backward_error: Vec<Option<f64>>,
    /// The upper end of its confidence interval.
    pub backward_error_high: Vec<Option<f64>>,
    /// Its bound.
    pub backward_error_bound: Vec<Option<f64>>,
    /// Its operands.
    pub operands: Vec<OperandRow>,
}

/// One operand.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OperandRow {
    /// Which it is.
    pub role: Role,
    /// Its numerics, from the steps on at which they changed.
    pub numerics: Vec<(u64, String)>,
    /// Largest magnitude.
    pub amax: Vec<Option<f64>>,
    /// Share of elements that became zero without being zero.
    pub underflow: Vec<Option<f64>>,
    /// Share of elements beyond what the scale can hold.
    pub saturation: Vec<Option<f64>>,
    /// Relative bias.
    pub bias: Vec<Option<f64>>,
    /// Degrees of freedom of a fitted Student-t.
    pub nu: Vec<Option<f64>>,
}

/// Reads `measurements.jsonl`, and the numbers of its unreadable lines; `None` where there is none or an empty one.
pub fn read(path: &Path) -> Result<Option<(Measurements, Vec<usize>)>, Error> {
    Ok(json_lines::read::<Measurement>(path)?
        .filter(|lines| !(lines.records.is_empty() && lines.unreadable.is_empty()))
        .map(|lines| (Measurements::of(lines.records), lines.unreadable)))
}

/// What `plan` does to the samples of a profile.
pub fn of_profile(profile: &Profile, plan: &Plan) -> Measurements {
    let mut jobs = Vec::new();
    for measured in &profile.sites {
        let Ok(planned) = plan.site(&measured.site.name) else {
            continue;
        };
        for (&pass, found) in &measured.passes {
            let numerics = *planned.numerics.pass(pass);
            let bound = planned.evidence.get(&pass);
            let bound = bound.map(|evidence| evidence.backward_error_bound);
            let samples = found.samples.iter();
            jobs.extend(samples.map(|sample| (&measured.site.name, pass, numerics, bound, sample)));
        }
    }
    let lines = jobs
        .into_par_iter()
        .map(|(site, pass, numerics, bound, sample)| {
            let excerpts = [Excerpt::new(sample, OUTPUTS)];
            let error = Evaluator::new(&excerpts, 0, 0).pair(numerics);
            Measurement::of(site, pass, sample, numerics, Some(&error), bound)
        });
    Measurements {
        from_profile: true,
        ..Measurements::of(lines.collect())
    }
}

impl Measurements {
    fn of(lines: Vec<Measurement>) -> Self {
        let steps: BTreeSet<u64> = lines.iter().map(|line| line.step).collect();
        let all: Vec<u64> = steps.into_iter().collect();
        let shown = all.len().min(STEPS);
        let steps: Vec<u64> = (1..=shown)
            .map(|nth| all[nth * all.len() / shown - 1])
            .collect();
        let mut places: BTreeMap<(String, Pass), usize> = BTreeMap::new();
        let mut rows: Vec<Row> = Vec::new();
        for line in lines {
            let Ok(column) = steps.binary_search(&line.step) else {
                continue;
            };
            let place = *places
                .entry((line.site.clone(), line.pass))
                .or_insert(rows.len());
            if place == rows.len() {
                rows.push(Row::new(&line, steps.len()));
            }
            rows[place].put(column, line);
        }
        Self {
            from_profile: false,
            left_out: all.len() - shown,
            steps,
            rows,
        }
    }
}

impl Row {
    fn new(line: &Measurement, columns: usize) -> Self {
        Self {
            site: line.site.clone(),
            pass: line.pass,
            backward_error: vec![None; columns],
            backward_error_high: vec![None; columns],
            backward_error_bound: vec![None; columns],
            operands: line
                .pass
                .operands()
                .map(|role| OperandRow {
                    role,
                    numerics: Vec::new(),
                    amax: vec![None; columns],
                    underflow: vec![None; columns],
                    saturation: vec![None; columns],
                    bias: vec![None; columns],
                    nu: vec![None; columns],
                })
                .into(),
        }
    }

    fn put(&mut self, column: usize, mut line: Measurement) {
        let value = |x: Option<f64>| x.and_then(short);
        self.backward_error[column] = value(line.backward_error);
        self.backward_error_high[column] = value(line.backward_error_high);
        self.backward_error_bound[column] = value(line.backward_error_bound);
        for operand in &mut self.operands {
            let Some(found) = line.operands.remove(&operand.role) else {
                continue;
            };
            operand.amax[column] = short(found.amax.into());
            operand.underflow[column] = value(found.underflow);
            operand.saturation[column] = value(found.saturation);
            operand.bias[column] = value(found.bias);
            operand.nu[column] = value(found.nu);
            let numerics = found.numerics.to_string();
            let last = operand.numerics.last();
            if last.is_none_or(|(_, known)| *known != numerics) {
                operand.numerics.push((line.step, numerics));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(step: u64, site: &str, error: f64, numerics: &str) -> Measurement {
        serde_json::from_str(&format!(
            r#"{{"step":{step},"site":"{site}","pass":"grad_rhs","backward_error":{error},"later":1,
                "operands":{{"lhs":{{"numerics":"{numerics}","amax":1.5,"nu":4.5}}}}}}"#
        ))
        .unwrap()
    }

    #[test]
    fn lines_become_rows_over_steps() {
        let found = Measurements::of(vec![
            line(10, "a", 0.25, "e4m3/tensor"),
            line(20, "b", 0.5, "e4m3/tensor"),
            line(20, "a", 0.125, "bf16"),
        ]);
        assert_eq!(found.steps, [10, 20]);
        let [a, b] = &found.rows[..] else {
            panic!("{found:?}")
        };
        assert_eq!((a.site.as_str(), b.site.as_str()), ("a", "b"));
        assert_eq!(a.backward_error, [Some(0.25), Some(0.125)]);
        assert_eq!(b.backward_error, [None, Some(0.5)]);
        let lhs = &a.operands[0];
        assert_eq!((lhs.role, lhs.nu[1]), (Role::Lhs, Some(4.5)));
        let changes = [(10, "e4m3/tensor"), (20, "bf16")];
        assert_eq!(
            lhs.numerics,
            changes.map(|(step, name)| (step, name.to_owned()))
        );
        assert_eq!(a.operands[1].nu, [None, None]);
    }

    #[test]
    fn of_many_steps_evenly_spaced_ones_are_shown() {
        let lines = (0..1000).map(|step| line(step, "a", 0.5, "fp16"));
        let found = Measurements::of(lines.collect());
        assert_eq!((found.steps.len(), found.left_out), (STEPS, 1000 - STEPS));
        assert_eq!(found.steps.last(), Some(&999));
        assert_eq!(Measurements::of(Vec::new()), Measurements::default());
    }
}
