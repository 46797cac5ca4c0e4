//! `mantissa whatif`: what each numerics would do to measured products, before anything is trained with it.

mod rows;
mod tables;

use std::path::PathBuf;

use mantissa::plan::whatif::{Pairs, SiteOutcome, WhatIf, grid, select};
use mantissa::plan::{Pass, PassNumerics, Profile, Target, Thresholds};
use mantissa_quant::Numerics;
use rayon::prelude::*;

use self::rows::Row;
use self::tables::Tables;
use crate::error::Error;
use crate::terminal;
use crate::training::Progress;

/// Arguments of `mantissa whatif`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The sampled rows of a profile are quantized under each candidate, the same numerics for both operands unless\n\
                  said otherwise, and multiplied. Without --site there is one line a candidate over all sites; with it, tables\n\
                  for each site that matches, and advice: the coarsest scales with which a format stays within the bounds that\n\
                  `mantissa plan` uses and what finer ones would gain, the bias and the noise of either rounding, and which\n\
                  format the operands' tails promise to be best.\n\n\
                  BE is the backward error |LR - Q(L,R)| / (|L||R|) of an output; bias is its mean with the sign kept. Of a\n\
                  gradient, 1 - cos is that of the angle between the exact and the quantized one, from the sampled rows; of an\n\
                  update, that between the steps which Adam would take first, the signs of the gradient (for SGD the update's\n\
                  cosine is the gradient's). Intervals are of 95 % confidence, from the scatter over sampled rows; with fewer\n\
                  than 6 rows of an operand there are none. Pairs left / right belong to the pass's left and right operand:\n\
                  lhs x rhs in forward, grad x rhs in grad_lhs, lhs x grad in grad_rhs.\n\n\
                  Examples:\n  \
                  mantissa whatif profile.safetensors\n  \
                  mantissa whatif profile.safetensors --site 'encoder.layers.0.*' --pass grad_rhs --all\n  \
                  mantissa whatif profile.safetensors --site '*.query' --numerics e4m3/tensor,int8/channel --numerics mxfp8\n  \
                  mantissa whatif profile.safetensors --site '*.query' --pairs all --sort cost --target h100\n  \
                  mantissa whatif profile.safetensors --json | jq 'select(.backward_error.median > 1e-2) | .site'"
)]
pub struct Args {
    /// A profile, as `mantissa profile` writes it, or a file of dumped operands
    #[arg(value_name = "PROFILE")]
    profile: PathBuf,
    /// Only the sites that match, such as 'encoder.layers.*.query'
    #[arg(long, value_name = "GLOB")]
    site: Option<String>,
    /// Only these passes: forward, grad_lhs or grad_rhs
    #[arg(long, value_name = "PASS", value_delimiter = ',')]
    pass: Vec<Pass>,
    /// Try this instead of the usual candidates: one numerics for both operands, or LEFT,RIGHT; repeatable
    #[arg(long, value_name = "A[,B]", value_parser = pair, conflicts_with = "pairs")]
    numerics: Vec<PassNumerics>,
    /// Which candidates meet: the same for both operands, or all with all
    #[arg(long, value_enum, default_value_t = PairsArgument::Same)]
    pairs: PairsArgument,
    /// Best first, or cheapest first
    #[arg(long, value_enum, default_value_t = Sort::Error)]
    sort: Sort,
    /// Where the cost is reckoned: emulate, cpu-vnni or h100
    #[arg(long, default_value = "emulate")]
    target: String,
    /// Lines of each table
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// Print every line
    #[arg(long, conflicts_with = "top")]
    all: bool,
    /// Outputs of each product that are evaluated, at most about this many
    #[arg(long, value_name = "N", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..))]
    outputs: u32,
    /// Seed of stochastic rounding
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write JSON to stdout: one object a line for each site, pass and pair
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum PairsArgument {
    Same,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
enum Sort {
    Error,
    Cost,
}

/// One numerics for both operands, or two with a comma between them.
fn pair(text: &str) -> Result<PassNumerics, String> {
    let parse = |token: &str| token.parse::<Numerics>().map_err(|error| error.to_string());
    match text.split_once(',') {
        None => Ok(PassNumerics::both(parse(text)?)),
        Some((left, right)) => Ok(PassNumerics {
            left: parse(left)?,
            right: parse(right)?,
        }),
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Error> {
    let target = Target::preset(&args.target)?;
    let profile = Profile::load(&args.profile)?;
    let sites = select(&profile, args.site.as_deref())?;
    let whatif = WhatIf {
        pairs: match args.pairs {
            _ if !args.numerics.is_empty() => Pairs::Asked(args.numerics.clone()),
            PairsArgument::Same => Pairs::Same(grid()),
            PairsArgument::All => Pairs::All(grid()),
        },
        outputs: args.outputs as usize,
        seed: args.seed,
    };
    let passes = match args.pass.as_slice() {
        [] => &Pass::ALL[..],
        some => some,
    };
    let bar = Progress::default().steps("evaluating", sites.len() as u64, 0);
    let mut outcomes: Vec<SiteOutcome> = sites
        .par_iter()
        .map(|site| {
            let outcome = whatif.passes(site, passes);
            bar.inc(1);
            outcome
        })
        .collect();
    bar.finish_and_clear();
    outcomes.retain(|outcome| !outcome.passes.is_empty());
    if outcomes.is_empty() {
        let names: Vec<&str> = passes.iter().map(|pass| pass.name()).collect();
        let fault = format!(
            "of these sites no pass {} was measured; leave out --pass",
            names.join(" or ")
        );
        return Err(Error::Usage(fault));
    }
    if args.json {
        let rows = outcomes.iter().flat_map(|site| Row::all(site, &target));
        return rows
            .into_iter()
            .try_for_each(|row| terminal::print_json(&row, false));
    }
    let tables = Tables {
        target: &target,
        thresholds: Thresholds::default(),
        by_cost: args.sort == Sort::Cost,
        lines: if args.all {
            usize::MAX
        } else {
            args.top.into()
        },
    };
    if args.site.is_none() {
        return terminal::print(&tables.over_sites(&outcomes));
    }
    outcomes
        .iter()
        .try_for_each(|site| terminal::print(&tables.site(site)))
}
