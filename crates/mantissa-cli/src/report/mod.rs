//! The report of runs: what their folders hold, and one self-contained HTML page made from it.
//!
//! | module | what it answers |
//! |---|---|
//! | [`folders`] | which runs are in the folders that were named |
//! | [`run`] | what one of them holds, and what it does not |
//! | [`history`], [`measurements`] | what happened over its steps |
//! | [`plans`], [`tensors`] | what was decided, and from which values |
//! | [`groups`] | what runs that differ by their seeds came to together |
//! | [`format_curves`] | what formats do to values, whatever the run |
//! | [`tables`], [`page`] | how it is written |
//!
//! [`render`] is pure. The page loads nothing from anywhere: style, script and data are inside it, and a content
//! security policy in it forbids the rest.

pub mod folders;
mod format_curves;
mod groups;
mod history;
mod json_lines;
mod measurements;
mod memo;
mod page;
mod plans;
mod run;
mod tables;
mod tensors;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use mantissa::plan::{Plan, Profile};
use mantissa_formats::Format;
use serde::{Serialize, Serializer};

use self::folders::{Found, runs_in};
use self::format_curves::FormatCurves;
use self::groups::{Group, group};
use self::measurements::Measurements;
use self::memo::Memo;
use self::plans::{PlanView, Window};
use self::run::{Run, profile_command};
use self::tensors::Tensor;
use crate::error::Error;
use crate::training::RunFolder;

pub use memo::Stamp;
pub use page::{render, render_live, update};
pub use plans::{bytes_per_element, decision_table};

/// Formats whose range is drawn over every histogram.
const WINDOWS: [Format; 4] = [Format::FP16, Format::E5M2, Format::E4M3, Format::INT8];

/// Everything the page shows. A number that is undefined or not finite is absent, and shown as a dash.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Heading of the page.
    pub title: String,
    /// When it was made, in milliseconds since 1970.
    pub created: u64,
    /// Settings that all runs share.
    pub facts: Vec<(&'static str, String)>,
    /// The lowest loss that any model can reach on the evaluation set, where it is known.
    pub loss_floor: Option<f64>,
    /// Runs that differ by their seeds, those that the others are compared with first.
    pub groups: Vec<Group>,
    /// All runs.
    pub runs: Vec<Run>,
    /// The plans of the runs.
    pub plans: Vec<PlanView>,
    /// The tensors of each profile.
    #[serde(serialize_with = "unshared")]
    pub profiles: Vec<Arc<Vec<Tensor>>>,
    /// Formats drawn over every histogram.
    pub windows: Vec<String>,
    /// The range of every format that is mentioned.
    pub ranges: BTreeMap<String, Window>,
    /// What formats do to values.
    pub formats: FormatCurves,
}

fn unshared<S: Serializer>(
    profiles: &[Arc<Vec<Tensor>>],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(profiles.iter().map(Arc::as_ref))
}

/// A profile, and what the page shows of it.
struct Measured {
    profile: Profile,
    tensors: Arc<Vec<Tensor>>,
}

/// Reads runs again and again, and computes what costs time only where files have changed.
pub struct Reader {
    folders: Vec<PathBuf>,
    profiles: Memo<Result<Measured, String>>,
    evaluated: Memo<(Measurements, Option<f64>)>,
    formats: FormatCurves,
}

impl Reader {
    /// Of the runs and studies in these folders.
    pub fn new(folders: &[PathBuf]) -> Self {
        Self {
            folders: folders.to_vec(),
            profiles: Memo::default(),
            evaluated: Memo::default(),
            formats: FormatCurves::new(),
        }
    }

    /// The runs that there are now.
    ///
    /// # Errors
    /// If a folder holds none.
    fn found(&self) -> Result<Vec<Found>, Error> {
        let mut all: Vec<Found> = Vec::new();
        for folder in &self.folders {
            for found in runs_in(folder)? {
                if !all.iter().any(|known| known.folder == found.folder) {
                    all.push(found);
                }
            }
        }
        Ok(all)
    }

    /// What the report depends on, to be compared with what it was.
    pub fn stamp(&self) -> Result<Stamp, Error> {
        const FILES: [&str; 10] = [
            "config.toml",
            "plan.toml",
            "log.jsonl",
            "summary.json",
            "result.json",
            "memory.json",
            "timing.json",
            "measurements.jsonl",
            "decisions.jsonl",
            "profile.safetensors",
        ];
        let found = self.found()?;
        let folders = found
            .iter()
            .flat_map(|found| std::iter::once(&found.folder).chain(&found.study));
        Ok(Stamp::of(
            folders.flat_map(|folder| FILES.map(|file| folder.join(file))),
        ))
    }

