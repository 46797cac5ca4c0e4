//! `mantissa report`.

use std::path::PathBuf;

use crate::atomic_file::AtomicFile;
use crate::error::Error;
use crate::report::{self, Reader};
use crate::terminal;

/// Arguments of `mantissa report`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The page needs no other file and no network. It shows what the folders hold (losses, loss scale, errors and \
                  decisions over the steps, the numerics of every product and why, distributions, memory, time) and says what \
                  they do not hold and how to get it. Runs that differ by their seeds alone become one line with a band; the \
                  first run, or row of a study, is what the others are compared with.\n\nExamples:\n  \
                  mantissa report runs/fp8 -o fp8.html\n  \
                  mantissa report runs/fp32 runs/fp8 -o both.html\n  \
                  mantissa report runs/fp8 --json | jq .runs[0].outcome\n  \
                  mantissa report runs/study -o study.html             what `mantissa compare` left\n  \
                  mantissa profile --config runs/fp8/config.toml -o runs/fp8/profile.safetensors\n                                                       \
                  adds the distributions to the next report"
)]
pub struct Args {
    /// Folders of runs, or of a study's
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Page to write
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    out: PathBuf,
    /// Replace the page if it exists
    #[arg(long)]
    force: bool,
    /// Print what the page shows as one JSON object, and write no page
    #[arg(long, conflicts_with_all = ["out", "force"])]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Error> {
    let file = match args.json {
        true => None,
        false => Some(AtomicFile::create(&args.out, args.force)?),
    };
    let report = Reader::new(&args.runs).read()?;
    for run in &report.runs {
        for problem in &run.problems {
            let folder = run.folder.display();
            terminal::complain("warning", &format_args!("{folder}: {problem}"));
        }
    }
    let Some(mut file) = file else {
        return terminal::print_json(&report, false);
    };
    file.write(report::render(&report).as_bytes())?;
    file.commit()?;
    let runs = match report.runs.len() {
        1 => "1 run".to_owned(),
        count => format!("{count} runs"),
    };
    terminal::print(&format!("{runs} in {}\n", args.out.display()))
}
