//! Damaged checkpoints, changed plans, and weights for other programs.

use std::fs;
use std::path::Path;

use mantissa::plan::{LossScaling, Recipe};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::train::{configuration, events, logged};
use crate::{Folder, Outcome, mantissa};

fn resume(run: &Path, more: &[&str]) -> Outcome {
    let run = run.to_str().unwrap();
    mantissa([&["train", "--resume", "--json", "--out", run], more].concat())
}

fn started(folder: &Folder, name: &str) -> std::path::PathBuf {
    let config = configuration(folder, "hidden-markov");
    let run = folder.path(name);
    let out = run.to_str().unwrap();
    let outcome = mantissa([
        "train",
        "--config",
        &config,
        "--recipe",
        "fp8-delayed",
        "--out",
        out,
    ]);
    assert!(outcome.success, "{}", outcome.stderr);
    run
}

/// Flips a bit in the middle of a file.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_set_aside_for_the_one_before() {
    let folder = Folder::new();
    let run = started(&folder, "run");
    let read = |name: &str| fs::read_to_string(run.join(name)).unwrap();
    let (log, summary) = (read("log.jsonl"), read("summary.json"));

    // The run keeps its last two checkpoints, of steps 12 and 14.
    let newest = run.join("checkpoints/step-00000014");
    flip(&newest.join("model.bpk"));
    let outcome = resume(&run, &[]);
    assert!(outcome.success, "{}", outcome.stderr);
    let warning = &events(&outcome.stdout)[0];
    assert_eq!(warning["event"], "warning");
    let message = warning["message"].as_str().unwrap();
    for part in [
        "model.bpk",
        "checksum",
        "damaged-step-00000014",
        "from step 12",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(run.join("checkpoints/damaged-step-00000014").exists());
    assert_eq!((read("log.jsonl"), read("summary.json")), (log, summary));

    for step in ["12", "14"] {
        let manifest = run.join(format!("checkpoints/step-000000{step}/checkpoint.json"));
        let bytes = fs::read(&manifest).unwrap();
        fs::write(&manifest, &bytes[..bytes.len() / 2]).unwrap();
    }
    resume(&run, &[]).fails_naming(&["step-00000014", "checkpoint.json", "no checkpoint before"]);
    assert!(newest.exists(), "nothing is moved where nothing is read");
}

#[test]
fn a_plan_changes_when_asked_for_and_leaves_a_record() {
    let folder = Folder::new();
    let run = started(&folder, "run");
    flip(&run.join("checkpoints/step-00000014/checkpoint.json"));
    let outcome = resume(&run, &["--change-plan", "fp16"]);
    assert!(outcome.success, "{}", outcome.stderr);
    let events = events(&outcome.stdout);
    let change = events.iter().find(|event| event["event"] == "plan_changed");
    let change = change.expect("an event");
    assert_eq!(change["step"], 12);
    assert_eq!(
        (&change["from"], &change["to"]),
        (&"recipe fp8-delayed".into(), &"recipe fp16".into())
    );
    assert_eq!(change["loss_scaling"], true);
    assert!(change["sites"].as_array().unwrap().len() > 5, "{change}");
    let step = events
        .iter()
        .find(|event| event["event"] == "step")
        .unwrap();
    assert_eq!(
        (&step["step"], &step["loss_scale"]),
        (&12.into(), &65536.0.into())
    );

    let recorded: Value = serde_json::from_str(
        fs::read_to_string(run.join("decisions.jsonl"))
            .unwrap()
            .trim(),
    )
    .unwrap();
    assert_eq!(recorded["kind"], "plan_changed");
    assert_eq!(recorded["sites"], change["sites"]);
    let reason = recorded["reason"].as_str().unwrap();
    assert!(
        reason.contains("from recipe fp16, not from recipe fp8-delayed"),
        "{reason}"
    );
    let plan = fs::read_to_string(run.join("plan.toml")).unwrap();
    assert!(plan.contains("fp16") && !plan.contains("e4m3"), "{plan}");
    // The change stays, and the same plan is none.
    let again = resume(&run, &["--change-plan", "fp16"]);
    assert!(
        again.success && !again.stdout.contains("plan_changed"),
        "{}",
        again.stdout
    );
    resume(&run, &["--change-plan", "fp9"]).fails_naming(&["fp9", "fp8"]);
    let alone = mantissa(["train", "--change-plan", "bf16", "--out", "x"]);
    assert!(
        !alone.success && alone.stderr.contains("--resume"),
        "{}",
        alone.stderr
    );
}

