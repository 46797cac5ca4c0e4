//! One run as the page shows it: what its folder holds, and what it does not.

use std::fs;
use std::path::{Path, PathBuf};

use mantissa::plan::Decision;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::folders::Found;
use super::history::History;
use super::json_lines;
use super::measurements::{self, Measurements};
use crate::training::config::DataSource;
use crate::training::{RunConfig, RunFolder, StepRecord};

/// A training run. What its folder does not hold is absent or empty, and said in [`missing`](Self::missing).
#[derive(Clone, Debug, Default, Serialize)]
pub struct Run {
    /// Its name among the runs of the report.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// The group of runs that differ from it by their seeds.
    pub group: usize,
    /// How far it is.
    pub state: State,
    /// Its seed.
    pub seed: Option<u64>,
    /// The steps it shall take.
    pub planned_steps: Option<u64>,
    /// Its settings, by name.
    pub facts: Vec<(&'static str, String)>,
    /// What it came to.
    pub outcome: Outcome,
    /// What it logged.
    pub history: History,
    /// What was measured of its products.
    pub measurements: Option<Measurements>,
    /// What was changed while it trained.
    pub changes: Vec<Decision>,
    /// Its plan, among those of the report.
    pub plan: Option<usize>,
    /// The profile that tells of its tensors, among those of the report.
    pub profile: Option<usize>,
    /// Mean bytes an element of the operands takes, scales included.
    pub bytes_per_element: Option<f64>,
    /// `memory.json` as it is.
    pub memory: Option<Value>,
    /// `timing.json` as it is.
    pub timing: Option<Value>,
    /// What is not there, and how to get it.
    pub missing: Vec<Missing>,
    /// What could not be read.
    pub problems: Vec<String>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It came to its end.
    Finished,
    /// It gave up, since one step after the other was skipped.
    Stopped,
    /// It goes on, or was interrupted.
    #[default]
    Unfinished,
}

/// `summary.json` of a training run, or `result.json` of one of a study.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// Loss on the evaluation set.
    pub final_loss: Option<f64>,
    /// The lowest loss that any model can reach there, where it is known.
    pub loss_floor: Option<f64>,
    /// Skipped steps.
    pub skipped_steps: Option<u64>,
    /// Whether it learnt nothing.
    pub diverged: Option<bool>,
    /// The step at which it gave up.
    pub stopped_at: Option<u64>,
}

/// Something that a folder does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The file.
    pub file: &'static str,
    /// What the page shows of it.
    pub shows: &'static str,
    /// How to get it.
    pub remedy: String,
}

impl Run {
    /// Reads what a folder holds; its plan and profile are the report's business. Also returns its configuration.
    pub fn read(found: &Found) -> (Self, Option<RunConfig>) {
        let folder = RunFolder::at(&found.folder);
        let mut run = Self {
            folder: found.folder.clone(),
            ..Self::default()
        };
        let config = run.read_config(&folder);
        run.read_log(&folder, config.as_ref());
        run.read_outcome();
        match measurements::read(&folder.measurements()) {
            Ok(Some((found, unreadable))) => {
                run.unreadable("measurements.jsonl", &unreadable);
                run.measurements = Some(found);
            }
            Ok(None) => {}
            Err(error) => run.problems.push(error.to_string()),
        }
        match json_lines::read(&folder.decisions()) {
            Ok(Some(lines)) => {
                run.unreadable("decisions.jsonl", &lines.unreadable);
                run.changes = lines.records;
            }
            Ok(None) => {}
            Err(error) => run.problems.push(error.to_string()),
        }
        run.memory = run.read_json("memory.json");
        if run.memory.is_none() {
            run.lacks(
                "memory.json",
                "memory by copy",
                "`mantissa train` writes it when it begins and when it ends".to_owned(),
            );
        }
        run.timing = run.read_json("timing.json");
        if run.timing.is_none() {
            run.lacks(
                "timing.json",
                "step time by part",
                "`mantissa train` writes it with every checkpoint".to_owned(),
            );
        }
        (run, config)
    }

    /// Notes what is not there.
    pub fn lacks(&mut self, file: &'static str, shows: &'static str, remedy: String) {
        self.missing.push(Missing {
            file,
            shows,
            remedy,
        });
    }

