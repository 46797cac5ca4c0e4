//! Training runs whose steps cannot succeed: they stop, say why, and lose nothing.

use std::path::Path;

use serde_json::Value;

use crate::train::{configuration, events};
use crate::{Folder, Outcome, mantissa};

/// What the process says when it stopped because of skipped steps.
const STOPPED: Option<i32> = Some(3);

fn train(folder: &Folder, out: &str, options: &[&str]) -> Outcome {
    let config = configuration(folder, "hidden-markov");
    let run = folder.path(out);
    let fixed = ["train", "--config", &config, "--out", run.to_str().unwrap()];
    mantissa([&fixed[..], options].concat())
}

fn resume(run: &Path) -> Outcome {
    mantissa([
        "train",
        "--resume",
        "--json",
        "--out",
        run.to_str().unwrap(),
    ])
}

fn checkpoints(run: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(run.join("checkpoints"));
    let mut names: Vec<String> = entries
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_scale_that_overflows_every_gradient_stops_the_run_with_a_diagnosis() {
    let folder = Folder::new();
    let options = [
        "--recipe",
        "fp16",
        "--loss-scaling",
        "1e30",
        "--max-skips",
        "4",
    ];
    let plain = train(&folder, "plain", &options);
    assert_eq!((plain.code, plain.stdout.as_str()), (STOPPED, ""));
    let last = plain.stderr.lines().last().unwrap();
    for part in [
        "error: training stopped at step 4: 4 steps in a row skipped",
        "loss scale 1e30",
        "operand grad of head",
        "begin with a lower one",
        "the state is saved in",
    ] {
        assert!(last.contains(part), "{part} in {last}");
    }
    assert_eq!(
        plain
            .stderr
            .lines()
            .filter(|line| line.contains(" skipped: "))
            .count(),
        4
    );

    let run = folder.path("json");
    let json = train(&folder, "json", &[&options[..], &["--json"]].concat());
    assert_eq!(json.code, STOPPED);
    let events = events(&json.stdout);
    let (stopped, steps) = events.split_last().unwrap();
    let (memory, steps) = steps.split_first().unwrap();
    assert_eq!(memory["event"], "memory");
    assert_eq!(steps.len(), 4);
    for (index, step) in steps.iter().enumerate() {
        assert_eq!(
            (&step["event"], &step["skipped"]),
            (&"step".into(), &true.into())
        );
        let skip = &step["skip"];
        assert_eq!(skip["verdict"], "kept");
        assert_eq!(skip["skips_in_a_row"], index + 1);
        assert_eq!(
            (&skip["first"]["site"], &skip["first"]["operand"]),
            (&"head".into(), &"grad".into())
        );
        let gradient = &skip["gradients"][0];
        assert!(gradient["count"].as_u64() <= gradient["elements"].as_u64());
        assert!(gradient["parameter"].is_string() && gradient["amax"].is_number());
    }
    assert_eq!(
        (&stopped["event"], &stopped["step"]),
        (&"stopped".into(), &4.into())
    );
    assert_eq!(stopped["skips_in_a_row"], 4);
    let saved = stopped["checkpoint"].as_str().unwrap();
    assert!(saved.ends_with("step-00000004"), "{saved}");

    // The checkpoint is whole, the count goes on, and more patience is given by the configuration.
    let again = resume(&run);
    assert_eq!(again.code, STOPPED);
    let path = run.join("config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("max_skips = 4", "max_skips = 1000")).unwrap();
    let outcome = resume(&run);
    assert!(outcome.success, "{}", outcome.stderr);
    let log = std::fs::read_to_string(run.join("log.jsonl")).unwrap();
    let counts: Vec<Value> = crate::train::events(&log)
        .iter()
        .map(|step| step["skip"]["skips_in_a_row"].clone())
        .collect();
    assert_eq!(counts, (1..=14).map(Value::from).collect::<Vec<_>>());
}

#[test]
fn a_scaler_that_gives_up_at_its_smallest_scale_stops_the_run() {
    let folder = Folder::new();
    let recipe = folder.write(
        "mine.toml",
        b"schema = 1\nname = \"mine\"\nloss_scaling = { preset = \"deepspeed\", init_scale = 4e30, min_scale = 2e30 }\n\
          [[rules]]\nsites = \"*\"\nlhs = \"fp16\"\nrhs = \"fp16\"\ngrad = \"fp16\"\n",
    );
    let outcome = train(
        &folder,
        "run",
        &["--recipe", recipe.to_str().unwrap(), "--json"],
    );
    assert_eq!(outcome.code, STOPPED, "{}", outcome.stderr);
    // One overflow is tolerated, the second halves the scale, the third finds it at its smallest.
    let verdicts: Vec<Value> = events(&outcome.stdout)
        .iter()
        .filter(|event| event["event"] != "memory")
        .map(|event| {
            let skip = event.get("skip").unwrap_or(event);
            skip["verdict"].clone()
        })
        .collect();
    assert_eq!(verdicts, ["kept", "lowered", "at_minimum", "at_minimum"]);
    assert_eq!(checkpoints(&folder.path("run")), ["step-00000003"]);
}

#[test]
fn weights_that_are_not_finite_are_never_saved() {
    let folder = Folder::new();
    // The first update makes every weight infinite, and the next step is a checkpoint's turn.
    let options = ["--learning-rate", "1e300", "--max-skips", "5", "--json"];
    let outcome = train(&folder, "run", &options);
    assert_eq!(outcome.code, STOPPED, "{}", outcome.stderr);
    let events = events(&outcome.stdout);
    let stopped = events.last().unwrap();
    assert_eq!(stopped["verdict"], "broken_weights");
    assert_eq!(stopped["checkpoint"], Value::Null);
    assert!(!stopped["weights"].as_array().unwrap().is_empty());
    assert!(
        outcome
            .stderr
            .contains("warning: no checkpoint at step 3: the weights are not finite")
    );
    assert!(
        outcome.stderr.contains("no checkpoint was written"),
        "{}",
        outcome.stderr
    );
    assert!(checkpoints(&folder.path("run")).is_empty());
}

#[test]
fn contradictions_are_warned_of_and_senseless_settings_refused() {
    let folder = Folder::new();
    let outcome = train(
        &folder,
        "run",
        &["--recipe", "fp16", "--loss-scaling", "none", "--json"],
    );
    assert!(outcome.success, "{}", outcome.stderr);
    let events = events(&outcome.stdout);
    assert_eq!(events[0]["event"], "warning");
    assert!(
        events[0]["message"]
            .as_str()
            .unwrap()
            .contains("fp16 without a scale")
    );
    let plan = std::fs::read_to_string(folder.path("run").join("plan.toml")).unwrap();
    assert!(plan.contains("loss_scaling = \"none\""));

    let none = folder.path("none");
    let out = none.to_str().unwrap();
    let unknown = mantissa(["train", "--out", out, "--loss-scaling", "torch-apm"]);
    assert_eq!(unknown.code, Some(2));
    assert!(
        unknown.stderr.contains("did you mean `torch-amp`?"),
        "{}",
        unknown.stderr
    );
    let config = |text: &str| {
        let path = folder.write("bad.toml", text.as_bytes());
        mantissa(["train", "--out", out, "--config", path.to_str().unwrap()])
    };
    config("[numerics]\nloss_scaling = \"apx\"\n").fails_naming(&["bad.toml", "line 2", "`apex`"]);
    config("[numerics.loss_scaling]\npreset = \"apex\"\nmin_scale = 8.0\nmax_scale = 4.0\n")
        .fails_naming(&["bad.toml", "min_scale 8 is above max_scale 4"]);
    config("[training]\nmax_skips = 0\n").fails_naming(&["max_skips must be at least 1"]);
    assert!(!none.exists());
}