#[test]
fn exported_weights_have_the_layout_of_their_reader() {
    let folder = Folder::new();
    let run = started(&folder, "run");
    let export = |layout: &str| {
        let file = folder.path(&format!("{layout}.safetensors"));
        let outcome = mantissa([
            "export",
            run.to_str().unwrap(),
            "--layout",
            layout,
            "-o",
            file.to_str().unwrap(),
        ]);
        assert!(outcome.success, "{}", outcome.stderr);
        fs::read(file).unwrap()
    };
    let (pytorch, burn) = (export("pytorch"), export("burn"));
    let [pytorch, burn] = [&pytorch, &burn].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
    let elements = |file: &SafeTensors, name: &str| -> (Vec<usize>, Vec<f32>) {
        let tensor = file.tensor(name).unwrap();
        let (chunks, _) = tensor.data().as_chunks::<4>();
        (
            tensor.shape().to_vec(),
            chunks.iter().map(|&x| f32::from_le_bytes(x)).collect(),
        )
    };
    let inner = "encoder.layers.0.pwff.linear_inner.weight";
    let (shape, ours) = elements(&burn, inner);
    let (their_shape, theirs) = elements(&pytorch, inner);
    assert_eq!((shape, their_shape), (vec![32, 64], vec![64, 32]));
    for row in 0..32 {
        for column in 0..64 {
            assert_eq!(ours[row * 64 + column], theirs[column * 32 + row]);
        }
    }
    assert_eq!(
        elements(&burn, "output_norm.gamma"),
        elements(&pytorch, "output_norm.weight")
    );
    assert_eq!(burn.len(), pytorch.len());

    let file = folder.path("pytorch.safetensors");
    let [run, file] = [&run, &file].map(|path| path.to_str().unwrap());
    mantissa(["export", run, "-o", file]).fails_naming(&["exists", "--force"]);
    mantissa(["export", run, "-o", file, "--force", "--step", "3"])
        .fails_naming(&["no checkpoint of step 3", "step-00000012, step-00000014"]);
}

/// Every recipe and loss scaling goes on from a checkpoint with the bits of a run that was not stopped, on any number of
/// threads.
#[test]
fn everything_that_a_run_can_be_resumes() {
    let folder = Folder::new();
    let config = configuration(&folder, "hidden-markov");
    let recipes = Recipe::preset_names().map(|recipe| ["--recipe", recipe, "--max-skips", "100"]);
    let scalings =
        LossScaling::presets().map(|(scaling, _)| ["--recipe", "fp16", "--loss-scaling", scaling]);
    for (number, options) in recipes.chain(scalings).enumerate() {
        let out = folder.path(&number.to_string());
        let train = |more: &[&str]| {
            let out = ["train", "--json", "--out", out.to_str().unwrap()];
            let outcome = mantissa([&out[..], more].concat());
            assert!(outcome.success, "{options:?}: {}", outcome.stderr);
            outcome.stdout
        };
        let whole = train(&[&["--config", &config, "--threads", "1"], &options[..]].concat());
        let (log, summary) = (logged(&out), events(&whole).pop());
        // Only the one in the middle is left.
        let checkpoints = out.join("checkpoints");
        fs::remove_dir_all(checkpoints.join("step-00000014")).unwrap();
        assert!(checkpoints.join("step-00000012").exists());
        let rest = train(&["--resume", "--threads", "2"]);
        assert_eq!(logged(&out), log, "{options:?}");
        assert_eq!(events(&rest).pop(), summary, "{options:?}");
    }
}