    fn read_config(&mut self, folder: &RunFolder) -> Option<RunConfig> {
        let path = folder.config();
        if !path.is_file() {
            let remedy = "`mantissa train` writes it when it begins".to_owned();
            self.lacks("config.toml", "settings", remedy);
            return None;
        }
        match RunConfig::load(&path) {
            Ok(config) => {
                self.seed = Some(config.training.seed);
                self.planned_steps = Some(config.training.steps);
                self.facts = facts(&config);
                Some(config)
            }
            Err(error) => {
                self.problems.push(error.to_string());
                None
            }
        }
    }

    fn read_log(&mut self, folder: &RunFolder, config: Option<&RunConfig>) {
        let path = folder.log();
        match json_lines::read::<StepRecord>(&path) {
            Ok(Some(mut lines)) => {
                self.unreadable("log.jsonl", &lines.unreadable);
                lines.records.sort_by_key(|record| record.step);
                self.history = History::of(&lines.records);
                let max_skips = config.map_or(u64::MAX, |config| config.training.max_skips);
                let last = lines.records.last().and_then(|last| last.skip.as_ref());
                if last.is_some_and(|skip| skip.exhausted || skip.skips_in_a_row >= max_skips) {
                    self.state = State::Stopped;
                }
            }
            Ok(None) => self.lacks(
                "log.jsonl",
                "loss and loss scale",
                "`mantissa train` writes it step by step".to_owned(),
            ),
            Err(error) => self.problems.push(error.to_string()),
        }
    }

    fn read_outcome(&mut self) {
        let outcome = ["summary.json", "result.json"]
            .into_iter()
            .find_map(|name| serde_json::from_value(self.read_json(name)?).ok());
        // A run that goes on after its end has the summary of before.
        let is_over = self
            .planned_steps
            .is_none_or(|planned| self.history.end >= planned || self.state == State::Stopped);
        self.outcome = match outcome {
            Some(Outcome { stopped_at, .. }) if stopped_at.is_some() => {
                self.state = State::Stopped;
                outcome.unwrap_or_default()
            }
            Some(outcome) if is_over || self.history.end == 0 => {
                self.state = State::Finished;
                outcome
            }
            _ => Outcome::default(),
        };
        let skipped = self.history.skipped;
        self.outcome.skipped_steps.get_or_insert(skipped);
    }

    /// A small JSON file; one that is there but is none is a problem.
    fn read_json(&mut self, name: &str) -> Option<Value> {
        let bytes = fs::read(self.folder.join(name)).ok()?;
        let value = serde_json::from_slice(&bytes);
        if let Err(error) = &value {
            self.problems.push(format!("{name} is not JSON: {error}"));
        }
        value.ok()
    }

    fn unreadable(&mut self, file: &str, lines: &[usize]) {
        let Some(first) = lines.first() else { return };
        self.problems.push(match lines.len() {
            1 => format!("line {first} of {file} cannot be read and is left out"),
            count => format!(
                "{count} lines of {file}, the first of them line {first}, cannot be read and are left out"
            ),
        });
    }
}

/// The command that measures the tensors of a run, as its folder has it.
pub fn profile_command(folder: &Path) -> String {
    let path = |name: &str| folder.join(name).display().to_string();
    format!(
        "`mantissa profile --config {} -o {}`",
        path("config.toml"),
        path("profile.safetensors")
    )
}

fn facts(config: &RunConfig) -> Vec<(&'static str, String)> {
    let RunConfig {
        data,
        model,
        training,
        numerics,
        ..
    } = config;
    let bert = config.bert(1);
    let name = |path: &Path| {
        path.file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
            .into_owned()
    };
    let preset = clap::ValueEnum::to_possible_value(&model.preset);
    let mut facts = vec![
        (
            "numerics",
            match (&numerics.plan, &numerics.recipe) {
                (Some(plan), _) => format!("plan {}", name(plan)),
                (None, Some(recipe)) => name(Path::new(recipe)),
                (None, None) => "fp32".to_owned(),
            },
        ),
        (
            "model",
            format!(
                "{}, {} layers of width {}",
                preset.map_or(String::new(), |preset| preset.get_name().to_owned()),
                bert.n_layers,
                bert.d_model
            ),
        ),
        (
            "data",
            match &data.source {
                DataSource::HiddenMarkov => "hidden Markov source".to_owned(),
                DataSource::Text(path) => name(path),
            },
        ),
        ("steps", training.steps.to_string()),
        (
            "batch",
            format!("{} x {} tokens", training.batch_size, bert.seq_len),
        ),
        ("learning rate", training.learning_rate.to_string()),
        ("seed", training.seed.to_string()),
    ];
    if let Some(states) = numerics.states {
        facts.push(("optimizer states", states.to_string()));
    }
    facts
}
