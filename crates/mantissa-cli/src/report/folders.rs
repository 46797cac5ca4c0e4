//! Which runs are in the folders that were named.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::training::RunFolder;

/// The file in the folder of several runs that names them in order.
pub const STUDY: &str = "study.json";

/// How deep the runs of a study may lie: rows, and seeds in them.
const DEPTH: usize = 2;

/// The runs of a study or a demo: `study.json` in its folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StudyIndex {
    /// The runs, those that others are compared with first.
    pub runs: Vec<StudyRun>,
}

/// One of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StudyRun {
    /// What it is called; runs that differ by their seeds alone have the same name.
    pub name: String,
    /// Its folder, relative to that of the study.
    pub folder: PathBuf,
    /// The share of a step's progress that its numerics are predicted to take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_quality_loss: Option<f64>,
}

/// A run that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its folder.
    pub folder: PathBuf,
    /// The folder of the study it belongs to.
    pub study: Option<PathBuf>,
    /// Its name in that study's index.
    pub name: Option<String>,
    /// What tells its folder from the others.
    pub label: String,
    /// What that index says it is predicted to lose.
    pub predicted_quality_loss: Option<f64>,
}

/// The run in `path`, or the runs of the study in it.
///
/// # Errors
/// If there are none.
pub fn runs_in(path: &Path) -> Result<Vec<Found>, Error> {
    let refuse = |problem: &str| Error::Folder {
        path: path.to_owned(),
        problem: problem.to_owned(),
    };
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(refuse("is a file; name the folder of a run")),
        Err(source) => {
            return Err(Error::Read {
                path: path.to_owned(),
                source,
            });
        }
    }
    let label = |folder: &Path| folder.display().to_string();
    if RunFolder::at(path).log().is_file() {
        return Ok(vec![Found {
            folder: path.to_owned(),
            study: None,
            name: None,
            label: path
                .canonicalize()
                .ok()
                .and_then(|path| Some(path.file_name()?.to_str()?.to_owned()))
                .unwrap_or_else(|| label(path)),
            predicted_quality_loss: None,
        }]);
    }
    let mut runs: Vec<Found> = indexed(path)
        .into_iter()
        .map(|run| Found {
            folder: path.join(&run.folder),
            study: Some(path.to_owned()),
            label: label(&run.folder),
            name: Some(run.name),
            predicted_quality_loss: run.predicted_quality_loss,
        })
        .filter(|run| is_run(&run.folder))
        .collect();
    if runs.is_empty() {
        let mut folders = Vec::new();
        inner_runs(path, DEPTH, &mut folders).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        runs.extend(folders.into_iter().map(|folder| Found {
            study: Some(path.to_owned()),
            name: None,
            label: label(folder.strip_prefix(path).unwrap_or(&folder)),
            folder,
            predicted_quality_loss: None,
        }));
    }
    if runs.is_empty() && is_run(path) {
        runs.push(Found {
            folder: path.to_owned(),
            study: None,
            name: None,
            label: label(path),
            predicted_quality_loss: None,
        });
    }
    if runs.is_empty() {
        return Err(refuse(
            "holds no run: neither it nor a folder in it has a config.toml or a log.jsonl; name what `mantissa train`, \
             `compare` or `demo` was given as --out",
        ));
    }
    Ok(runs)
}

fn is_run(folder: &Path) -> bool {
    let run = RunFolder::at(folder);
    run.config().is_file() || run.log().is_file()
}

/// What the index of a study names; nothing where it has none that can be read.
fn indexed(study: &Path) -> Vec<StudyRun> {
    let text = fs::read(study.join(STUDY)).unwrap_or_default();
    let index: Option<StudyIndex> = serde_json::from_slice(&text).ok();
    let runs = index.map_or(Vec::new(), |index| index.runs);
    // A name from a file leads to no place outside the study.
    let inside = |run: &StudyRun| {
        let mut parts = run.folder.components();
        parts.all(|part| matches!(part, std::path::Component::Normal(_)))
    };
    runs.into_iter().filter(inside).collect()
}

fn inner_runs(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut inner: Vec<PathBuf> = fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .collect();
    inner.sort();
    for path in inner {
        if is_run(&path) {
            found.push(path);
        } else if depth > 1 {
            inner_runs(&path, depth - 1, found)?;
        }
    }
    Ok(())
}
