//! `mantissa compare`: the same training in several ways, from several seeds.

mod agreement;
mod prediction;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use mantissa::plan::{Plan, Profile};
use mantissa::profiler::ProfilerConfig;
use serde::{Deserialize, Serialize};

use self::prediction::{Predictor, RowPrediction};
use crate::commands::train::{Configuration, has_diverged};
use crate::error::Error;
use crate::report::{self, folders::StudyRun};
use crate::terminal;
use crate::training::cores::do_all;
use crate::training::folder::folder_name;
use crate::training::plan_change::PlanChange;
use crate::training::study::{Row, Study};
use crate::training::trainer::{StepRecord, open_source, overridden};
use crate::training::{Progress, RunConfig, RunFolder, Trainer, profiling};

/// Shares of the steps at which the table of curves shows the training loss.
const POINTS: [f64; 5] = [0.1, 0.25, 0.5, 0.75, 1.0];
/// Share of the steps before a point over which its loss is averaged.
const WINDOW: f64 = 0.05;
/// Steps that a profile for predictions is measured on, where the configuration does not say how often.
const MEASURED: u64 = 8;

/// Arguments of `mantissa compare`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A study names the seeds, the settings that all runs share and rows of what differs, all of them keys \
                  of a run's configuration, with paths relative to the study; options of this command hold for every row:\n\n  \
                  schema = 1\n  \
                  seeds = [0, 1, 2]\n  \
                  [run.data]\n  source = \"text:book.txt\"\n  \
                  [run.training]\n  steps = 2000\n  \
                  [[rows]]\n  name = \"fp32\"\n  \
                  [[rows]]\n  name = \"fp16 without loss scaling\"\n  \
                  run.numerics = { recipe = \"fp16\", loss_scaling = \"none\" }\n\n\
                  The same seed gives the same weights and data in every row, so a row's difference to the first is taken \
                  seed by seed. Runs are trained side by side, one on each core (one at a time with dropout), each in a folder of its own; \
                  finished ones are not trained again, so an interrupted comparison goes on where it was.\n\n\
                  With --profile, every row has its predicted quality loss and cost beside what was measured, and rows may have their \
                  plans chosen from the profile, by a policy as in a policy file:\n\n  \
                  [[rows]]\n  name = \"chosen for h100\"\n  \
                  policy = { budget = 0.01, target = \"h100\" }\n\nExamples:\n  \
                  mantissa compare study.toml --out runs/study\n  \
                  mantissa compare study.toml --profile runs/study/profile.safetensors --out runs/study\n  \
                  mantissa compare study.toml --out runs/study --json | jq '.rows[] | [.name, .difference]'"
)]
pub struct Args {
    /// What to compare (TOML)
    #[arg(value_name = "STUDY")]
    study: PathBuf,
    /// Folder of the runs
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Predict what each row loses and costs from this profile, and choose the plans of rows that have a policy; where there is
    /// no such file yet, the first row is trained once more from the first seed, and measured
    #[arg(long, value_name = "PROFILE")]
    profile: Option<PathBuf>,
    /// Print one JSON object to stdout and nothing else
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: Configuration,
}

/// What one run came to, `result.json` in its folder.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct RunResult {
    seed: u64,
    /// On the evaluation set; absent if it is not finite or training stopped.
    final_loss: Option<f64>,
    /// The lowest loss that any model can reach there, where it is known.
    #[serde(default)]
    loss_floor: Option<f64>,
    /// The training loss around each of [`POINTS`]; absent where no loss there was finite.
    curve: Vec<Option<f64>>,
    skipped_steps: u64,
    /// The step at which training stopped, since one step after the other was skipped.
    stopped_at: Option<u64>,
    diverged: bool,
    /// The time of the fastest step, which other work on the machine disturbs least.
    #[serde(default)]
    step_seconds: Option<f64>,
}

/// A mean with the sample standard deviation of one run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Spread {
    mean: f64,
    deviation: Option<f64>,
}