    /// The report as of now.
    ///
    /// # Errors
    /// If a folder holds no run. What is wrong within a run is told in [`Run::problems`].
    pub fn read(&mut self) -> Result<Report, Error> {
        let found = self.found()?;
        let (mut runs, configs): (Vec<Run>, Vec<_>) = found.iter().map(Run::read).unzip();
        let (mut plans, mut profiles) = (Vec::new(), Vec::new());
        for (run, found) in runs.iter_mut().zip(&found) {
            self.add_plan(run, found, &mut plans, &mut profiles);
        }
        let groups = group(&mut runs, &found, &configs);
        let title = match (&runs[..], &self.folders[..]) {
            ([run], _) => run.name.clone(),
            (_, [folder]) => folder
                .file_name()
                .unwrap_or(folder.as_os_str())
                .to_string_lossy()
                .into_owned(),
            (runs, _) => format!("{} runs", runs.len()),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let floors = runs.iter().filter_map(|run| run.outcome.loss_floor);
        Ok(Report {
            title,
            created: now.map_or(0, |now| now.as_millis() as u64),
            facts: shared_facts(&runs),
            loss_floor: floors.reduce(f64::min),
            groups,
            windows: WINDOWS.map(|format| format.to_string()).into(),
            ranges: ranges(&plans),
            runs,
            plans,
            profiles,
            formats: self.formats.clone(),
        })
    }

    /// Gives a run its plan and its profile, and what the two say together.
    fn add_plan(
        &mut self,
        run: &mut Run,
        found: &Found,
        plans: &mut Vec<PlanView>,
        profiles: &mut Vec<Arc<Vec<Tensor>>>,
    ) {
        let folder = RunFolder::at(&found.folder);
        let plan_file = folder.plan();
        let plan = match plan_file.is_file().then(|| Plan::load(&plan_file)) {
            Some(Ok(plan)) => Some(plan),
            Some(Err(error)) => {
                run.problems.push(error.to_string());
                None
            }
            None => {
                let remedy = "`mantissa train` writes it when it begins".to_owned();
                run.lacks("plan.toml", "decisions and the layer's graph", remedy);
                None
            }
        };
        if let Some(plan) = &plan {
            let view = PlanView::of(plan);
            run.plan = Some(place(plans, view, PlanView::eq));
        }

        let of_study = found.study.as_deref().map(RunFolder::at);
        let profile_file = [Some(&folder), of_study.as_ref()]
            .into_iter()
            .flatten()
            .map(RunFolder::profile)
            .find(|path| path.is_file());
        if let Some(path) = profile_file {
            let stamp = Stamp::of([path.clone()]);
            let measured = self.profiles.get(&path, stamp, || {
                let profile = Profile::load(&path).map_err(|error| error.to_string())?;
                let tensors = Arc::new(tensors::tensors(&profile));
                Ok(Measured { profile, tensors })
            });
            match (&*measured, &plan) {
                (Err(problem), _) => run.problems.push(problem.clone()),
                (Ok(measured), plan) => {
                    let tensors = measured.tensors.clone();
                    run.profile = Some(place(profiles, tensors, Arc::ptr_eq));
                    if let Some(plan) = plan {
                        let stamp = Stamp::of([plan_file.clone(), path]);
                        let evaluated = self.evaluated.get(&plan_file, stamp, || {
                            let profile = &measured.profile;
                            let bytes = bytes_per_element(profile, plan);
                            (measurements::of_profile(profile, plan), bytes)
                        });
                        run.bytes_per_element = evaluated.1;
                        if run.measurements.is_none() {
                            run.measurements = Some(evaluated.0.clone());
                        }
                    }
                }
            }
        } else {
            run.lacks(
                "profile.safetensors",
                "distributions of the operands, and errors where none were measured in the run",
                profile_command(&found.folder),
            );
        }
        let in_run = run.measurements.as_ref();
        if in_run.is_none_or(|measurements| measurements.from_profile) {
            run.lacks(
                "measurements.jsonl",
                "errors over the steps of the run",
                "`mantissa train --guard` measures while it trains".to_owned(),
            );
        }
    }
}

/// The place of `item` in `all`, to which it is added if it is new.
fn place<T>(all: &mut Vec<T>, item: T, same: impl Fn(&T, &T) -> bool) -> usize {
    let known = all.iter().position(|known| same(known, &item));
    known.unwrap_or_else(|| {
        all.push(item);
        all.len() - 1
    })
}

fn shared_facts(runs: &[Run]) -> Vec<(&'static str, String)> {
    let Some((first, others)) = runs.split_first() else {
        return Vec::new();
    };
    let shared = |fact: &&(&'static str, String)| others.iter().all(|run| run.facts.contains(fact));
    first.facts.iter().filter(shared).cloned().collect()
}

fn ranges(plans: &[PlanView]) -> BTreeMap<String, Window> {
    let operands = plans
        .iter()
        .flat_map(|plan| &plan.sites)
        .flat_map(|site| &site.passes)
        .flat_map(|decision| &decision.operands);
    let planned = operands.filter_map(|operand| operand.format.parse::<Format>().ok());
    planned
        .chain(WINDOWS)
        .map(|format: Format| (format.to_string(), Window::of(format)))
        .collect()
}

/// Leaves the page of a run or study in its folder, and tells where, or why not: it can be made again, so that it is no
/// reason to fail after all that training.
pub fn leave_page(folder: &RunFolder) -> String {
    let report = Reader::new(&[folder.path().to_owned()]).read();
    match report.and_then(|report| folder.write_report(&render(&report))) {
        Ok(()) => format!("report  {}", folder.report().display()),
        Err(error) => format!("warning: no report was written: {error}"),
    }
}

/// Five significant digits, enough for a screen; absent if it is not finite.
fn short(x: f64) -> Option<f64> {
    x.is_finite().then(|| significant(x))
}

fn significant(x: f64) -> f64 {
    format!("{x:.4e}").parse().unwrap_or(x)
}
