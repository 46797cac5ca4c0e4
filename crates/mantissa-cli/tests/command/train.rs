//! Training runs: the same numbers on any number of threads, and after any interruption.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{Folder, mantissa};

const STEPS: &str = "14";

/// Text with enough structure to tokenize and enough of it to split.
fn text(folder: &Folder) -> String {
    let words = [
        "the", "cat", "sat", "on", "a", "mat", "and", "dog", "ran", "far",
    ];
    let text: String = (0..4000_usize)
        .map(|i| {
            words[(i * i + i / 7) % words.len()].to_owned() + if i % 11 == 10 { ".\n" } else { " " }
        })
        .collect();
    folder
        .write("book.txt", text.as_bytes())
        .display()
        .to_string()
}

/// A small configuration with dropout, so that its random bits are under test too.
pub fn configuration(folder: &Folder, source: &str) -> String {
    let text = format!(
        "[data]\nsource = \"{source}\"\nvocab_size = 300\nevaluation_batches = 1\n\
         [model]\nseq_len = 16\nd_model = 32\nd_ff = 64\nn_layers = 1\ndropout = 0.1\n\
         [training]\nsteps = {STEPS}\nbatch_size = 8\n[checkpoints]\nevery = 3\n"
    );
    folder
        .write("run.toml", text.as_bytes())
        .display()
        .to_string()
}