/// What a row came to.
#[derive(Debug, Serialize)]
struct RowResult {
    name: String,
    final_loss: Option<Spread>,
    /// To the first row, seed by seed.
    difference: Option<Spread>,
    curve: Vec<Option<Spread>>,
    skipped_steps: u64,
    diverged: usize,
    /// The time of the fastest step as a share of the first row's: the mean over seeds.
    step_time: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prediction: Option<RowPrediction>,
    runs: Vec<RunResult>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Error> {
    let progress = Progress::default();
    let mut study = Study::load(&args.study, &args.options)?;
    fs::create_dir_all(&args.out).map_err(|source| Error::Write {
        path: args.out.clone(),
        source,
    })?;
    let predictor = predictor(args.profile.as_deref(), &study, &progress)?;
    if let Some(predictor) = &predictor {
        predictor.choose_plans(&mut study, &args.out, &progress)?;
    }
    let jobs = study
        .rows
        .iter()
        .flat_map(|row| study.seeds.iter().map(move |&seed| (row, seed)));
    let folder = RunFolder::at(&args.out);
    folder.write_study_index(index(&study, &[]))?;
    // Dropout draws from a generator that all runs of a process share.
    let drops = study.rows.iter().any(|row| row.config.model.dropout > 0.0);
    let at_once = if drops { 1 } else { usize::MAX };
    let results = do_all(jobs.collect(), at_once, |(row, seed)| {
        train(row, seed, &args.out, &progress)
    })?;
    let mut results = results.chunks(study.seeds.len()).peekable();
    let first = results.peek().map_or(&[][..], |first| *first);
    let rows = study.rows.iter().zip(results.clone()).map(|(row, runs)| {
        let predict = |predictor: &Predictor| {
            let spinner = progress.spinner(format!("predicting the loss of `{}`", row.name));
            let run = args.out.join(run_folder(row, study.seeds[0]));
            let predicted = predictor.predict(&RunFolder::at(&run));
            spinner.finish_and_clear();
            predicted
        };
        Ok(RowResult {
            prediction: predictor.as_ref().map(predict).transpose()?,
            ..summarize(&row.name, runs, first)
        })
    });
    let mut rows: Vec<RowResult> = rows.collect::<Result<_, Error>>()?;
    agreement::note_beaten(&mut rows, &study);
    let agreement = predictor.map(|_| agreement::agreement(&rows));
    folder.write_study_index(index(&study, &rows))?;
    progress.line(&report::leave_page(&folder));
    if args.json {
        let seeds = &study.seeds;
        return terminal::print_json(
            &serde_json::json!({ "seeds": seeds, "points": POINTS, "rows": rows, "agreement": agreement }),
            false,
        );
    }
    terminal::print(&tables(&rows, study.seeds.len()))?;
    match agreement {
        Some(agreement) => terminal::print(&format!("\n{}", agreement::table(&rows, &agreement))),
        None => Ok(()),
    }
}

/// The runs of the study, with what is predicted of their rows so far.
fn index(study: &Study, rows: &[RowResult]) -> impl Iterator<Item = StudyRun> {
    let of_row = move |(place, row): (usize, &Row)| {
        let prediction = rows.get(place).and_then(|row| row.prediction.as_ref());
        let predicted_quality_loss = prediction.map(|row| row.quality_loss.estimate);
        let name = row.name.clone();
        let folders = study.seeds.iter().map(|&seed| run_folder(row, seed));
        let runs = folders.map(move |folder| StudyRun {
            name: name.clone(),
            folder,
            predicted_quality_loss,
        });
        runs.collect::<Vec<_>>()
    };
    study.rows.iter().enumerate().flat_map(of_row)
}

/// Reads the profile, which must be of the model of the first row, or makes it.
fn predictor(
    path: Option<&Path>,
    study: &Study,
    progress: &Progress,
) -> Result<Option<Predictor>, Error> {
    let with_policy = study.rows.iter().find(|row| row.policy.is_some());
    let Some(path) = path else {
        return with_policy.map_or(Ok(None), |row| {
            Err(Error::Usage(format!(
                "row `{}` has a policy to choose its plan by; give the profile to choose from with --profile",
                row.name
            )))
        });
    };
    let first = &study.rows[0];
    if first.policy.is_some() {
        return Err(Error::Usage(format!(
            "the first row, `{}`, has a policy; the others are compared with it, so give it numerics of its own",
            first.name
        )));
    }
    let mut config = first.config.clone();
    config.training.seed = study.seeds[0];
    let mut trainer = Trainer::new(&config, open_source(&config, None)?, None)?;
    let profile = if path.exists() {
        Profile::load(path)?
    } else {
        // Before the training, whose profile could not be written.
        let folder = path.parent().unwrap_or(Path::new(""));
        fs::create_dir_all(folder).map_err(|source| Error::Write {
            path: folder.to_owned(),
            source,
        })?;
        let steps = config.training.steps;
        let measuring = ProfilerConfig {
            every: config.profile.every.unwrap_or(steps.div_ceil(MEASURED)),
            ..ProfilerConfig::default()
        };
        let profiler = profiling::profile(&mut trainer, steps, measuring, progress);
        let profile = profiler.into_profile();
        profile.save(path)?;
        profile
    };
    let predictor = Predictor::new(profile, study)?;
    predictor.check(trainer.plan())?;
    Ok(Some(predictor))
}

/// Where a run lies in the folder of the study.
fn run_folder(row: &Row, seed: u64) -> PathBuf {
    Path::new(&folder_name(&row.name)).join(format!("seed-{seed}"))
}

/// Trains one run, or goes on with it, or reads what it came to.
fn train(row: &Row, seed: u64, out: &Path, progress: &Progress) -> Result<RunResult, Error> {
    let path = out.join(run_folder(row, seed));
    let config = {
        let mut config = row.config.clone();
        config.training.seed = seed;
        config
    };
    let (folder, mut trainer) = if path.join("config.toml").is_file() {
        let folder = RunFolder::open(&path)?;
        if RunConfig::load(&folder.config())? != config {
            return Err(Error::Folder {
                path,
                problem: "holds a run with other settings; choose another --out, or delete it"
                    .to_owned(),
            });
        }
        if let Some(plan) = &config.numerics.plan {
            let wanted = overridden(Plan::load(plan)?, &config.numerics);
            if PlanChange::between(&Plan::load(folder.plan())?, &wanted, 0).is_some() {
                return Err(Error::Folder {
                    path,
                    problem: format!(
                        "holds a run under another plan than {}; choose another --out, or delete it",
                        plan.display()
                    ),
                });
            }
        }
        if let Some(result) = read_result(&folder)? {
            return Ok(result);
        }
        let source = open_source(&config, Some(&folder))?;
        let trainer = Trainer::resume(&config, source, &folder, false)?.trainer;
        (folder, trainer)
    } else {
        let trainer = Trainer::new(&config, open_source(&config, None)?, None)?;
        let folder = RunFolder::create(&path)?;
        trainer.plan().save(folder.plan())?;
        trainer.save_tokenizer(&folder.tokenizer())?;
        folder.write_config(&config)?;
        (folder, trainer)
    };

    let name = format!("{}, seed {seed}", row.name);
    let steps = config.training.steps;
    let mut log = folder.open_log(trainer.progress().step)?;
    let bar = progress.steps(name.clone(), steps, trainer.progress().step);
    let mut stopped_at = None;
    let mut fastest: Option<f64> = None;
    while trainer.progress().step < steps && stopped_at.is_none() {
        let started = Instant::now();
        let record = trainer.step();
        let seconds = started.elapsed().as_secs_f64();
        fastest = Some(fastest.map_or(seconds, |fastest| fastest.min(seconds)));
        log.push(&record)?;
        bar.inc(1);
        let step = trainer.progress().step;
        if record
            .skip
            .as_ref()
            .is_some_and(|skip| skip.exhausted || skip.skips_in_a_row >= config.training.max_skips)
        {
            stopped_at = Some(step);
        } else if step.is_multiple_of(config.checkpoints.every) && step < steps {
            trainer.save(&folder, config.checkpoints.keep)?;
        }
    }
    bar.finish_and_clear();

    let evaluated = stopped_at.is_none().then(|| trainer.evaluate());
    let final_loss = evaluated.filter(|loss| loss.is_finite());
    let unigram_loss = trainer.source().unigram_loss();
    let result = RunResult {
        seed,
        final_loss,
        loss_floor: trainer.source().floor(),
        curve: curve(&folder.read_log()?, steps),
        skipped_steps: trainer.progress().skipped,
        stopped_at,
        diverged: final_loss.is_none_or(|loss| has_diverged(loss, unigram_loss)),
        step_seconds: fastest,
    };
    folder.write_json("result.json", &result)?;
    let came_to = match (result.final_loss, stopped_at) {
        (_, Some(step)) => format!("stopped at step {step}: one step after the other was skipped"),
        (Some(loss), None) => format!("evaluation loss {loss:.4}"),
        (None, None) => "evaluation loss not finite".to_owned(),
    };
    progress.line(&format!("{name:<40} {came_to}"));
    Ok(result)
}

fn read_result(folder: &RunFolder) -> Result<Option<RunResult>, Error> {
    let path = folder.path().join("result.json");
    match fs::read(&path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path, source }),
    }
}

