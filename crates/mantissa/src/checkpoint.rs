//! Checkpoints: everything that can change a later step, in one folder that appears whole or not at all.
//!
//! A checkpoint is the folder `step-00001234` with the model's and the optimizer's records, the parameters that are
//! stored in fewer bits, the plan, and a manifest with the loss scaler, the progress, the decision log, what the guard
//! remembers, and the length and CRC-32 of every other file. It is written under
//! another name, flushed to disk and then renamed, so a process killed at any moment leaves only whole checkpoints.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use burn::module::{Module, ParamGroup};
use burn::store::ModuleRecord;
use burn::tensor::Bytes;
use mantissa_plan::{Decision, Plan, PlanError, guard};
use serde::{Deserialize, Serialize};

use crate::amax_history::AmaxHistories;
use crate::optimizer::{MasterOptimizer, OptimizerRecord};
use crate::scaler::LossScaler;
use crate::session::Session;
use crate::storage;

/// The version of the folder's layout and of the manifest.
pub const SCHEMA: u32 = 5;

const MANIFEST: &str = "checkpoint.json";
const MODEL: &str = "model.bpk";
/// The parameters that are not stored as f32; [`MODEL`] has the others. Missing where there are none.
const STORED: &str = "stored.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
/// In place of [`OPTIMIZER`] where the optimizer is one of Burn's.
const BURN_OPTIMIZER: &str = "optimizer.bpk";
const PLAN: &str = "plan.toml";

/// How far a run has come. Batches, schedules and random bits are functions of these numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The seed of the run.
    pub seed: u64,
    /// The next step to take, and so the position in the data.
    pub step: u64,
    /// Steps that were applied: the position in the learning-rate schedule.
    pub applied: u64,
    /// Steps that were skipped.
    pub skipped: u64,
}

/// A loaded checkpoint. Bind a new [`Session`] to the model: its parameter ids are the saved ones.
pub struct Checkpoint<M> {
    /// The model with its saved weights.
    pub model: M,
    /// The optimizer's saved state, for [`MasterOptimizer::load_record`].
    pub optimizer: OptimizerRecord,
    /// The scaler in its saved state.
    pub scaler: LossScaler,
    /// What operands with delayed scaling remember, for [`Session::restore_amaxes`].
    pub amaxes: AmaxHistories,
    /// The plan in force.
    pub plan: Plan,
    /// What was decided about the numerics so far.
    pub decisions: Vec<Decision>,
    /// What the guard remembers, if there is one.
    pub guard: Option<guard::State>,
    /// How far the run had come.
    pub progress: Progress,
}

/// The plan in force, and how it came to be: what [`save`] keeps of the numerics. A plan alone is one that nothing was
/// decided about.
#[derive(Clone, Copy, Debug)]
pub struct Decided<'a> {
    /// The plan in force.
    pub plan: &'a Plan,
    /// What was decided so far.
    pub decisions: &'a [Decision],
    /// What the guard remembers, if there is one.
    pub guard: Option<&'a guard::State>,
}

impl<'a> From<&'a Plan> for Decided<'a> {
    fn from(plan: &'a Plan) -> Self {
        Self {
            plan,
            decisions: &[],
            guard: None,
        }
    }
}

/// A checkpoint that cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file is missing, or not as it was written.
    #[error("checkpoint {} is damaged: {file} {problem}", path.display())]
    Damaged {
        /// The checkpoint.
        path: PathBuf,
        /// The file in it.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// No checkpoint of a folder is whole.
    #[error(
        "{newest}, and no checkpoint before it is whole; restore one from a copy, or start the run anew in another folder"
    )]
    NoneWhole {
        /// What is wrong with the newest.
        newest: Box<CheckpointError>,
    },
    /// It was written by another version of this crate.
    #[error("checkpoint {} has schema {found}, this program reads schema {SCHEMA}; resume with the version that wrote it", path.display())]
    Schema {
        /// The checkpoint.
        path: PathBuf,
        /// Its schema.
        found: u32,
    },
    /// It belongs to another model.
    #[error("checkpoint {} is of another model than the configured one: {problem}", path.display())]
    OtherModel {
        /// The checkpoint.
        path: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// The state cannot be turned into bytes.
    #[error("cannot serialize the {what}: {problem}")]
    Serialize {
        /// Which part.
        what: &'static str,
        /// Why.
        problem: String,
    },
    /// The plan in it is not readable.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    schema: u32,
    version: String,
    progress: Progress,
    scaler: LossScaler,
    amaxes: AmaxHistories,
    decisions: Vec<Decision>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    guard: Option<guard::State>,
    files: Vec<FileEntry>,
}

