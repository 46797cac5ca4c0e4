//! Optimizer states in few bits: `train --states`, parameter groups, and what checkpoints keep of them.

use std::fs;

use crate::train::{configuration, events, logged};
use crate::{Folder, mantissa};

/// The small configuration, with states in few bits for nearly all parameters.
fn grouped(folder: &Folder, group: &str) -> String {
    let path = configuration(folder, "hidden-markov");
    let text = fs::read_to_string(&path).unwrap()
        + "[parameters]\nexempt_below = 100\n[[parameters.groups]]\n"
        + group;
    folder
        .write("grouped.toml", text.as_bytes())
        .display()
        .to_string()
}

#[test]
fn a_run_resumes_from_states_in_few_bits_as_if_it_had_not_stopped() {
    let folder = Folder::new();
    let config = grouped(
        &folder,
        "parameters = \"*embedding*\"\nstates = \"fp32\"\nweight_decay = 0.0\n",
    );
    let mut runs = Vec::new();
    for states in [
        "dynamic8",
        "e4m3/block128/expanded/stochastic,bf16/stochastic",
    ] {
        let run = folder.path(&states.replace('/', "-"));
        let out = run.to_str().unwrap();
        let outcome = mantissa([
            "train", "--config", &config, "--states", states, "--out", out,
        ]);
        assert!(outcome.success, "{}", outcome.stderr);
        let whole = logged(&run);
        // Back to the checkpoint of step 12.
        fs::remove_dir_all(run.join("checkpoints/step-00000014")).unwrap();
        let outcome = mantissa(["train", "--resume", "--out", out]);
        assert!(outcome.success, "{}", outcome.stderr);
        assert_eq!(logged(&run), whole, "{states}");
        runs.push(whole);
    }
    let plain = folder.path("plain");
    let out = plain.to_str().unwrap();
    let outcome = mantissa(["train", "--config", &config, "--out", out]);
    assert!(outcome.success, "{}", outcome.stderr);
    runs.push(logged(&plain));
    // The states are there: every run is another, from the second update on.
    assert_eq!(runs[0][0], runs[2][0]);
    assert!(runs[0] != runs[1] && runs[1] != runs[2] && runs[0] != runs[2]);
}

#[test]
fn another_plan_has_the_states_rounded_to_its_formats() {
    let folder = Folder::new();
    let config = configuration(&folder, "hidden-markov");
    let run = folder.path("run");
    let out = run.to_str().unwrap();
    let outcome = mantissa(["train", "--config", &config, "--out", out]);
    assert!(outcome.success, "{}", outcome.stderr);
    fs::remove_dir_all(run.join("checkpoints/step-00000014")).unwrap();
    let change = [
        "train",
        "--resume",
        "--change-plan",
        "fp8-lm-o2",
        "--json",
        "--out",
        out,
    ];
    let outcome = mantissa(change);
    assert!(outcome.success, "{}", outcome.stderr);
    let events = events(&outcome.stdout);
    let changed = events.iter().find(|event| event["event"] == "plan_changed");
    assert_eq!(changed.expect("an event")["states"], true);
    let plan = fs::read_to_string(run.join("plan.toml")).unwrap();
    assert!(
        plan.contains("states = \"e4m3/tensor,fp16/tensor\""),
        "{plan}"
    );
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let folder = Folder::new();
    let out = folder.path("run").display().to_string();
    let config = grouped(&folder, "parameters = \"embeding*\"\nstates = \"fp32\"\n");
    mantissa(["train", "--config", &config, "--out", &out]).fails_naming(&[
        "parameter group 1",
        "embeding*",
        "did you mean",
    ]);
    let config = grouped(
        &folder,
        "parameters = \"*\"\nstates = \"dynamic8/tensor\"\n",
    );
    mantissa(["train", "--config", &config, "--out", &out]).fails_naming(&[
        "grouped.toml",
        "dynamic8/tensor",
        "a scale for each block",
    ]);
    let outcome = mantissa(["train", "--states", "dynamic9", "--out", &out]);
    assert!(
        !outcome.success && outcome.stderr.contains("dynamic9"),
        "{}",
        outcome.stderr
    );
    assert!(!folder.path("run").exists());
}

#[test]
fn formats_of_states_are_listed_with_their_bytes() {
    let listed = mantissa(["formats", "--states", "--json"]).json();
    let listed = listed["states"].as_array().unwrap();
    let of = |format: &str| listed.iter().find(|line| line["format"] == format).unwrap();
    assert_eq!(of("fp32")["bytes_per_element"], 4.0);
    assert_eq!(
        of("dynamic8/block256")["bytes_per_element"],
        1.0 + 4.0 / 256.0
    );
    assert_eq!(
        of("dynamic4/block128")["bytes_per_element"],
        0.5 + 4.0 / 128.0
    );
    let table = mantissa(["formats", "--states"]).stdout;
    assert!(table.contains("e4m3/block128/expanded"), "{table}");
}
