//! `mantissa export`.

use std::path::PathBuf;

use burn::tensor::Device;
use burn_store::{BurnToPyTorchAdapter, ModuleSnapshot, SafetensorsStore};
use mantissa::{checkpoint, storage};

use crate::atomic_file::AtomicFile;
use crate::error::Error;
use crate::terminal;
use crate::training::trainer::open_source;
use crate::training::{RunConfig, RunFolder};

/// Arguments of `mantissa export`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Tensors are named as in the model, such as encoder.layers.0.mha.query.weight. In PyTorch's layout \
                  the weight of a linear layer is [out, in], and a norm has weight and bias; in Burn's it is [in, out], \
                  with gamma and beta. All are f32, whatever the run stores.\n\nExamples:\n  \
                  mantissa export runs/fp8 -o model.safetensors\n  \
                  python -c \"from safetensors.torch import load_file; print(load_file('model.safetensors').keys())\""
)]
pub struct Args {
    /// Folder of the run
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// File to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Whose conventions the tensors follow
    #[arg(long, value_enum, default_value = "pytorch")]
    layout: Layout,
    /// Step of the checkpoint to take [default: the newest]
    #[arg(long, value_name = "N")]
    step: Option<u64>,
    /// Replace FILE if it exists
    #[arg(long)]
    force: bool,
}

/// Conventions of names and axes.
#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
enum Layout {
    /// PyTorch's
    Pytorch,
    /// Burn's
    Burn,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Error> {
    let mut file = AtomicFile::create(&args.output, args.force)?;
    let folder = RunFolder::open(&args.run)?;
    let config = RunConfig::load(&folder.config())?;
    let source = open_source(&config, Some(&folder))?;
    let model = config
        .bert(source.vocab_size())
        .init(config.training.seed, &Device::flex())?;
    let path = wanted(&args, &folder)?;
    let saved = checkpoint::load(&path, model)?;

    let failed = |problem: String| Error::Folder {
        path: path.clone(),
        problem: format!("cannot be exported: {problem}"),
    };
    let store = SafetensorsStore::from_bytes(None)
        .clear_metadata()
        .metadata("step", saved.progress.step.to_string());
    let mut store = match args.layout {
        Layout::Pytorch => store
            .metadata("format", "pt")
            .with_to_adapter(BurnToPyTorchAdapter),
        Layout::Burn => store,
    };
    let model = storage::widened(saved.model);
    let bytes = model.save_into(&mut store);
    let bytes = bytes.and_then(|()| store.get_bytes());
    file.write(&bytes.map_err(|error| failed(error.to_string()))?)?;
    file.commit()?;
    terminal::print(&format!(
        "weights of step {} written to {}\n",
        saved.progress.step,
        args.output.display()
    ))
}

/// The checkpoint to export.
fn wanted(args: &Args, folder: &RunFolder) -> Result<PathBuf, Error> {
    let checkpoints = checkpoint::list(&folder.checkpoints())?;
    let found = match args.step {
        None => checkpoints.last(),
        Some(step) => checkpoints
            .iter()
            .find(|path| path.ends_with(checkpoint::folder_name(step))),
    };
    found.cloned().ok_or_else(|| {
        let names: Vec<_> = checkpoints
            .iter()
            .filter_map(|path| path.file_name()?.to_str())
            .collect();
        Error::Folder {
            path: folder.checkpoints(),
            problem: match (args.step, names.as_slice()) {
                (_, []) => "holds no checkpoint yet; train until the first is written".to_owned(),
                (None, _) => unreachable!("the newest of some checkpoints"),
                (Some(step), names) => format!(
                    "holds no checkpoint of step {step}; it holds {}",
                    names.join(", ")
                ),
            },
        }
    })
}