#[derive(Serialize, Deserialize)]
struct FileEntry {
    name: String,
    bytes: u64,
    crc32: u32,
}

/// Writes the checkpoint of `progress.step` into `folder`, which is created if need be, and returns its path.
///
/// # Errors
/// If the file system refuses; checkpoints that were there before are then still whole.
pub fn save<'a, M: Module>(
    folder: &Path,
    model: &M,
    session: &Session,
    optimizer: &MasterOptimizer,
    scaler: &LossScaler,
    decided: impl Into<Decided<'a>>,
    progress: Progress,
) -> Result<PathBuf, CheckpointError> {
    let io = |action, path: &Path| {
        let path = path.to_path_buf();
        move |source| CheckpointError::Io {
            action,
            path,
            source,
        }
    };
    let Decided {
        plan,
        decisions,
        guard,
    } = decided.into();
    fs::create_dir_all(folder).map_err(io("create", folder))?;
    let stored = storage::stored_to_bytes(model);
    let others = ParamGroup::all().exclude(stored_group(model));
    let model = model.clone().into_record_group(others).into_bytes();
    let model = model.map_err(|error| serialize("model", &error))?.to_vec();
    let record = optimizer.to_record();
    let optimizer_file = match record {
        OptimizerRecord::Fused(_) => OPTIMIZER,
        OptimizerRecord::Burn(_) => BURN_OPTIMIZER,
    };
    let optimizer = record.into_bytes();
    let optimizer = optimizer.map_err(|error| serialize("optimizer", &error))?;
    let mut parts = vec![
        (MODEL, model),
        (optimizer_file, optimizer),
        (PLAN, plan.to_toml()?.into_bytes()),
    ];
    parts.extend(stored.map(|stored| (STORED, stored)));
    let manifest = Manifest {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION").to_string(),
        progress,
        scaler: scaler.clone(),
        amaxes: session.amaxes(),
        decisions: decisions.to_vec(),
        guard: guard.cloned(),
        files: parts
            .iter()
            .map(|(name, bytes)| FileEntry {
                name: name.to_string(),
                bytes: bytes.len() as u64,
                crc32: crc32fast::hash(bytes),
            })
            .collect(),
    };
    let manifest =
        serde_json::to_vec_pretty(&manifest).map_err(|error| serialize("manifest", &error))?;

    let unfinished = tempfile::Builder::new()
        .prefix(".saving-")
        .tempdir_in(folder)
        .map_err(io("write into", folder))?;
    for (name, bytes) in parts
        .iter()
        .map(|(name, bytes)| (*name, bytes.as_slice()))
        .chain([(MANIFEST, manifest.as_slice())])
    {
        let path = unfinished.path().join(name);
        write_synced(&path, bytes).map_err(io("write", &path))?;
    }
    let target = folder.join(folder_name(progress.step));
    if target.exists() {
        fs::remove_dir_all(&target).map_err(io("replace", &target))?;
    }
    fs::rename(unfinished.path(), &target).map_err(io("rename to", &target))?;
    // Renamed away: the guard must not delete anything.
    let _ = unfinished.keep();
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(io("flush", folder))?;
    Ok(target)
}

