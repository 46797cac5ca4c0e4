//! Watched runs: faults that damage a run and do not damage a guarded one, decisions that are logged, and the same
//! decisions after any interruption.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::train::{events, logged};
use crate::{Folder, Outcome, mantissa};

/// A small network that learns the synthetic source in some seconds.
fn configuration(folder: &Folder) -> String {
    let text = "[data]\nsource = \"hidden-markov\"\nevaluation_batches = 2\n\
         [model]\nseq_len = 16\nd_model = 32\nd_ff = 64\nn_layers = 1\n\
         [training]\nsteps = 160\nbatch_size = 16\nlearning_rate = 3e-3\n\
         [numerics]\nrecipe = \"int8\"\n[checkpoints]\nevery = 20\n[guard]\nevery = 10\n";
    let path = folder.write("guard.toml", text.as_bytes());
    path.display().to_string()
}

fn train(folder: &Folder, out: &str, options: &[&str]) -> Outcome {
    let config = configuration(folder);
    let run = folder.path(out);
    let fixed = [
        "train",
        "--json",
        "--config",
        &config,
        "--out",
        run.to_str().unwrap(),
    ];
    mantissa([&fixed[..], options].concat())
}

/// The evaluation loss of a run that ended.
fn final_loss(outcome: &Outcome) -> f64 {
    assert!(outcome.success, "{}", outcome.stderr);
    let summary = events(&outcome.stdout).pop().unwrap();
    assert_eq!(summary["event"], "summary");
    summary["final_loss"].as_f64().unwrap_or(f64::INFINITY)
}

fn decisions(run: &Path) -> Vec<Value> {
    events(&fs::read_to_string(run.join("decisions.jsonl")).unwrap())
}

/// The decisions of a guarded run under a fault that damages an unguarded one, and both losses over that of a run without.
fn rehearsed(folder: &Folder, fault: &str) -> (Vec<Value>, f64, f64) {
    let quiet = final_loss(&train(folder, "quiet", &["--no-guard"]));
    let damaged = final_loss(&train(
        folder,
        "damaged",
        &["--no-guard", "--inject", fault],
    ));
    let guarded = train(folder, "guarded", &["--guard", "--inject", fault]);
    let saved = final_loss(&guarded);
    let made = decisions(&folder.path("guarded"));
    let told: Vec<Value> = events(&guarded.stdout)
        .into_iter()
        .filter(|event| event["event"] == "decision")
        .map(|mut event| {
            event.as_object_mut().unwrap().remove("event");
            event
        })
        .collect();
    assert_eq!(told, made);
    assert!(!folder.path("damaged/decisions.jsonl").exists());
    println!("{fault}: quiet {quiet:.4}, damaged {damaged:.4}, guarded {saved:.4}");
    made.iter().for_each(|decision| println!("{decision}"));
    (made, damaged - quiet, saved - quiet)
}

fn of_kind<'a>(made: &'a [Value], kind: &str) -> Vec<&'a Value> {
    made.iter()
        .filter(|decision| decision["kind"] == kind)
        .collect()
}

#[test]
fn an_outlier_feature_is_promoted_out_of_the_way() {
    let folder = Folder::new();
    let (made, damaged, saved) = rehearsed(&folder, "outlier:head:1000@60");
    assert!(damaged > 0.2 && saved < damaged / 4.0, "{damaged}, {saved}");
    assert_eq!(of_kind(&made, "rolled_back").len(), 0);
    // At the first measurement of the outlier, and not before.
    let mut promoted = of_kind(&made, "promoted").into_iter();
    let first =
        promoted.find(|decision| decision["site"] == "head" && decision["pass"] == "forward");
    let first = first.expect("a promotion of the site that has the outlier");
    assert_eq!(
        (&first["step"], &first["metric"]),
        (&60.into(), &"backward error".into())
    );
    assert!(first["value"].as_f64() > first["bound"].as_f64());
    let plan = fs::read_to_string(folder.path("guarded/plan.toml")).unwrap();
    assert!(
        plan.contains(first["to"]["lhs"].as_str().unwrap()),
        "{plan}"
    );
    let measured = fs::read_to_string(folder.path("guarded/measurements.jsonl")).unwrap();
    let measured = events(&measured);
    let of_head = measured
        .iter()
        .filter(|line| line["site"] == "head" && line["pass"] == "forward");
    let used: Vec<f64> = of_head
        .map(|line| {
            line["backward_error_high"].as_f64().unwrap_or(0.0)
                / line["backward_error_bound"].as_f64().unwrap_or(1.0)
        })
        .collect();
    assert!(
        used.iter().any(|&used| used > 4.0) && used.last() < Some(&1.0),
        "{used:?}"
    );
}

