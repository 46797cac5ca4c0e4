//! `mantissa demo`.

use crate::error::Error;

/// Arguments of `mantissa demo`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<(), Error> {
    Err(Error::Usage("`mantissa demo` is not built yet".to_owned()))
}
