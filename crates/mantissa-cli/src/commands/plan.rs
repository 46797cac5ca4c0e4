//! `mantissa plan`.

use std::path::PathBuf;

use mantissa::plan::{
    Choice, ExportTarget, Plan, Policy, Profile, Sensitivity, Target, Trade, choose_after, explain,
    predict, sensitivity,
};

use super::check::{percent, plan_or_recipe};
use crate::error::Error;
use crate::report::decision_table;
use crate::terminal;

/// Arguments of `mantissa plan`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "By `thresholds`, every pass of every product gets the cheapest pair of numerics whose backward error, \
                  underflow, bias and saturation stay within bounds with confidence. By `budget`, all passes together get \
                  the cheapest pairs whose predicted quality losses add up to at most the budget. A quality loss is a share \
                  of a training step's progress: 1% is about 1 % more steps for the same loss. The plan file holds each \
                  decision with its evidence; docs/choosing.md has the formulas.\n\n\
                  Targets: emulate (no machine; formats by their bits), cpu-vnni, h100, mi300, tpu-v5, blackwell, or a file \
                  ending in .toml. On a target that multiplies no pair natively everything is emulated, at its rate \
                  `otherwise`, and a warning says so.\n\nExamples:\n  \
                  mantissa plan profile.safetensors -o plan.toml\n  \
                  mantissa plan profile.safetensors --target h100 --policy budget --budget 1% -o plan.toml\n  \
                  mantissa plan profile.safetensors --policy budget --budget 0.5x:fp8-hybrid -o plan.toml\n  \
                  mantissa plan profile.safetensors --policy mine.toml --previous plan.toml -o next.toml\n  \
                  mantissa plan profile.safetensors --sensitivity          which passes pay for their numerics\n  \
                  mantissa plan profile.safetensors --sensitivity --of fp8-block\n  \
                  mantissa plan plan.toml --explain encoder.layers.0.mha.query\n  \
                  mantissa plan plan.toml --export te > te.yaml\n  \
                  mantissa train --data text:book.txt --plan plan.toml --out run"
)]
pub struct Args {
    /// A profile to choose from, or a plan (.toml) to show, explain or export
    #[arg(value_name = "FILE")]
    input: PathBuf,
    /// Plan file to write
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace the plan file if it exists
    #[arg(long)]
    force: bool,
    /// Where the plan will run: emulate, cpu-vnni, h100, mi300, tpu-v5, blackwell, or a target file ending in .toml [default:
    /// the policy's own, or emulate]
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// How to choose: thresholds, budget, or a policy file ending in .toml [default: thresholds]
    #[arg(long, value_name = "POLICY")]
    policy: Option<String>,
    /// The predicted quality loss that the plan may have: a share (0.01 or 1%), as much as a recipe's (fp8-hybrid), or a
    /// multiple of that (0.5x:fp8-hybrid)
    #[arg(long, value_name = "BUDGET")]
    budget: Option<String>,
    /// Keep this plan's decisions where they still hold, unless new ones are cheaper by more than the policy's hysteresis
    #[arg(long, value_name = "PLAN")]
    previous: Option<PathBuf>,
    /// Say what each pass contributes to the quality loss, and what promoting or demoting it alone would do
    #[arg(long)]
    sensitivity: bool,
    /// Look at the sensitivity of this plan or recipe instead of choosing one
    #[arg(long, value_name = "PLAN-OR-RECIPE", requires = "sensitivity")]
    of: Option<String>,
    /// Say in prose why SITE got its numerics
    #[arg(long, value_name = "SITE")]
    explain: Option<String>,
    /// Print the plan as settings for torchao, te (TransformerEngine) or qwix, with what they cannot express
    #[arg(long, value_name = "SYSTEM", conflicts_with_all = ["explain", "sensitivity"])]
    export: Option<String>,
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
    let export: Option<ExportTarget> = args.export.as_deref().map(str::parse).transpose()?;
    let is_plan = args
        .input
        .extension()
        .is_some_and(|extension| extension == "toml");
    let (plan, found) = if is_plan {
        (shown_plan(&args)?, None)
    } else {
        chosen_plan(&args)?
    };
    let explained = match &args.explain {
        Some(site) => Some(explain(&plan, site)?),
        None => None,
    };
    if let Some(out) = &args.out {
        plan.save(out)?;
    }
    if let Some(system) = export {
        let exported = plan.export(system);
        for note in &exported.not_expressed {
            terminal::complain("warning", note);
        }
        return terminal::print(&exported.text);
    }
    match (explained, found) {
        (Some(text), _) => terminal::print(&text),
        (None, Some(found)) => terminal::print(&sensitivity_table(&found)),
        (None, None) => terminal::print(&(decision_table(&plan) + &predicted(&plan))),
    }
}

/// The plan in a file, about which there is nothing to choose.
fn shown_plan(args: &Args) -> Result<Plan, Error> {
    let choosing = [
        ("--target", args.target.is_some()),
        ("--policy", args.policy.is_some()),
        ("--budget", args.budget.is_some()),
        ("--previous", args.previous.is_some()),
        ("--sensitivity", args.sensitivity),
    ];
    if let Some((flag, _)) = choosing.iter().find(|(_, given)| *given) {
        return Err(Error::Usage(format!(
            "{flag} chooses from a profile, and `{}` is a plan; give the profile instead",
            args.input.display()
        )));
    }
    Ok(Plan::load(&args.input)?)
}