pub fn events(stdout: &str) -> Vec<Value> {
    stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The losses that a run logged, as written: equal text is equal bits.
fn losses(events: &[Value]) -> Vec<String> {
    let steps = events.iter().filter(|event| event["event"] == "step");
    steps.map(|event| event["loss"].to_string()).collect()
}

pub fn logged(run: &Path) -> Vec<String> {
    let log = std::fs::read_to_string(run.join("log.jsonl")).unwrap();
    events(&log)
        .iter()
        .map(|event| event["loss"].to_string())
        .collect()
}

#[test]
fn losses_are_the_same_on_any_number_of_threads() {
    let folder = Folder::new();
    let config = configuration(&folder, "hidden-markov");
    for recipe in [
        "fp32",
        "bf16",
        "fp16",
        "fp8-hybrid",
        "int8",
        "int8-tensor",
        "micikevicius",
        "mellempudi",
        "fp8-delayed",
        "fp8-rowwise",
        "fp8-block",
        "mxfp4-weights",
        "nvfp4",
        "e5m2-unscaled",
    ] {
        let run = |threads: &str| {
            let out = folder.path(&format!("{recipe}-{threads}"));
            let outcome = mantissa([
                "train",
                "--config",
                &config,
                "--recipe",
                recipe,
                "--json",
                "--threads",
                threads,
                "--out",
                out.to_str().unwrap(),
            ]);
            assert!(outcome.success, "{}", outcome.stderr);
            let lines = outcome
                .stdout
                .lines()
                .filter(|line| !line.contains("memory"));
            let lines: Vec<&str> = lines.collect();
            lines.join("\n").replace(out.to_str().unwrap(), "")
        };
        let one = run("1");
        assert_eq!(losses(&events(&one)).len().to_string(), STEPS);
        assert_eq!(run("2"), one, "{recipe}");
        assert_eq!(run("3"), one, "{recipe}");
    }
}

#[test]
fn a_run_that_was_killed_resumes_as_if_it_had_not_been() {
    let folder = Folder::new();
    let config = configuration(&folder, &format!("text:{}", text(&folder)));
    let arguments = |out: &str| {
        [
            "train",
            "--config",
            &config,
            "--recipe",
            "int8",
            "--json",
            "--out",
            out,
            "--profile",
            "2",
        ]
        .map(str::to_owned)
    };
    let profile = |run: &Path| std::fs::read(run.join("profile.safetensors")).unwrap();
    let whole = folder.path("whole");
    let outcome = mantissa(arguments(whole.to_str().unwrap()));
    let expected = losses(&events(&outcome.stdout));
    assert!(outcome.success, "{}", outcome.stderr);
    assert_eq!(logged(&whole), expected);

    // Killed before the first checkpoint, between two, and twice in a row.
    for kills in [vec![2], vec![5], vec![4, 10]] {
        let out = folder.path(&format!("killed{kills:?}"));
        let out = out.to_str().unwrap();
        for (attempt, steps) in kills.into_iter().enumerate() {
            let mut command = Command::new(env!("CARGO_BIN_EXE_mantissa"));
            if attempt == 0 {
                command.args(arguments(out));
            } else {
                command.args(["train", "--resume", "--json", "--out", out]);
            }
            let mut child = command
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            for line in lines {
                let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
                if event["step"].as_u64() >= Some(steps) {
                    break;
                }
            }
            // On Unix this is SIGKILL.
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let outcome = mantissa(["train", "--resume", "--json", "--out", out]);
        assert!(outcome.success, "{}", outcome.stderr);
        assert_eq!(logged(Path::new(out)), expected);
        // Every step was measured once, whatever was taken twice.
        assert!(profile(Path::new(out)) == profile(&whole));
    }
}

#[test]
fn a_finished_run_ends_with_a_summary_and_can_be_resumed_for_nothing() {
    let folder = Folder::new();
    let config = configuration(&folder, "hidden-markov");
    let out = folder.path("run");
    let out = out.to_str().unwrap();
    let first = mantissa(["train", "--config", &config, "--json", "--out", out]);
    let events_of_first = events(&first.stdout);
    let summary = events_of_first.last().unwrap();
    assert_eq!(summary["event"], "summary");
    assert_eq!(summary["steps"].to_string(), STEPS);
    assert!(summary["loss_floor"].as_f64() < summary["final_loss"].as_f64());
    assert_eq!(summary["skipped_steps"], 0);
    let again = mantissa(["train", "--resume", "--json", "--out", out]);
    let events_of_second = events(&again.stdout);
    assert_eq!(events_of_second.last().unwrap(), summary);
    assert_eq!(losses(&events_of_second).len(), 0);
}

#[test]
fn profile_plan_explain_and_train_follow_each_other() {
    let folder = Folder::new();
    let config = configuration(&folder, "hidden-markov");
    let [profile, plan, out] = ["profile.safetensors", "plan.toml", "run"]
        .map(|name| folder.path(name).display().to_string());
    let done = |arguments: &[&str]| {
        let outcome = mantissa(arguments);
        assert!(outcome.success, "{arguments:?}: {}", outcome.stderr);
        outcome.stdout
    };
    done(&[
        "profile", "--config", &config, "--every", "4", "-o", &profile,
    ]);
    let table = done(&["plan", &profile, "-o", &plan]);
    assert!(table.contains("encoder.layers.0.mha.scores"), "{table}");
    let text = done(&["plan", &plan, "--explain", "head"]);
    assert!(
        text.contains("head") && text.contains("backward error"),
        "{text}"
    );
    done(&["train", "--config", &config, "--plan", &plan, "--out", &out]);

    mantissa(["plan", &plan, "--explain", "encoder.layers.0.mha.quary"])
        .fails_naming(&["quary", "encoder.layers.0.mha.query"]);
    mantissa(["plan", &profile, "-o", &plan]).fails_naming(&["exists", "--force"]);
}

#[test]
fn what_cannot_be_trained_leaves_no_folder_behind() {
    let folder = Folder::new();
    let empty = folder.write("empty.txt", b"").display().to_string();
    let binary = folder
        .write("binary.txt", b"abc\xff\xfe")
        .display()
        .to_string();
    let short = folder
        .write("short.txt", b"two words")
        .display()
        .to_string();
    let book = text(&folder);
    let out = folder.path("run").display().to_string();
    let train = |options: &[&str]| mantissa([&["train", "--out", &out], options].concat());
    let data = |path: &str| format!("text:{path}");
    train(&["--data", &data(&empty)]).fails_naming(&["empty.txt", "empty"]);
    train(&["--data", &data(&binary)]).fails_naming(&["binary.txt", "UTF-8"]);
    train(&["--data", &data(&short)]).fails_naming(&["short.txt"]);
    train(&["--data", "text:/nowhere.txt"]).fails_naming(&["/nowhere.txt"]);
    train(&["--data", &data(&book), "--recipe", "fp9"]).fails_naming(&["fp9"]);
    let recipe = folder.write(
        "mine.toml",
        b"schema = 1\nname = \"mine\"\n[[rules]]\nsites = \"decoder.*\"\nlhs = \"int8\"\n",
    );
    train(&["--recipe", recipe.to_str().unwrap()]).fails_naming(&["decoder.*"]);
    let broken = folder.write("plan.toml", b"schema = 1\nsites = [");
    train(&["--plan", broken.to_str().unwrap()]).fails_naming(&["plan.toml"]);
    train(&["--resume"]).fails_naming(&["run", "config.toml"]);
    assert!(!folder.path("run").exists());

    let config = folder.write("run.toml", b"[training]\nstepz = 3\n");
    train(&["--config", config.to_str().unwrap()]).fails_naming(&["run.toml", "stepz"]);
    folder.write("full", b"");
    mantissa(["train", "--out", folder.path("full").to_str().unwrap()]).fails_naming(&["full"]);
    let taken = folder.path("taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("letter.txt"), "mine").unwrap();
    mantissa(["train", "--out", taken.to_str().unwrap()]).fails_naming(&["taken", "not empty"]);
}

#[test]
fn a_checkpoint_of_another_model_is_refused() {
    let folder = Folder::new();
    let config = configuration(&folder, "hidden-markov");
    let out = folder.path("run");
    let run = out.to_str().unwrap();
    assert!(mantissa(["train", "--config", &config, "--out", run]).success);
    let path = out.join("config.toml");
    let edited = std::fs::read_to_string(&path)
        .unwrap()
        .replace("d_ff = 64", "d_ff = 48");
    std::fs::write(&path, edited).unwrap();
    mantissa(["train", "--resume", "--out", run]).fails_naming(&["another model"]);
}

#[cfg(not(feature = "mpi"))]
#[test]
fn several_processes_without_mpi_are_refused() {
    let folder = Folder::new();
    let out = folder.path("run");
    let output = Command::new(env!("CARGO_BIN_EXE_mantissa"))
        .args(["train", "--steps", "1", "--out", out.to_str().unwrap()])
        .env("OMPI_COMM_WORLD_SIZE", "2")
        .output()
        .unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("2 processes") && error.contains("--features mpi"),
        "{error}"
    );
    assert!(!out.exists());
}
