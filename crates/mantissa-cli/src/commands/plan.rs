//! `mantissa plan`.

use crate::error::Error;

/// Arguments of `mantissa plan`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<(), Error> {
    Err(Error::Usage("`mantissa plan` is not built yet".to_owned()))
}
