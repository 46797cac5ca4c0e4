//! `mantissa memory`.

use std::path::{Path, PathBuf};

use indicatif::BinaryBytes;

use crate::commands::train::Configuration;
use crate::error::Error;
use crate::terminal;
use crate::training::trainer::open_source;
use crate::training::{RunConfig, Trainer};

/// Arguments of `mantissa memory`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Weights are the master weights: products quantize them on the way and keep no copy. All copies are there at \
                  once between the backward pass and the update. Activations are measured on parts of a batch and \
                  extrapolated to a whole one.\n\nExamples:\n  \
                  mantissa memory run.toml\n  \
                  mantissa memory --recipe fp8-lm-o3 --model bert-mini --batch-size 64\n  \
                  mantissa memory --recipe fp8-lm-o3 --json | jq .bytes_per_parameter"
)]
pub struct Args {
    /// Configuration file of a run (TOML), such as the config.toml in its folder
    #[arg(value_name = "CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    configuration: Configuration,
    /// Write JSON to stdout
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Error> {
    let mut config = match &args.config {
        Some(path) => RunConfig::load(path)?,
        None => RunConfig::default(),
    };
    args.configuration.apply(&mut config);
    config.check()?;
    config.resolve_paths(Path::new(""))?;
    let trainer = Trainer::new(&config, open_source(&config, None)?, None)?;
    let expected = trainer.expected_memory()?;
    if args.json {
        return terminal::print_json(&expected, true);
    }
    let row = |name: &str, bytes: usize| {
        let each = bytes as f64 / expected.parameters.max(1) as f64;
        let bytes = BinaryBytes(bytes as u64).to_string();
        vec![name.to_owned(), format!("{each:.2}"), bytes]
    };
    let copies = &expected.copies;
    let mut rows: Vec<_> = copies
        .iter()
        .map(|copy| row(&copy.name, copy.bytes))
        .collect();
    rows.push(row("in all", copies.iter().map(|copy| copy.bytes).sum()));
    terminal::print(&format!(
        "{} parameters\n\n{}\nactivations of {} sequences: about {}\n",
        expected.parameters,
        terminal::table(&["copy", "bytes a parameter", "in all"], 1, rows),
        expected.sequences,
        BinaryBytes(expected.activations as u64)
    ))
}