/// The mean training loss around each of [`POINTS`].
fn curve(log: &[StepRecord], steps: u64) -> Vec<Option<f64>> {
    let window = (WINDOW * steps as f64).ceil() as u64;
    let at = |point: f64| {
        let end = (point * steps as f64).round() as u64;
        let inside = end.saturating_sub(window)..end;
        let losses = log.iter().filter(|record| inside.contains(&record.step));
        let losses: Vec<f64> = losses
            .filter_map(|record| record.loss.map(f64::from))
            .collect();
        Some(losses.iter().sum::<f64>() / losses.len() as f64).filter(|mean| mean.is_finite())
    };
    POINTS.into_iter().map(at).collect()
}

fn summarize(name: &str, runs: &[RunResult], first: &[RunResult]) -> RowResult {
    let losses = runs.iter().map(|run| run.final_loss);
    let differences = runs.iter().zip(first).map(|(run, first)| {
        let loss = run.final_loss?;
        Some(loss - first.final_loss?)
    });
    let step_times = runs
        .iter()
        .zip(first)
        .map(|(run, first)| Some(run.step_seconds? / first.step_seconds?));
    let points = 0..POINTS.len();
    RowResult {
        name: name.to_owned(),
        final_loss: spread(losses),
        difference: spread(differences),
        curve: points
            .map(|point| spread(runs.iter().map(|run| *run.curve.get(point)?)))
            .collect(),
        skipped_steps: runs.iter().map(|run| run.skipped_steps).sum(),
        diverged: runs.iter().filter(|run| run.diverged).count(),
        step_time: spread(step_times).map(|spread| spread.mean),
        prediction: None,
        runs: runs.to_vec(),
    }
}

