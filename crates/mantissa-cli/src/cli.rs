//! The command line.

use clap::{Parser, Subcommand};

use crate::commands::{
    cast, check, compare, demo, export, formats, inspect, memory, plan, profile, recipes, report,
    serve, train, whatif,
};

/// Measures the numbers in a network's products, chooses a format for each, trains, and shows why
///
/// Without a command it runs `demo`.
#[derive(Debug, Parser)]
#[command(
    name = "mantissa",
    version,
    disable_help_subcommand = true,
    after_help = "A numerics is FORMAT[/GRANULARITY][/SCALE][/AMAX][/ROUNDING][/OVERFLOW], for example bf16, e4m3/tensor,\n\
                  int8/channel, e5m2/unscaled, int8/block32/stochastic, mxfp8 or nvfp4. What is left out takes\n\
                  its default.\n\nExamples:\n  \
                  mantissa demo                                        the whole loop on a small BERT, a few minutes\n  \
                  mantissa train --data text:book.txt --recipe fp8-hybrid --out run\n  \
                  mantissa report run -o report.html                   what happened in it, and why\n  \
                  mantissa inspect model.safetensors                   what each format would do to the tensors\n  \
                  mantissa cast model.safetensors --to e4m3 -o model-fp8.safetensors\n  \
                  mantissa formats e4m3                                every value of a format\n  \
                  mantissa recipes mellempudi                          what a recipe does, and where it comes from\n\n\
                  Logs go to stderr; MANTISSA_LOG=info or =debug shows more."
)]
pub struct Cli {
    /// What to do; `demo` where nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure a small BERT, choose its numerics, train with them, and compare with full precision
    Demo(demo::Args),
    /// Train on a text file under a recipe or a plan
    Train(train::Args),
    /// Train the same network in several ways from several seeds, and compare
    Compare(compare::Args),
    /// Measure the operands of every product during a short run; show or merge such profiles
    Profile(profile::Args),
    /// Tell what each numerics would do to the products of a profile, and what follows from that
    Whatif(whatif::Args),
    /// Choose numerics from a profile, or explain a choice
    Plan(plan::Args),
    /// Check a plan or recipe against a profile: what it costs, what it loses, what is beyond its bound
    Check(check::Args),
    /// Tell what training takes of memory, copy by copy
    Memory(memory::Args),
    /// Show runs as one page: losses, errors, decisions, distributions
    Report(report::Args),
    /// Show the same page live, while training goes on
    Serve(serve::Args),
    /// List the recipes and the loss scalings, or explain one recipe
    Recipes(recipes::Args),
    /// Tell what is in a safetensors file, and what each numerics would do to it
    Inspect(inspect::Args),
    /// Write a safetensors file's tensors as codes and scales
    Cast(cast::Args),
    /// Write a run's weights as safetensors, for PyTorch or Burn
    Export(export::Args),
    /// List the number formats, or every value of one
    Formats(formats::Args),
}
