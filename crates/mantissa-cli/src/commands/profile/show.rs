//! `mantissa profile show`.

use std::path::PathBuf;

use globset::Glob;
use mantissa::plan::Profile;
use mantissa::plan::description::OperandDescription;
use mantissa_metrics::StudentT;
use serde::Serialize;

use crate::error::Error;
use crate::terminal::{self, rounded};

/// Arguments of `mantissa profile show`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "ν: degrees of freedom of a Student-t fit, with its 95 % interval; below about 8, one scale per tensor serves E4M3 \
                  better than INT8.\n\
                  best fit: of normal, laplace, student-t and log-normal the likeliest, and its Kolmogorov-Smirnov distance: \
                  the largest share of elements that are elsewhere than it says.\n\
                  channels, blocks: how many powers of two lie between the amaxes of small and large rows along the \
                  contraction, and of blocks of 32 in them (5 % and 95 %).\n\
                  drift: change of log2 amax in 1000 steps. jump: its largest change between measured steps.\n\n\
                  A safetensors file of tensors that another framework dumped is shown as well: docs/profiling.md.\n\n\
                  Examples:\n  \
                  mantissa profile show profile.safetensors\n  \
                  mantissa profile show runs/measured/profile.safetensors --site '*.query'\n  \
                  mantissa profile show profile.safetensors --json | jq '.operands[] | select(.kurtosis > 20) | .site'"
)]
pub struct Args {
    /// The profile, or a dump of tensors
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only the sites that match
    #[arg(long, value_name = "GLOB")]
    site: Option<String>,
    /// Write JSON to stdout: all that the table has, all four fits, and the measured steps one by one. An interval
    /// whose upper end is null has none
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown {
    sites: usize,
    steps: Vec<u64>,
    operands: Vec<OperandDescription>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Error> {
    let glob = match &args.site {
        None => None,
        Some(text) => match Glob::new(text) {
            Ok(glob) => Some(glob.compile_matcher()),
            Err(fault) => return Err(Error::Usage(format!("`{text}` is no glob: {fault}"))),
        },
    };
    let profile = Profile::load(&args.file)?;
    let is_wanted = |site: &str| glob.as_ref().is_none_or(|glob| glob.is_match(site));
    if let Some(text) = &args.site
        && !profile.sites.iter().any(|site| is_wanted(&site.site.name))
    {
        // Names the nearest site.
        let unknown = profile.site(text).map(|_| ());
        return Err(unknown.err().map_or_else(
            || Error::Usage(format!("no site matches `{text}`")),
            Error::from,
        ));
    }
    let shown = Shown {
        sites: profile.sites.len(),
        steps: profile.steps(),
        operands: profile.describe(is_wanted),
    };
    if args.json {
        return terminal::print_json(&shown, true);
    }
    if shown.operands.is_empty() {
        return terminal::print("nothing was measured\n");
    }
    terminal::print(&table(&shown.operands))
}

fn table(operands: &[OperandDescription]) -> String {
    let headings = [
        "site", "pass", "operand", "best fit", "distance", "ν", "95 %", "kurtosis", "amax",
        "zeros", "channels", "blocks", "drift", "jump",
    ];
    let rows = operands.iter().map(|operand| {
        let best = operand.fits.as_ref().map(|fits| fits.best());
        vec![
            terminal::printable(&operand.site),
            operand.pass.to_string(),
            operand.operand.to_string(),
            best.map_or("–".to_owned(), |fit| fit.distribution.to_string()),
            decimals(best.map(|fit| fit.distance), 3),
            operand
                .fits
                .as_ref()
                .and_then(|fits| fits.student_t())
                .map_or("–".to_owned(), |fit| degrees(fit.nu)),
            operand.fits.as_ref().map_or("–".to_owned(), |fits| {
                format!(
                    "{} to {}",
                    short(Some(fits.nu.low)),
                    short(Some(fits.nu.high))
                )
            }),
            short(operand.kurtosis),
            rounded(Some(operand.amax.into())),
            match operand.zeros {
                0.0 => "0".to_owned(),
                share if share < 5e-4 => "<0.1 %".to_owned(),
                share => format!("{:.1} %", 100.0 * share),
            },
            decimals(operand.channels.amax_octaves, 1),
            decimals(operand.blocks.amax_octaves, 1),
            signed(operand.drift.map(|drift| drift.amax_per_1000_steps)),
            signed(operand.drift.map(|drift| drift.largest_jump.log2_ratio)),
        ]
    });
    terminal::table(&headings, 4, rows.collect())
}

/// Degrees of freedom; those at an end of what a fit can tell are as far out or farther.
fn degrees(nu: f64) -> String {
    let end = if nu >= StudentT::MAX_NU {
        "≥"
    } else if nu <= StudentT::MIN_NU {
        "≤"
    } else {
        ""
    };
    end.to_owned() + &short(Some(nu))
}

/// Two or three digits.
fn short(x: Option<f64>) -> String {
    match x {
        None => "–".to_owned(),
        Some(x) if x.is_infinite() => "∞".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(x) if x < 10.0 => format!("{x:.2}"),
        Some(x) if x < 100.0 => format!("{x:.1}"),
        Some(x) if x < 1e6 => format!("{x:.0}"),
        Some(x) => format!("{x:.1e}"),
    }
}

fn decimals(x: Option<f64>, places: usize) -> String {
    x.map_or("–".to_owned(), |x| format!("{x:.places$}"))
}

fn signed(x: Option<f64>) -> String {
    x.map_or("–".to_owned(), |x| format!("{x:+.2}"))
}
