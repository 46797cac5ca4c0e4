//! The same training in several ways, from several seeds.

use std::fs;

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
    assert_eq!(mantissa(arguments).json(), found);
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