/// Of the runs that have a value; `None` where fewer than all have one, whose mean would flatter.
fn spread(values: impl Iterator<Item = Option<f64>>) -> Option<Spread> {
    let values: Vec<f64> = values.collect::<Option<_>>()?;
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let square: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some(Spread {
        mean,
        deviation: (values.len() > 1).then(|| (square / (count - 1.0)).sqrt()),
    })
}

fn tables(rows: &[RowResult], seeds: usize) -> String {
    let show = |spread: &Option<Spread>, signed: bool| match spread {
        None => "–".to_owned(),
        Some(Spread { mean, deviation }) => {
            let mean = if signed {
                format!("{mean:+.4}")
            } else {
                format!("{mean:.4}")
            };
            deviation.map_or(mean.clone(), |deviation| format!("{mean} ± {deviation:.4}"))
        }
    };
    let results = rows.iter().enumerate().map(|(index, row)| {
        let difference = if index == 0 {
            String::new()
        } else {
            show(&row.difference, true)
        };
        vec![
            row.name.clone(),
            show(&row.final_loss, false),
            difference,
            row.skipped_steps.to_string(),
            row.diverged.to_string(),
        ]
    });
    let headings = [
        "row",
        "evaluation loss",
        "difference",
        "skipped steps",
        "diverged",
    ];
    let results = terminal::table(&headings, 1, results.collect());
    let curves = rows.iter().map(|row| {
        let points = row.curve.iter().map(|point| show(point, false));
        std::iter::once(row.name.clone()).chain(points).collect()
    });
    let shares = POINTS.map(|point| format!("{:.0} %", 100.0 * point));
    let headings: Vec<&str> = std::iter::once("row")
        .chain(shares.iter().map(String::as_str))
        .collect();
    let curves = terminal::table(&headings, 1, curves.collect());
    format!(
        "{results}\nMeans over {seeds} seeds ± the standard deviation of one run; the difference to the first row is taken seed by \
         seed.\n\nTraining loss after a share of the steps:\n{curves}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_of_all_runs_or_of_none() {
        let of = |values: &[Option<f64>]| spread(values.iter().copied());
        let three = of(&[Some(1.0), Some(2.0), Some(3.0)]).unwrap();
        assert_eq!((three.mean, three.deviation), (2.0, Some(1.0)));
        assert_eq!(of(&[Some(4.0)]).unwrap().deviation, None);
        assert_eq!(of(&[Some(1.0), None]), None);
    }

    #[test]
    fn differences_are_taken_seed_by_seed() {
        let run = |seed, loss| RunResult {
            seed,
            final_loss: Some(loss),
            loss_floor: None,
            skipped_steps: 1,
            ..RunResult::default()
        };
        let first = [run(0, 1.0), run(1, 5.0)];
        let row = summarize("row", &[run(0, 1.5), run(1, 5.5)], &first);
        let difference = row.difference.unwrap();
        assert_eq!((difference.mean, difference.deviation), (0.5, Some(0.0)));
        assert_eq!((row.skipped_steps, row.diverged), (2, 0));
    }
}
