//! What the ranks of a run do together.

use mantissa::World;
use mantissa::checkpoint::Progress;
use mantissa::parallel::fingerprint;
use mantissa::plan::{Plan, Profile};
use mantissa_zoo::{Bert, MaskedBatch};

use super::config::RunConfig;
use crate::error::Error;

/// Runs `work` on this rank. An error that every rank meets alike is returned on the first, which tells it; one that only
/// this rank meets ends all.
pub fn together(world: &World, work: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
    match work() {
        Err(Error::Skips { .. } | Error::Diverged { .. } | Error::Disagreement(_))
            if !world.is_first() =>
        {
            Ok(())
        }
        Err(error @ (Error::Skips { .. } | Error::Diverged { .. } | Error::Disagreement(_))) => {
            Err(error)
        }
        Err(error) if world.size() > 1 => world.abort(&error.to_string()),
        done => done,
    }
}

/// Refuses to resume where ranks see different checkpoints; `name` is that of the last one this rank sees.
pub fn agree_on_checkpoint(world: &World, name: Option<&str>) -> Result<(), Error> {
    let checkpoint =
        name.unwrap_or("none; the run's folder must be on a file system that all ranks see");
    Ok(world.agree(&[
        ("version", version()),
        ("last checkpoint", checkpoint.to_owned()),
    ])?)
}

/// Refuses to begin where ranks would train differently.
pub fn agree_on_run(
    world: &World,
    config: &RunConfig,
    plan: &Plan,
    progress: Progress,
    batch: &MaskedBatch,
    model: &Bert,
) -> Result<(), Error> {
    if world.size() == 1 {
        return Ok(());
    }
    let tokens: Vec<u8> = [&batch.tokens, &batch.targets]
        .into_iter()
        .flatten()
        .flat_map(|token| token.to_le_bytes())
        .collect();
    Ok(world.agree(&[
        ("version", version()),
        ("configuration", config.without_paths().to_toml()),
        ("plan", plan.to_toml()?),
        ("next step", progress.step.to_string()),
        ("data", format!("checksum {:08x}", crc32fast::hash(&tokens))),
        ("model", format!("checksum {}", fingerprint(model))),
    ])?)
}

/// Refuses to go on where ranks have come to different weights.
pub fn agree_on_weights(world: &World, step: u64, model: &Bert) -> Result<(), Error> {
    if world.size() == 1 {
        return Ok(());
    }
    let what = format!("model after step {step}");
    Ok(world.agree(&[(&what, format!("checksum {}", fingerprint(model)))])?)
}

/// The profile of all ranks, on the first; those of the others are merged into it.
pub fn merged(world: &World, profile: Profile) -> Result<Profile, Error> {
    if world.size() == 1 {
        return Ok(profile);
    }
    let mut all = Vec::new();
    for bytes in world.gather(&profile.to_bytes()?) {
        all.push(Profile::from_bytes(&bytes)?);
    }
    let mut all = all.into_iter();
    let mut merged = all.next().unwrap_or(profile);
    for other in all {
        merged.merge(&other)?;
    }
    Ok(merged)
}

fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}
