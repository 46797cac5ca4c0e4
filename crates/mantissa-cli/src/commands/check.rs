//! `mantissa check`.

use std::path::{Path, PathBuf};

use mantissa::plan::predict_json::PredictionJson;
use mantissa::plan::{
    Choice, Plan, Policy, Prediction, Profile, Recipe, Site, Source, Target, Violation, predict,
    violations,
};
use serde::Serialize;

use crate::error::Error;
use crate::terminal;
use crate::training::trainer::named_recipe;

/// Arguments of `mantissa check`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Every pass of every product is computed from the profile's samples in the numerics that the plan gives it. \
                  An operand whose backward error, underflow, saturation or bias is beyond its bound is named, and the \
                  command fails.\n\nThe predicted quality loss is the share of a training step's progress that noise takes: \
                  0.01 is about 1 % more steps for the same loss (docs/choosing.md). The predicted cost is that of \
                  the step's products on the target, in units of the same products in f32.\n\n\
                  Exit codes: 0, all within bounds; 5, something is beyond its bound; 1, nothing could be checked; 2, a wrong \
                  command line.\n\nExamples:\n  \
                  mantissa check plan.toml --against profile.safetensors\n  \
                  mantissa check fp8-hybrid --against profile.safetensors --target h100\n  \
                  mantissa check plan.toml --against tonight.safetensors --json > check.json\n  \
                  mantissa check mellempudi --against profile.safetensors --budget 0.05"
)]
pub struct Args {
    /// A plan (.toml), a recipe of the list, or a recipe file (.toml)
    #[arg(value_name = "PLAN-OR-RECIPE")]
    input: String,
    /// Profile to check against
    #[arg(long, value_name = "FILE")]
    against: PathBuf,
    /// Target of the predicted cost: one that `mantissa plan --help` lists, or a file ending in .toml [default: the policy's,
    /// the plan's own, or emulate]
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Policy file (.toml) with the bounds [default: the default bounds; of a plan made within a budget, that budget and the
    /// bounds of operands]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Fail if the predicted quality loss is beyond this share of a step's progress
    #[arg(long, value_name = "SHARE")]
    budget: Option<f64>,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

/// The outcome as JSON.
#[derive(Serialize)]
struct Outcome<'a> {
    plan: &'a str,
    against: &'a Path,
    target: &'a str,
    #[serde(flatten)]
    prediction: PredictionJson,
    violations: &'a [Violation],
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Error> {
    let profile = Profile::load(&args.against)?;
    let plan = plan_or_recipe(&args.input, &profile)?;
    let policy = policy(&args, &plan)?;
    let prediction = predict(&plan, &profile, &policy)?;
    let budget = args.budget.or(match policy.choice {
        Choice::Budget(budget) => Some(budget),
        Choice::Thresholds => None,
    });
    let violations = violations(&prediction, &policy, budget);
    if args.json {
        let outcome = Outcome {
            plan: &args.input,
            against: &args.against,
            target: &policy.target.name,
            prediction: PredictionJson::from(&prediction),
            violations: &violations,
        };
        terminal::print_json(&outcome, true)?;
    } else {
        terminal::print(&text(&prediction, &violations, &policy))?;
    }
    if violations.is_empty() {
        Ok(())
    } else {
        Err(Error::BeyondBounds {
            plan: args.input.clone(),
            count: violations.len(),
        })
    }
}

/// The policy asked for, or the plan's own target and budget.
fn policy(args: &Args, plan: &Plan) -> Result<Policy, Error> {
    let target = args.target.as_deref().map(Target::named).transpose()?;
    if let Some(path) = &args.policy {
        return Ok(Policy::load(path, target)?);
    }
    let own = match &plan.source {
        Source::Profile { target, .. } => Target::preset(target).ok(),
        Source::Recipe(_) => None,
    };
    let mut policy = match target.or(own) {
        Some(target) => Policy::of(target),
        None => Policy::default(),
    };
    let budget = plan.prediction.as_ref().and_then(|made| made.budget);
    if let Some(budget) = budget {
        policy.choice = Choice::Budget(budget);
    }
    Ok(policy)
}

/// The plan in this file, or the recipe of this name or in this file bound to the sites of `profile`.
pub fn plan_or_recipe(input: &str, profile: &Profile) -> Result<Plan, Error> {
    let recipe = if input.ends_with(".toml") {
        match Plan::load(input) {
            Ok(plan) => return Ok(plan),
            // A file without what only plans have is read as a recipe, whose own error then says what is wrong.
            Err(error) if is_plan_file(input) => return Err(error.into()),
            Err(_) => named_recipe(input)?,
        }
    } else {
        Recipe::preset(input)?
    };
    let sites: Vec<Site> = profile
        .sites
        .iter()
        .map(|measured| measured.site.clone())
        .collect();
    Ok(Plan::from_recipe(&recipe, &sites)?)
}

fn is_plan_file(path: &str) -> bool {
    let table = std::fs::read_to_string(path)
        .ok()
        .and_then(|text| text.parse::<toml::Table>().ok());
    table.is_none_or(|table| table.contains_key("source"))
}

fn text(prediction: &Prediction, violations: &[Violation], policy: &Policy) -> String {
    let rows = prediction.passes.iter().map(|pass| {
        let loss = pass.quality_loss;
        vec![
            pass.site.clone(),
            pass.pass.to_string(),
            pass.numerics.left.to_string(),
            pass.numerics.right.to_string(),
            terminal::rounded(pass.error.product.map(|product| product.median)),
            terminal::rounded(Some(pass.cost)),
            percent(Some(pass.cost_share)),
            percent(loss.map(|loss| loss.estimate())),
        ]
    });
    let headings = [
        "site",
        "pass",
        "left",
        "right",
        "backward error",
        "cost",
        "of the step",
        "quality loss",
    ];
    let mut text = terminal::table(&headings, 4, rows.collect());
    let loss = prediction.quality_loss;
    text += &format!(
        "\npredicted cost {:.3} of f32 on {}; predicted quality loss {} of a step's progress (95 %: {} to {})\n",
        prediction.cost,
        policy.target.name,
        percent(Some(loss.estimate())),
        percent(Some(loss.low())),
        percent(Some(loss.high())),
    );
    for violation in violations {
        let of = match violation.operand {
            Some(role) => format!(" of {role}"),
            None => String::new(),
        };
        let place = match (&violation.site, violation.pass) {
            (Some(site), Some(pass)) => format!("{site}, {pass}"),
            _ => "all passes together".to_owned(),
        };
        text += &format!(
            "beyond its bound: {place}: {}{of} is {}, {} allows {}\n",
            violation.metric,
            number(violation.value),
            violation.rule,
            number(violation.bound),
        );
    }
    text
}

fn number(x: f64) -> String {
    if x.is_finite() {
        terminal::rounded(Some(x))
    } else {
        "infinite".to_owned()
    }
}

/// A share in per cent.
pub fn percent(share: Option<f64>) -> String {
    match share {
        None => "–".to_owned(),
        Some(share) if !share.is_finite() => "all".to_owned(),
        Some(share) => match 100.0 * share {
            0.0 => "0 %".to_owned(),
            percent if percent < 1e-4 => format!("{percent:.0e} %"),
            percent => {
                let decimals = (2 - percent.log10().floor() as i32).clamp(0, 6) as usize;
                format!("{percent:.decimals$} %")
            }
        },
    }
}
