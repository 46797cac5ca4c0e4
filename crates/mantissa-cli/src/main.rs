//! The `mantissa` command: measure, choose, train, compare.
#![forbid(unsafe_code)]

mod atomic_file;
mod cli;
mod commands;
mod error;
mod report;
mod safetensors_file;
mod terminal;
mod training;

use std::io;
use std::process::ExitCode;

use cap::Cap;
use clap::Parser;
use mimalloc::MiMalloc;
use tracing_subscriber::EnvFilter;

use crate::cli::Cli;
use crate::error::Error;

/// Counts what is allocated, so that runs can tell what they take.
#[global_allocator]
static ALLOCATOR: Cap<MiMalloc> = Cap::new(MiMalloc, usize::MAX);

/// The exit code of a training run that stopped because steps kept being skipped. 1 is any other failure, 2 a wrong command
/// line.
const STOPPED: u8 = 3;
/// That of one that diverged more often than it may be rolled back.
const DIVERGED: u8 = 4;
/// The exit code of `mantissa check` where something is beyond its bound.
const BEYOND_BOUNDS: u8 = 5;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("MANTISSA_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .without_time()
        .init();
    match commands::run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of a pipe, such as `head`, has seen enough.
        Err(Error::Stdout(source)) if source.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            terminal::complain("error", &error);
            match error {
                Error::Skips { .. } => ExitCode::from(STOPPED),
                Error::Diverged { .. } => ExitCode::from(DIVERGED),
                Error::BeyondBounds { .. } => ExitCode::from(BEYOND_BOUNDS),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
