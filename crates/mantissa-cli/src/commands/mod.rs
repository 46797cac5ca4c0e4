//! One module a command: its arguments, and `run`.

pub mod cast;
pub mod check;
pub mod compare;
pub mod demo;
pub mod export;
pub mod formats;
pub mod inspect;
pub mod memory;
pub mod plan;
pub mod profile;
pub mod recipes;
pub mod report;
pub mod serve;
pub mod train;
pub mod whatif;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::error::Error;

/// Runs a command, `demo` with its defaults if none is given.
pub fn run(command: Option<Command>) -> Result<(), Error> {
    let demo = || Cli::parse_from(["mantissa", "demo"]).command;
    match command.or_else(demo) {
        Some(Command::Demo(args)) => demo::run(args),
        Some(Command::Train(args)) => train::run(args),
        Some(Command::Compare(args)) => compare::run(args),
        Some(Command::Profile(args)) => profile::run(args),
        Some(Command::Plan(args)) => plan::run(args),
        Some(Command::Whatif(args)) => whatif::run(args),
        Some(Command::Check(args)) => check::run(args),
        Some(Command::Memory(args)) => memory::run(args),
        Some(Command::Report(args)) => report::run(args),
        Some(Command::Serve(args)) => serve::run(args),
        Some(Command::Recipes(args)) => recipes::run(args),
        Some(Command::Inspect(args)) => inspect::run(args),
        Some(Command::Cast(args)) => cast::run(args),
        Some(Command::Export(args)) => export::run(args),
        Some(Command::Formats(args)) => formats::run(args),
        None => Ok(()),
    }
}
