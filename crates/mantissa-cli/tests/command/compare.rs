//! The same training in several ways, from several seeds.

use std::fs;

use serde_json::Value;

use crate::{Folder, mantissa};

const STUDY: &str = "schema = 1\nseeds = [4, 5]\n\
    [run.data]\nevaluation_batches = 1\n[run.model]\nseq_len = 16\nd_model = 32\nd_ff = 64\nn_layers = 1\n\
    [run.training]\nsteps = 8\nbatch_size = 8\n[run.checkpoints]\nevery = 3\n\
    [[rows]]\nname = \"fp32\"\n[[rows]]\nname = \"fp32 again\"\n\
    [[rows]]\nname = \"e5m2, unscaled\"\nrun.numerics.recipe = \"e5m2-unscaled\"\n";

#[test]
fn rows_are_compared_seed_by_seed() {
    let folder = Folder::new();
    let study = folder.write("study.toml", STUDY.as_bytes());
    let out = folder.path("out");
    let arguments = [
        "compare",
        study.to_str().unwrap(),
        "--json",
        "--out",
        out.to_str().unwrap(),
    ];
    let outcome = mantissa(arguments);
    let found = outcome.json();
    assert_eq!(found["rows"].as_array().unwrap().len(), 3);
    let [fp32, again, e5m2] = [0, 1, 2].map(|row| &found["rows"][row]);
    assert_eq!(fp32["final_loss"], again["final_loss"]);
    assert_eq!(again["difference"]["mean"], 0.0);
    assert_eq!(again["difference"]["deviation"], 0.0);
    assert_ne!(e5m2["difference"]["mean"], 0.0);
    assert_ne!(fp32["runs"][0]["final_loss"], fp32["runs"][1]["final_loss"]);
    assert!(
        fp32["curve"][0]["mean"].as_f64() > fp32["curve"][4]["mean"].as_f64(),
        "{fp32}"
    );

    // An interrupted run goes on, and a finished one is not trained again.
    let run = out.join("e5m2-unscaled/seed-5");
    fs::remove_file(run.join("result.json")).unwrap();
    let kept = fs::metadata(out.join("fp32/seed-4/log.jsonl"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(untimed(mantissa(arguments).json()), untimed(found));
    assert_eq!(
        fs::metadata(out.join("fp32/seed-4/log.jsonl"))
            .unwrap()
            .modified()
            .unwrap(),
        kept
    );

    let table = mantissa([&arguments[..2], &arguments[3..]].concat());
    assert!(
        table.stdout.contains("e5m2, unscaled") && table.stdout.contains("±"),
        "{}",
        table.stdout
    );

    // Options hold for every row; a recipe file is looked for beside the study.
    folder.write(
        "mine.toml",
        b"schema = 1\nname = \"mine\"\n[[rules]]\nsites = \"*\"\nlhs = \"int4\"\n",
    );
    let mine = folder.write(
        "mine-study.toml",
        STUDY.replace("e5m2-unscaled", "mine.toml").as_bytes(),
    );
    let out = folder.path("mine");
    let mine = [
        "compare",
        mine.to_str().unwrap(),
        "--json",
        "--steps",
        "2",
        "--out",
        out.to_str().unwrap(),
    ];
    let found = mantissa(mine).json();
    assert_ne!(found["rows"][2]["difference"]["mean"], 0.0);
    let log = fs::read_to_string(out.join("fp32/seed-4/log.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 2);

    let other = STUDY.replace("steps = 8", "steps = 9");
    folder.write("study.toml", other.as_bytes());
    mantissa(arguments).fails_naming(&["other settings", "--out"]);
    folder.write(
        "study.toml",
        b"schema = 1\n[[rows]]\nname = \"x\"\nrun.training.stepz = 3\n",
    );
    mantissa(arguments).fails_naming(&["study.toml", "row `x`", "stepz"]);
}

/// Without the times of steps.
fn untimed(mut found: Value) -> Value {
    for row in found["rows"].as_array_mut().unwrap() {
        row["step_time"].take();
        for run in row["runs"].as_array_mut().unwrap() {
            assert!(run["step_seconds"].take().as_f64() > Some(0.0));
        }
    }
    found
}

#[test]
fn a_profile_predicts_rows_and_chooses_plans() {
    let folder = Folder::new();
    let shared = STUDY.split_once("[[rows]]").unwrap().0;
    let chosen = "[[rows]]\nname = \"chosen\"\npolicy = { budget = 1e-3, target = \"h100\" }\n\
        run.numerics.loss_scaling = \"dynamic\"\n";
    let rows = "[[rows]]\nname = \"fp32\"\n[[rows]]\nname = \"coarse\"\n\
        run.numerics.rules = [{ sites = \"*\", lhs = \"int4/tensor\", grad = \"int4/tensor\" }]\n";
    let study = folder.write("study.toml", format!("{shared}{rows}{chosen}").as_bytes());
    let profile = folder.path("profiles/of-fp32.safetensors");
    let [study, profile, out] =
        [study, profile, folder.path("out")].map(|path| path.to_str().unwrap().to_owned());
    let arguments = ["compare", &study, "--out", &out, "--profile", &profile];
    let found = mantissa([&arguments[..], &["--json"]].concat()).json();
    let [fp32, coarse, plan] = [0, 1, 2].map(|row| &found["rows"][row]["prediction"]);
    let loss = |row: &Value| row["quality_loss"]["estimate"].as_f64().unwrap();
    assert_eq!((loss(fp32), &fp32["cost"]["h100"]), (0.0, &1.0.into()));
    assert!(loss(coarse) > 0.05, "{coarse}");
    assert!(
        plan["quality_loss"]["high"].as_f64() <= Some(1e-3) && loss(plan) > 0.0,
        "{plan}"
    );
    assert!(plan["cost"]["h100"].as_f64() < Some(0.5), "{plan}");
    assert!(plan["beaten_by"].is_array() && coarse.get("beaten_by").is_none());
    assert!(found["agreement"]["pairs_apart"].is_u64(), "{found}");
    let checked = mantissa([
        "check",
        &format!("{out}/chosen/seed-4/plan.toml"),
        "--against",
        &profile,
        "--json",
    ])
    .json();
    assert_eq!(checked["quality_loss"], plan["quality_loss"]);
    let table = mantissa(arguments).stdout;
    assert!(table.contains("cost, h100") && table.contains("Rank correlation"));
    let shown = mantissa(["profile", "show", &profile, "--json"]).json();
    assert!(shown.to_string().contains("head"), "{shown}");

    // Of another plan the folder holds no run.
    let other = chosen.replace("1e-3, target = \"h100\"", "0.3, target = \"cpu-vnni\"");
    let other = format!("{shared}{rows}{other}");
    folder.write("study.toml", other.as_bytes());
    mantissa(arguments).fails_naming(&["another plan", "--out"]);
    mantissa(&arguments[..4]).fails_naming(&["row `chosen`", "--profile"]);
    folder.write("study.toml", format!("{shared}{chosen}").as_bytes());
    mantissa(arguments).fails_naming(&["the first row, `chosen`"]);
    let deeper = format!("{shared}{rows}").replace("n_layers = 1", "n_layers = 2");
    folder.write("study.toml", deeper.as_bytes());
    mantissa(arguments).fails_naming(&["layers.1"]);
}
