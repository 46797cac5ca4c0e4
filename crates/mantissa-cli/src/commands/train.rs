//! `mantissa train`.

use crate::error::Error;

/// Arguments of `mantissa train`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<(), Error> {
    Err(Error::Usage("`mantissa train` is not built yet".to_owned()))
}