#[test]
fn a_layer_that_explodes_is_rolled_back_and_named() {
    let folder = Folder::new();
    let (made, damaged, saved) = rehearsed(&folder, "scale:head:4096@75");
    assert!(damaged > 100.0 && saved < 0.1, "{damaged}, {saved}");
    let back = of_kind(&made, "rolled_back");
    assert_eq!((back.len(), &back[0]["to_step"]), (1, &60.into()));
    let reason = back[0]["reason"].as_str().unwrap();
    for part in [
        "the loss has been far above its trend for 4 steps",
        "worst by measurement is head (forward): growth of the amax of rhs is 4.",
    ] {
        assert!(reason.contains(part), "{reason}");
    }
    let after = made
        .iter()
        .skip_while(|decision| decision["kind"] != "rolled_back");
    let first = after.into_iter().nth(1).unwrap();
    assert_eq!(
        (&first["kind"], &first["site"]),
        (&"promoted".into(), &"head".into())
    );
}

#[test]
fn a_spike_of_the_learning_rate_is_rolled_back() {
    let folder = Folder::new();
    let (made, damaged, saved) = rehearsed(&folder, "learning-rate:300@75+6");
    assert!(damaged > 0.2 && saved < damaged / 4.0, "{damaged}, {saved}");
    assert_eq!(of_kind(&made, "rolled_back").len(), 1);
    assert_eq!(of_kind(&made, "rolled_back")[0]["to_step"], 60);
}