fn serialize(what: &'static str, problem: &dyn std::error::Error) -> CheckpointError {
    CheckpointError::Serialize {
        what,
        problem: problem.to_string(),
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The name of the folder of a step's checkpoint.
pub fn folder_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// The step of a checkpoint's folder.
fn step_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix("step-")?.parse().ok()
}

/// The parameters of `model` that are not f32.
fn stored_group<M: Module>(model: &M) -> ParamGroup {
    let stored = storage::stored(model);
    ParamGroup::from_ids(stored.into_iter().map(|stored| stored.id).collect())
}

/// The checkpoints in `folder`, oldest first; none if the folder does not exist.
///
/// # Errors
/// If the folder cannot be read.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let failed = |source| CheckpointError::Io {
        action: "read",
        path: folder.to_path_buf(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        if let Some(step) = step_of(&path) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// The steps of the checkpoints in `folder`, ascending.
///
/// # Errors
/// If the folder cannot be read.
pub fn steps(folder: &Path) -> Result<Vec<u64>, CheckpointError> {
    let paths = list(folder)?;
    Ok(paths.iter().filter_map(|path| step_of(path)).collect())
}

/// Deletes the checkpoints of steps from `step` on, the newest first.
///
/// # Errors
/// If the folder cannot be read or a checkpoint cannot be deleted.
pub fn remove_from(folder: &Path, step: u64) -> Result<(), CheckpointError> {
    for path in list(folder)?.into_iter().rev() {
        if step_of(&path).is_some_and(|of| of >= step) {
            remove(&path)?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), CheckpointError> {
    fs::remove_dir_all(path).map_err(|source| CheckpointError::Io {
        action: "delete",
        path: path.to_path_buf(),
        source,
    })
}

/// Deletes all but the newest `keep` checkpoints of `folder`, and what killed processes left half-written there.
///
/// # Errors
/// If the folder cannot be read or something in it cannot be deleted.
pub fn prune(folder: &Path, keep: usize) -> Result<(), CheckpointError> {
    let checkpoints = list(folder)?;
    for path in &checkpoints[..checkpoints.len().saturating_sub(keep)] {
        remove(path)?;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(".saving-") {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// The newest checkpoint of a folder that is whole.
pub struct Latest<M> {
    /// Its path.
    pub path: PathBuf,
    /// What it holds.
    pub checkpoint: Checkpoint<M>,
    /// What is wrong with the newer ones, and where they have been put.
    pub damaged: Vec<SetAside>,
}

/// A damaged checkpoint that was moved out of the way, so that the run can come by its step again.
#[derive(Debug)]
pub struct SetAside {
    /// What is wrong with it.
    pub error: CheckpointError,
    /// Where it is now.
    pub path: PathBuf,
}

/// Reads the newest checkpoint in `folder` that is whole into a copy of `model`; `None` if there is no checkpoint at all.
/// Newer ones that are truncated or altered are renamed to `damaged-…` once an older one was read.
///
/// # Errors
/// If there are checkpoints and none is whole, if the newest whole one has another schema or is of another model, or if
/// the file system refuses.
pub fn load_latest<M: Module>(
    folder: &Path,
    model: &M,
) -> Result<Option<Latest<M>>, CheckpointError> {
    load_latest_before(folder, u64::MAX, model)
}

/// [`load_latest`] among the checkpoints of steps before `step`.
///
/// # Errors
/// Those of [`load_latest`].
pub fn load_latest_before<M: Module>(
    folder: &Path,
    step: u64,
    model: &M,
) -> Result<Option<Latest<M>>, CheckpointError> {
    let mut newer = Vec::new();
    let mut found = list(folder)?;
    found.retain(|path| step_of(path).is_some_and(|of| of < step));
    for path in found.into_iter().rev() {
        match load(&path, model.clone()) {
            Ok(checkpoint) => {
                let damaged = newer.into_iter().map(set_aside);
                return Ok(Some(Latest {
                    path,
                    checkpoint,
                    damaged: damaged.collect::<Result<_, _>>()?,
                }));
            }
            Err(error @ CheckpointError::Damaged { .. }) => newer.push((path, error)),
            Err(error) => return Err(error),
        }
    }
    match newer.into_iter().next() {
        Some((_, newest)) => Err(CheckpointError::NoneWhole {
            newest: Box::new(newest),
        }),
        None => Ok(None),
    }
}

fn set_aside((path, error): (PathBuf, CheckpointError)) -> Result<SetAside, CheckpointError> {
    let io = |action, source| CheckpointError::Io {
        action,
        path: path.clone(),
        source,
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!("damaged-{name}"));
    if aside.exists() {
        fs::remove_dir_all(&aside).map_err(|source| io("replace the damaged copy of", source))?;
    }
    fs::rename(&path, &aside).map_err(|source| io("set aside", source))?;
    Ok(SetAside { error, path: aside })
}

/// Reads the checkpoint at `path` into `model`, whose weights are replaced.
///
/// # Errors
/// If a file is missing or altered, if the checkpoint has another schema, or if it is of another model.
pub fn load<M: Module>(path: &Path, model: M) -> Result<Checkpoint<M>, CheckpointError> {
    let damaged = |file: &str, problem: String| CheckpointError::Damaged {
        path: path.to_path_buf(),
        file: file.to_string(),
        problem,
    };
    let read = |file: &str| {
        fs::read(path.join(file)).map_err(|error| damaged(file, format!("cannot be read: {error}")))
    };

    let manifest: serde_json::Value = serde_json::from_slice(&read(MANIFEST)?)
        .map_err(|error| damaged(MANIFEST, format!("is not valid JSON: {error}")))?;
    let found = manifest["schema"].as_u64().unwrap_or(0) as u32;
    if found != SCHEMA {
        return Err(CheckpointError::Schema {
            path: path.to_path_buf(),
            found,
        });
    }
    let manifest: Manifest = serde_json::from_value(manifest)
        .map_err(|error| damaged(MANIFEST, format!("is incomplete: {error}")))?;
    manifest
        .scaler
        .check()
        .map_err(|error| damaged(MANIFEST, format!("was altered: {error}")))?;

    let verified = |file: &str| {
        let entry = manifest
            .files
            .iter()
            .find(|entry| entry.name == file)
            .ok_or_else(|| damaged(MANIFEST, format!("does not list {file}")))?;
        let bytes = read(file)?;
        if bytes.len() as u64 != entry.bytes {
            let problem = format!("has {} bytes instead of {}", bytes.len(), entry.bytes);
            return Err(damaged(file, problem));
        }
        if crc32fast::hash(&bytes) != entry.crc32 {
            return Err(damaged(file, "was altered: its checksum is wrong".into()));
        }
        Ok(bytes)
    };

    let plan_text = String::from_utf8(verified(PLAN)?)
        .map_err(|error| damaged(PLAN, format!("is not UTF-8: {error}")))?;
    let plan = Plan::from_toml(&plan_text)?;
    let record = ModuleRecord::from_bytes(Bytes::from_elems(verified(MODEL)?))
        .map_err(|error| damaged(MODEL, format!("is not a model record: {error}")))?;
    let of_burn = |entry: &FileEntry| entry.name == BURN_OPTIMIZER;
    let optimizer = if manifest.files.iter().any(of_burn) {
        OptimizerRecord::from_burn_bytes(verified(BURN_OPTIMIZER)?)
            .map_err(|error| damaged(BURN_OPTIMIZER, format!("is not a record: {error}")))?
    } else {
        OptimizerRecord::Fused(verified(OPTIMIZER)?)
    };
    let other_model = |problem| CheckpointError::OtherModel {
        path: path.to_path_buf(),
        problem,
    };
    let has_stored = manifest.files.iter().any(|entry| entry.name == STORED);
    let others = record.len();
    let mut model = model
        .try_load_record(record.allow_partial(has_stored))
        .map_err(|error| other_model(error.to_string()))?;
    if has_stored {
        model = storage::load_stored(model, &verified(STORED)?, others)
            .map_err(|error| other_model(error.to_string()))?;
    }
    Ok(Checkpoint {
        model,
        optimizer,
        scaler: manifest.scaler,
        amaxes: manifest.amaxes,
        decisions: manifest.decisions,
        guard: manifest.guard,
        plan,
        progress: manifest.progress,
    })
}
