//! `mantissa profile merge`.

use std::path::PathBuf;

use mantissa::plan::Profile;
use serde::Serialize;

use crate::error::Error;
use crate::terminal;

/// Arguments of `mantissa profile merge`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Profiles of several runs, seeds or ranks of one model become one: counts, moments, histograms, quantiles, spreads \
                  and series add up, and of the sampled rows an even spread over the steps is kept.\n\nExamples:\n  \
                  mantissa profile merge a/profile.safetensors b/profile.safetensors -o both.safetensors\n  \
                  mantissa profile merge dumps/*.safetensors -o profile.safetensors"
)]
pub struct Args {
    /// Profiles, or dumps of tensors
    #[arg(value_name = "FILE", required = true, num_args = 2..)]
    files: Vec<PathBuf>,
    /// Profile file to write
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Replace the profile file if it exists
    #[arg(long)]
    force: bool,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

/// What was merged.
#[derive(Serialize)]
struct Outcome {
    event: &'static str,
    files: usize,
    sites: usize,
    steps: Vec<u64>,
    out: PathBuf,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Error> {
    if args.files.contains(&args.out) {
        return Err(Error::OutputIsInput { path: args.out });
    }
    if !args.force && args.out.exists() {
        return Err(Error::Exists { path: args.out });
    }
    let mut merged: Option<Profile> = None;
    for path in &args.files {
        let profile = Profile::load(path)?;
        match &mut merged {
            None => merged = Some(profile),
            Some(merged) => merged.merge(&profile).map_err(|fault| {
                Error::Usage(format!("cannot merge `{}`: {fault}", path.display()))
            })?,
        }
    }
    let Some(merged) = merged else {
        return Err(Error::Usage("there is nothing to merge".to_owned()));
    };
    merged.save(&args.out)?;
    let outcome = Outcome {
        event: "profile_merged",
        files: args.files.len(),
        sites: merged.sites.len(),
        steps: merged.steps(),
        out: args.out,
    };
    if args.json {
        return terminal::print_json(&outcome, false);
    }
    terminal::print(&format!(
        "merged {} profiles of {} sites into {}\n",
        outcome.files,
        outcome.sites,
        outcome.out.display()
    ))
}