#[test]
fn a_guarded_run_that_was_killed_resumes_as_if_it_had_not_been() {
    let folder = Folder::new();
    let faults = [
        "--guard",
        "--inject",
        "outlier:head:1000@30",
        "--inject",
        "learning-rate:300@75+6",
    ];
    let whole = train(&folder, "whole", &faults);
    let expected = final_loss(&whole);
    let files = |run: &str| {
        let read = |name: &str| fs::read_to_string(folder.path(run).join(name)).unwrap();
        ["measurements.jsonl", "decisions.jsonl", "plan.toml"].map(read)
    };
    assert!(decisions(&folder.path("whole")).len() > 1);
    // Before anything is decided, after a promotion, in the trouble, after the rollback, and several times.
    for kills in [vec![3], vec![35], vec![77], vec![90], vec![33, 78, 79, 130]] {
        let name = format!("killed{kills:?}");
        let out = folder.path(&name);
        let config = configuration(&folder);
        let out = out.to_str().unwrap();
        for (attempt, at) in kills.into_iter().enumerate() {
            let mut command = Command::new(env!("CARGO_BIN_EXE_mantissa"));
            command.args(["train", "--json", "--out", out]);
            if attempt == 0 {
                command.args(["--config", &config]).args(faults);
            } else {
                command.arg("--resume");
            }
            let mut child = command
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            for line in BufReader::new(child.stdout.take().unwrap()).lines() {
                let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
                if event["event"] == "step" && event["step"].as_u64() >= Some(at) {
                    break;
                }
            }
            // On Unix this is SIGKILL.
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let resumed = mantissa(["train", "--resume", "--json", "--out", out]);
        assert_eq!(final_loss(&resumed), expected, "{name}");
        assert_eq!(
            logged(Path::new(out)),
            logged(&folder.path("whole")),
            "{name}"
        );
        assert_eq!(files(&name), files("whole"), "{name}");
    }
}

#[test]
fn a_run_that_keeps_diverging_ends_with_a_diagnosis() {
    let folder = Folder::new();
    let options = ["--guard", "--learning-rate", "1e300"];
    let outcome = train(&folder, "run", &options);
    assert_eq!(outcome.code, Some(4), "{}", outcome.stderr);
    let error = outcome.stderr.lines().last().unwrap();
    for part in [
        "the weights are not finite",
        "after 3 rollbacks",
        "decisions.jsonl",
        "step-00000000",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
    let stopped = events(&outcome.stdout).pop().unwrap();
    assert_eq!(stopped["event"], "stopped");
    assert!(
        stopped["checkpoint"]
            .as_str()
            .unwrap()
            .ends_with("step-00000000")
    );
    assert_eq!(
        of_kind(&decisions(&folder.path("run")), "rolled_back").len(),
        3
    );
}

#[test]
fn a_guard_that_decides_nothing_changes_nothing() {
    let folder = Folder::new();
    let settings = folder.write("wide.toml", b"");
    let config = fs::read_to_string(configuration(&folder)).unwrap();
    let wide = config + "tolerance = 1e6\nfar_out = 1e6\nspike = 1e6\n";
    fs::write(&settings, wide.replace("steps = 160", "steps = 40")).unwrap();
    let run = |guard: &str| {
        let out = folder.path(guard);
        let settings = settings.to_str().unwrap();
        let outcome = mantissa([
            "train",
            "--json",
            "--config",
            settings,
            guard,
            "--out",
            out.to_str().unwrap(),
        ]);
        assert!(outcome.success, "{}", outcome.stderr);
        (outcome, logged(&out))
    };
    let ((guarded, with), (unguarded, without)) = (run("--guard"), run("--no-guard"));
    assert_eq!(with, without);
    let count = |outcome: &Outcome, kind: &str| {
        events(&outcome.stdout)
            .iter()
            .filter(|event| event["event"] == kind)
            .count()
    };
    assert_eq!(
        (count(&guarded, "guard"), count(&guarded, "decision")),
        (3, 0)
    );
    assert_eq!(
        (
            count(&unguarded, "guard"),
            count(&unguarded, "guard_summary")
        ),
        (0, 0)
    );
    let told = events(&guarded.stdout);
    let summary = told
        .iter()
        .find(|event| event["event"] == "guard_summary")
        .unwrap();
    assert_eq!(
        (&summary["promotions"], &summary["measured_steps"]),
        (&0.into(), &3.into())
    );
    assert!(summary["overhead"].as_f64() > Some(0.0));
}

#[test]
fn plans_are_guarded_unless_told_otherwise_and_recipes_are_not() {
    let folder = Folder::new();
    let outcome = train(&folder, "recipe", &["--steps", "2"]);
    assert!(
        outcome.success && !outcome.stderr.contains("guard"),
        "{}",
        outcome.stderr
    );
    let plan = folder.path("recipe/plan.toml").display().to_string();
    let outcome = train(&folder, "plan", &["--steps", "2", "--plan", &plan]);
    assert!(
        outcome.stderr.contains("guard   measures every 10 steps"),
        "{}",
        outcome.stderr
    );
    assert!(folder.path("plan/measurements.jsonl").exists());
    let outcome = train(
        &folder,
        "as-is",
        &["--steps", "2", "--plan", &plan, "--no-guard"],
    );
    assert!(
        outcome.success && !outcome.stderr.contains("guard"),
        "{}",
        outcome.stderr
    );

    for (fault, words) in [
        ("outlier:haed:10@3", ["haed", "did you mean `head`"]),
        (
            "scale:encoder.layers.0.mha.scores:10@3",
            ["scores", "no linear layer"],
        ),
    ] {
        let outcome = train(&folder, "wrong", &["--inject", fault]);
        words
            .iter()
            .for_each(|word| assert!(outcome.stderr.contains(word), "{}", outcome.stderr));
        assert!(!folder.path("wrong").exists());
    }
    let outcome = train(&folder, "wrong", &["--inject", "scale:head@3"]);
    assert!(
        outcome.stderr.contains("scale:SITE:FACTOR@STEP"),
        "{}",
        outcome.stderr
    );
    let config = folder.write("bad.toml", b"[guard]\ndwel = 3\n");
    let out = folder.path("wrong").display().to_string();
    mantissa(["train", "--out", &out, "--config", config.to_str().unwrap()])
        .fails_naming(&["dwel", "line 2"]);
}
