//! Why a command failed: each message is one sentence that names the thing and the remedy.

use std::io;
use std::path::PathBuf;

use mantissa_formats::UnknownName;
use mantissa_quant::ParseNumericsError;

/// A failed command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read `{}`: {source}; check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error(
        "cannot write `{}`: {source}; choose a place that exists, may be written to and has room",
        path.display()
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file to be written is already there.
    #[error("`{}` exists; choose another name, or replace it with --force", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The output would replace the input.
    #[error("`{}` is the file that is read; write to another one", path.display())]
    OutputIsInput {
        /// The file.
        path: PathBuf,
    },
    /// A file is no safetensors file, or a damaged or hostile one.
    #[error("`{}` is not a valid safetensors file: {problem}; fetch or write it again", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A tensor cannot be processed as asked.
    #[error("tensor `{tensor}` of `{}` {problem}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What is wrong with it, and the remedy.
        problem: String,
    },
    /// A configuration file is not one.
    #[error("`{}` is no run configuration: {problem}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A study file is not one.
    #[error("`{}` is no study: {problem}", path.display())]
    Study {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The folder of a run cannot be used as asked.
    #[error("`{}` {problem}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it, and the remedy.
        problem: String,
    },
    /// A port cannot be listened at.
    #[error(
        "cannot listen at port {port} of 127.0.0.1: {source}; choose another with --port, or any free one with --port 0"
    )]
    Listen {
        /// The port.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// Training cannot go on.
    #[error(
        "training stopped at step {step}: {skips} in a row skipped, the last because {cause}; to go on, {remedy}; {saved}"
    )]
    Skips {
        /// The step that would have come next.
        step: u64,
        /// How many steps were skipped in a row, in words.
        skips: String,
        /// Why the last was.
        cause: String,
        /// What to do.
        remedy: String,
        /// Where the last checkpoint is.
        saved: String,
    },
    /// Training went wrong again after it had been rolled back as often as it may.
    #[error(
        "training stopped at step {step}: {cause}, after {rollbacks} rollbacks; {} tells what was tried; to go on, lower the \
         learning rate, or resume with --change-plan bf16 to see whether the numerics are the cause; {saved}",
        decisions.display()
    )]
    Diverged {
        /// The step that would have come next.
        step: u64,
        /// What is wrong.
        cause: String,
        /// How often the run was rolled back.
        rollbacks: usize,
        /// The decision log.
        decisions: PathBuf,
        /// Where the last good checkpoint is.
        saved: String,
    },
    /// The world of ranks cannot be joined.
    #[error(transparent)]
    World(#[from] mantissa::parallel::WorldError),
    /// The ranks do not train the same.
    #[error(transparent)]
    Disagreement(#[from] mantissa::parallel::Disagreement),
    /// More ranks than sequences a step.
    #[error(transparent)]
    Share(#[from] mantissa::parallel::ShareError),
    /// The synthetic source refused its configuration.
    #[error(transparent)]
    HiddenMarkov(#[from] mantissa_zoo::HiddenMarkovError),
    /// The text cannot be trained on.
    #[error(transparent)]
    Text(#[from] mantissa_zoo::TextError),
    /// The sizes make no network.
    #[error(transparent)]
    Bert(#[from] mantissa_zoo::BertError),
    /// A recipe cannot be read or applied.
    #[error(transparent)]
    Recipe(#[from] mantissa::plan::RecipeError),
    /// A plan cannot be read, written or bound.
    #[error(transparent)]
    Plan(#[from] mantissa::plan::PlanError),
    /// A profile cannot be read or written.
    #[error(transparent)]
    Profile(#[from] mantissa::plan::ProfileError),
    /// No site of a profile is what was asked for.
    #[error(transparent)]
    Select(#[from] mantissa::plan::whatif::SelectError),
    /// A target that does not exist.
    #[error(transparent)]
    Target(#[from] mantissa::plan::TargetError),
    /// A storage table does not fit the model.
    #[error(transparent)]
    Storage(#[from] mantissa::plan::StorageError),
    /// No plan can be chosen.
    #[error(transparent)]
    Choose(#[from] mantissa::plan::ChooseError),
    /// A policy cannot be read.
    #[error(transparent)]
    Policy(#[from] mantissa::plan::PolicyError),
    /// A system that plans cannot be exported to.
    #[error(transparent)]
    ExportTarget(#[from] mantissa::plan::export::UnknownExportTarget),
    /// Nothing can be predicted.
    #[error(transparent)]
    Predict(#[from] mantissa::plan::PredictError),
    /// A checked plan has operands beyond their bounds.
    #[error(
        "{count} {} of {plan} beyond {} in this profile; choose a plan from it, or widen the policy's bounds",
        if *count == 1 { "metric" } else { "metrics" },
        if *count == 1 { "its bound" } else { "their bounds" }
    )]
    BeyondBounds {
        /// The plan or recipe.
        plan: String,
        /// How many metrics are.
        count: usize,
    },
    /// A checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] mantissa::checkpoint::CheckpointError),
    /// A checkpoint is of another optimizer.
    #[error(transparent)]
    OptimizerRecord(#[from] mantissa::optimizer::OptimizerRecordError),
    /// Parameter groups do not fit the model.
    #[error(transparent)]
    ParameterGroups(#[from] mantissa::optimizer::ParameterGroupsError),
    /// A format of optimizer states that does not exist.
    #[error(transparent)]
    StateFormat(#[from] mantissa::optimizer::StateFormatError),
    /// A format that does not exist.
    #[error(transparent)]
    Format(#[from] UnknownName),
    /// A numerics that does not exist.
    #[error(transparent)]
    Numerics(#[from] ParseNumericsError),
    /// A request that cannot be carried out.
    #[error("{0}")]
    Usage(String),
    /// Standard output is closed or full.
    #[error("cannot write to standard output: {0}; send it where there is room")]
    Stdout(io::Error),
}