/// The plan chosen from a profile, or the one of `--of`, and its sensitivity if that was asked for.
fn chosen_plan(args: &Args) -> Result<(Plan, Option<Vec<Sensitivity>>), Error> {
    let profile = Profile::load(&args.input)?;
    let policy = policy(args, &profile)?;
    if let Some(warning) = policy.warning() {
        terminal::complain("warning", &warning);
    }
    let mut plan = match &args.of {
        Some(of) => plan_or_recipe(of, &profile)?,
        None => {
            let previous = args.previous.as_ref().map(Plan::load).transpose()?;
            choose_after(&profile, &policy, previous.as_ref())?
        }
    };
    if !args.sensitivity {
        return Ok((plan, None));
    }
    let found = sensitivity(&plan, &profile, &policy)?;
    plan.note_sensitivity(&found);
    Ok((plan, Some(found)))
}

fn policy(args: &Args, profile: &Profile) -> Result<Policy, Error> {
    let target = args.target.as_deref().map(Target::named).transpose()?;
    let name = args.policy.as_deref();
    let mut policy = match name {
        Some(path) if path.ends_with(".toml") => Policy::load(path, target)?,
        Some("thresholds" | "budget") | None => {
            Policy::of(target.map_or_else(|| Target::preset("emulate"), Ok)?)
        }
        Some(other) => {
            return Err(Error::Usage(format!(
                "there is no policy `{other}`; the policies are thresholds, budget, and files ending in .toml"
            )));
        }
    };
    match (&args.budget, name) {
        (Some(_), Some("thresholds")) => {
            return Err(Error::Usage(
                "--budget needs --policy budget; thresholds decide pass by pass and have no budget"
                    .to_owned(),
            ));
        }
        (Some(budget), _) => policy.choice = Choice::Budget(share(budget, profile, &policy)?),
        (None, Some("budget")) => {
            return Err(Error::Usage(
                "--policy budget needs --budget, for example --budget 1%, or --budget fp8-hybrid for as much as that recipe loses"
                    .to_owned(),
            ));
        }
        (None, _) => {}
    }
    Ok(policy)
}

/// A budget: `0.01`, `1%`, `RECIPE` or `FACTORx:RECIPE`.
fn share(budget: &str, profile: &Profile, policy: &Policy) -> Result<f64, Error> {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let share = number(budget).or_else(|| Some(number(budget.strip_suffix('%')?)? / 100.0));
    if let Some(share) = share {
        return Ok(share);
    }
    let (factor, of) = match budget.split_once("x:") {
        Some((factor, of)) => {
            let factor = number(factor).filter(|factor| factor.is_finite() && *factor >= 0.0);
            let factor = factor.ok_or_else(|| {
                Error::Usage(format!(
                    "the budget `{budget}` has no factor; write, for example, 0.5x:{of}"
                ))
            })?;
            (factor, of)
        }
        None => (1.0, budget),
    };
    let prediction = predict(&plan_or_recipe(of, profile)?, profile, policy)?;
    let loss = prediction.quality_loss.estimate();
    if !loss.is_finite() {
        return Err(Error::Usage(format!(
            "`{of}` is predicted to lose everything in this profile, which is no budget; see `mantissa check {of}`"
        )));
    }
    Ok(factor * loss)
}

/// What a plan says it costs and loses, in a line.
fn predicted(plan: &Plan) -> String {
    plan.prediction.as_ref().map_or(String::new(), |prediction| {
        let budget = prediction.budget.map_or(String::new(), |budget| {
            format!(", within a budget of {}", percent(Some(budget)))
        });
        format!(
            "\npredicted cost {:.3} of f32; predicted quality loss {} of a step's progress (95 %: {} to {}){budget}\n",
            prediction.cost,
            percent(Some(prediction.quality_loss)),
            percent(Some(prediction.quality_loss_low)),
            percent(Some(prediction.quality_loss_high)),
        )
    })
}

fn sensitivity_table(found: &[Sensitivity]) -> String {
    let total: f64 = found
        .iter()
        .filter_map(|pass| pass.quality_loss)
        .map(|loss| loss.estimate())
        .filter(|loss| loss.is_finite())
        .sum();
    let cells = |trade: Option<Trade>| match trade {
        None => ["–", "–", "–"].map(str::to_owned),
        Some(trade) => [
            format!("{} x {}", trade.numerics.left, trade.numerics.right),
            signed(trade.quality_loss),
            signed(trade.cost),
        ],
    };
    let mut sorted: Vec<&Sensitivity> = found.iter().collect();
    let loss_of = |pass: &Sensitivity| pass.quality_loss.map_or(0.0, |loss| loss.estimate());
    sorted.sort_by(|a, b| loss_of(b).total_cmp(&loss_of(a)));
    let rows = sorted.into_iter().map(|pass| {
        let loss = pass.quality_loss.map(|loss| loss.estimate());
        let mut row = vec![
            pass.site.clone(),
            pass.pass.to_string(),
            format!("{} x {}", pass.numerics.left, pass.numerics.right),
            percent(loss),
            percent(loss.map(|loss| if total > 0.0 { loss / total } else { 0.0 })),
        ];
        row.extend(cells(pass.promotion));
        row.push(if pass.pays { "yes" } else { "no" }.to_owned());
        row.extend(cells(pass.demotion));
        row
    });
    let headings = [
        "site",
        "pass",
        "numerics",
        "quality loss",
        "of all",
        "safer",
        "loss",
        "cost",
        "pays",
        "cheaper",
        "loss",
        "cost",
    ];
    terminal::table(&headings, 3, rows.collect())
        + "\nquality loss and loss: shares of a step's progress; cost: of the step's products in f32; pays: demoting \
           another pass would save as much time at a smaller loss\n"
}

/// A change in per cent, with its sign.
fn signed(change: f64) -> String {
    let sign = if change < 0.0 { "−" } else { "+" };
    format!("{sign}{}", percent(Some(change.abs())))
}
