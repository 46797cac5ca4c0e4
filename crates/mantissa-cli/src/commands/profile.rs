//! `mantissa profile`.

use crate::error::Error;

/// Arguments of `mantissa profile`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> Result<(), Error> {
    Err(Error::Usage(
        "`mantissa profile` is not built yet".to_owned(),
    ))
}
