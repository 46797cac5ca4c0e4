//! The folder of a run: configuration, plan, log, checkpoints, summary, report.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mantissa::plan::Decision;
use mantissa::plan::guard::Measurement;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::config::RunConfig;
use super::trainer::StepRecord;
use crate::atomic_file::AtomicFile;
use crate::error::Error;
use crate::report::folders::{self, StudyIndex, StudyRun};

/// A run's folder.
#[derive(Clone, Debug)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Makes the folder of a new run; it must not exist, or be empty.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Write {
            path: path.to_owned(),
            source,
        };
        match fs::read_dir(path) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(Error::Folder {
                        path: path.to_owned(),
                        problem: "is not empty; choose another folder with --out, or continue a training run in it with \
                                  `train --resume`"
                            .to_owned(),
                    });
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(path).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// The folder at a path, whatever it holds or whoever makes it.
    pub fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// The folder of a run that was started before.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let folder = Self {
            path: path.to_owned(),
        };
        if folder.config().is_file() {
            Ok(folder)
        } else {
            Err(Error::Folder {
                path: path.to_owned(),
                problem:
                    "holds no run to resume: it has no config.toml; start one without --resume"
                        .to_owned(),
            })
        }
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// The plan file.
    pub fn plan(&self) -> PathBuf {
        self.path.join("plan.toml")
    }

    /// The profile file.
    pub fn profile(&self) -> PathBuf {
        self.path.join("profile.safetensors")
    }

    /// The tokenizer of a text.
    pub fn tokenizer(&self) -> PathBuf {
        self.path.join("tokenizer.json")
    }

    /// The log, one JSON object a step.
    pub fn log(&self) -> PathBuf {
        self.path.join("log.jsonl")
    }

    /// The folder of checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// What was decided about the numerics, one JSON object each.
    pub fn decisions(&self) -> PathBuf {
        self.path.join("decisions.jsonl")
    }

    /// What the guard measured, one JSON object for each pass.
    pub fn measurements(&self) -> PathBuf {
        self.path.join("measurements.jsonl")
    }

    /// Opens the log of decisions, with those that were made so far.
    pub fn open_decisions(&self, made: &[Decision]) -> Result<Log, Error> {
        let lines: String = made.iter().map(line).collect();
        Log::open(self.decisions(), &lines)
    }

    /// Opens the measurements for the steps from `next_step` on, as [`open_log`](Self::open_log) does the log.
    pub fn open_measurements(&self, next_step: u64) -> Result<Log, Error> {
        Log::open_before::<Measurement>(self.measurements(), |measured| measured.step < next_step)
    }

    /// The report page.
    pub fn report(&self) -> PathBuf {
        self.path.join("report.html")
    }

    /// Writes the configuration.
    pub fn write_config(&self, config: &RunConfig) -> Result<(), Error> {
        write(&self.config(), config.to_toml().as_bytes())
    }

    /// Writes the summary.
    pub fn write_summary(&self, summary: &impl Serialize) -> Result<(), Error> {
        self.write_json("summary.json", summary)
    }

    /// Writes a file of one JSON object.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), Error> {
        let path = self.path.join(name);
        let text = serde_json::to_string_pretty(value).map_err(|source| Error::Write {
            path: path.clone(),
            source: source.into(),
        })?;
        write(&path, (text + "\n").as_bytes())
    }

    /// Writes which runs the folder of a study or a demo has.
    pub fn write_study_index(&self, runs: impl Iterator<Item = StudyRun>) -> Result<(), Error> {
        let runs = runs.collect();
        self.write_json(folders::STUDY, &StudyIndex { runs })
    }

    /// Writes the report page.
    pub fn write_report(&self, page: &str) -> Result<(), Error> {
        write(&self.report(), page.as_bytes())
    }

    /// What the log holds, whole lines only.
    pub fn read_log(&self) -> Result<Vec<StepRecord>, Error> {
        let path = self.log();
        let text = fs::read_to_string(&path).map_err(|source| Error::Read { path, source })?;
        let records = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        Ok(records.collect())
    }

    /// Opens the log for the steps from `next_step` on: what a killed run logged after its last checkpoint is
    /// dropped, since those steps will be taken again.
    pub fn open_log(&self, next_step: u64) -> Result<Log, Error> {
        Log::open_before::<StepRecord>(self.log(), |record| record.step < next_step)
    }
}

/// A name in words as that of a folder.
pub fn folder_name(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join("-")
}

/// A file of one JSON object a line, open for the next one.
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Goes on with those lines of a file that `keep` keeps; half-written ones are dropped.
    fn open_before<T: DeserializeOwned>(
        path: PathBuf,
        keep: impl Fn(&T) -> bool,
    ) -> Result<Self, Error> {
        let kept: String = match fs::read_to_string(&path) {
            Ok(text) => text
                .lines()
                .filter(|line| serde_json::from_str(line).is_ok_and(|line| keep(&line)))
                .map(|line| format!("{line}\n"))
                .collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(Error::Read { path, source }),
        };
        Self::open(path, &kept)
    }

    /// Goes on after these lines.
    fn open(path: PathBuf, lines: &str) -> Result<Self, Error> {
        write(&path, lines.as_bytes())?;
        match OpenOptions::new().append(true).open(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(source) => Err(Error::Write { path, source }),
        }
    }

    /// Appends a line.
    pub fn push(&mut self, record: &impl Serialize) -> Result<(), Error> {
        self.append(&line(record))
    }

    /// Appends some lines at once.
    pub fn extend<T: Serialize>(&mut self, records: &[T]) -> Result<(), Error> {
        let lines: String = records.iter().map(line).collect();
        self.append(&lines)
    }

    fn append(&mut self, lines: &str) -> Result<(), Error> {
        self.file
            .write_all(lines.as_bytes())
            .map_err(|source| Error::Write {
                path: self.path.clone(),
                source,
            })
    }
}

fn line(record: &impl Serialize) -> String {
    serde_json::to_string(record).expect("a record has no map with odd keys") + "\n"
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut file = AtomicFile::create(path, true)?;
    file.write(bytes)?;
    file.commit()
}
