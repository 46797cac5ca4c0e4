//! `mantissa plan`.

use std::path::PathBuf;

use mantissa::plan::{Plan, Policy, Profile, choose, explain};

use crate::error::Error;
use crate::report::decision_table;
use crate::terminal;

/// Arguments of `mantissa plan`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "For every pass of every product, the cheapest pair of numerics whose backward error, underflow, bias \
                  and saturation stay within bounds with confidence is chosen; the plan file holds each decision with \
                  its evidence.\n\nExamples:\n  \
                  mantissa plan profile.safetensors -o plan.toml\n  \
                  mantissa plan profile.safetensors --target h100 -o plan.toml\n  \
                  mantissa plan plan.toml --explain encoder.layers.0.mha.query\n  \
                  mantissa train --data text:book.txt --plan plan.toml --out run"
)]
pub struct Args {
    /// A profile to choose from, or a plan (.toml) to show or explain
    #[arg(value_name = "FILE")]
    input: PathBuf,
    /// Plan file to write
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace the plan file if it exists
    #[arg(long)]
    force: bool,
    /// Where the plan will run: emulate, cpu-vnni or h100
    #[arg(long, default_value = "emulate")]
    target: String,
    /// Say in prose why SITE got its numerics
    #[arg(long, value_name = "SITE")]
    explain: Option<String>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Error> {
    if let Some(out) = &args.out {
        if *out == args.input {
            return Err(Error::OutputIsInput { path: out.clone() });
        }
        if !args.force && out.exists() {
            return Err(Error::Exists { path: out.clone() });
        }
    }
    let is_plan = args
        .input
        .extension()
        .is_some_and(|extension| extension == "toml");
    let plan = if is_plan {
        Plan::load(&args.input)?
    } else {
        let policy = Policy::for_target(&args.target)?;
        choose(&Profile::load(&args.input)?, &policy)?
    };
    let explained = args.explain.map(|site| explain(&plan, &site)).transpose()?;
    if let Some(out) = &args.out {
        plan.save(out)?;
    }
    match explained {
        Some(text) => terminal::print(&text),
        None => terminal::print(&decision_table(&plan)),
    }
}
