//! The command under `mpirun`, as processes: `cargo test --release --workspace --features mpi --test mpi`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A small run with dropout and stochastic rounding, so that their random bits are under test too.
const CONFIGURATION: &str = "[data]\nsource = \"hidden-markov\"\nevaluation_batches = 1\n\
     [model]\nseq_len = 16\nd_model = 32\nd_ff = 64\nn_layers = 1\ndropout = 0.1\n\
     [training]\nsteps = 12\nbatch_size = 6\n\
     [numerics]\nrecipe = \"mellempudi\"\n[checkpoints]\nevery = 4\n";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::write(folder.path("run.toml"), CONFIGURATION).unwrap();
        folder
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

/// `mpirun` with groups of ranks, each its number of processes and its arguments.
fn mpirun(groups: &[(usize, Vec<String>)]) -> Command {
    let mut command = Command::new("mpirun");
    // Containers often have one user and fewer cores than ranks.
    command.args(["--allow-run-as-root", "--oversubscribe"]);
    // And forbid processes to read each other's memory.
    command.args(["--mca", "btl_vader_single_copy_mechanism", "none"]);
    for (place, (ranks, arguments)) in groups.iter().enumerate() {
        if place > 0 {
            command.arg(":");
        }
        command.args(["-n", &ranks.to_string(), env!("CARGO_BIN_EXE_mantissa")]);
        command.args(arguments);
    }
    command
}

fn train(arguments: &[&str]) -> Vec<String> {
    let all = ["train"].iter().chain(arguments);
    all.map(|argument| argument.to_string()).collect()
}

fn ran(groups: &[(usize, Vec<String>)]) -> Output {
    mpirun(groups).output().expect("mpirun is installed")
}

fn succeeded(groups: &[(usize, Vec<String>)]) -> String {
    let output = ran(groups);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The ranks end with an error that has these words.
fn fails_naming(groups: &[(usize, Vec<String>)], words: &[&str]) {
    let output = ran(groups);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    for word in words {
        assert!(errors.contains(word), "`{word}` in {errors}");
    }
}

fn losses(folder: &str) -> Vec<f64> {
    let log = fs::read_to_string(Path::new(folder).join("log.jsonl")).unwrap();
    let loss = |line: &str| {
        let record: Value = serde_json::from_str(line).unwrap();
        record["loss"].as_f64().unwrap()
    };
    log.lines().map(loss).collect()
}

/// What the optimizer remembers in the last checkpoint, without the ids of parameters, which each run draws anew.
fn optimizer_state(folder: &str) -> Vec<Vec<u8>> {
    let last = Path::new(folder).join("checkpoints/step-00000012");
    let file = fs::read(last.join("optimizer.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let mut state: Vec<_> = tensors
        .iter()
        .map(|(_, tensor)| tensor.data().to_vec())
        .collect();
    assert!(state.len() > 20);
    state.sort();
    state
}

/// Starts two ranks and waits until they have trained some steps.
fn begun(arguments: &[&str], steps: usize) -> Child {
    let mut child = mpirun(&[(2, train(arguments))])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let events = lines.map(|line| line.unwrap());
    let trained = events.filter(|event| event.contains("\"event\":\"step\""));
    assert_eq!(trained.take(steps).count(), steps, "the ranks train");
    child
}

/// The process ids of the ranks whose arguments name `out`, in the order in which they were started.
fn ranks_of(out: &str) -> Vec<u32> {
    let list = Command::new("ps")
        .args(["-eo", "pid,args"])
        .output()
        .unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let ranks = list.lines().filter(|line| {
        line.contains(out)
            && line.contains(env!("CARGO_BIN_EXE_mantissa"))
            && !line.contains("mpirun")
    });
    ranks
        .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
        .collect()
}

fn signal(pid: u32, signal: &str) {
    let sent = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// Waits for the end of `child`, which must fail within a minute.
fn fails_within_a_minute(mut child: Child) {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(!status.success());
            return;
        }
        if started.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("the other rank goes on");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn two_ranks_follow_one() {
    // Stochastic rounding, and scales that reach over the rows of a batch.
    for recipe in ["mellempudi", "fp8-hybrid", "fp8-rowwise"] {
        two_ranks_follow_one_under(recipe);
    }
}

fn two_ranks_follow_one_under(recipe: &str) {
    let folder = Folder::new();
    let config = folder.path("run.toml");
    let arguments = |out: &str| train(&["--config", &config, "--recipe", recipe, "--out", out]);
    let [one, two, again] = ["one", "two", "again"].map(|name| folder.path(name));
    succeeded(&[(1, arguments(&one))]);
    let said = succeeded(&[(2, arguments(&two))]);
    assert_eq!(
        said.matches("evaluation loss").count(),
        1,
        "one rank tells: {said}"
    );
    succeeded(&[(2, arguments(&again))]);
    let (alone, together) = (losses(&one), losses(&two));
    assert_eq!((alone.len(), together.len()), (12, 12));
    for (alone, together) in alone.iter().zip(&together) {
        let apart = (alone - together).abs();
        assert!(apart < 1e-3, "{recipe}: {together} for {alone}");
    }
    assert!(
        optimizer_state(&two) == optimizer_state(&again),
        "the same bits each time"
    );
}

#[test]
fn narrow_wires_train_too() {
    let folder = Folder::new();
    let config = folder.path("run.toml");
    for wire in ["bf16", "e4m3"] {
        let out = folder.path(wire);
        succeeded(&[(
            3,
            train(&["--config", &config, "--wire", wire, "--out", &out]),
        )]);
        let losses = losses(&out);
        assert!(losses[11] < losses[0], "{wire}: {losses:?}");
    }
}

#[test]
fn a_run_whose_rank_was_killed_ends_and_resumes_as_if_it_had_not_been() {
    let folder = Folder::new();
    let config = folder.path("run.toml");
    let [whole, killed] = ["whole", "killed"].map(|name| folder.path(name));
    succeeded(&[(2, train(&["--config", &config, "--out", &whole]))]);
    // So many steps that they are not over before the rank is found.
    let long = folder.path("long.toml");
    fs::write(&long, CONFIGURATION.replace("steps = 12", "steps = 100000")).unwrap();
    for victim in [0, 1] {
        let out = format!("{killed}-{victim}");
        let child = begun(&["--config", &long, "--json", "--out", &out], 5);
        let ranks = ranks_of(&out);
        assert_eq!(ranks.len(), 2);
        signal(ranks[victim], "-KILL");
        fails_within_a_minute(child);
        assert!(ranks_of(&out).is_empty(), "no rank is left");
    }

    // The same as a run that ends, so that its last checkpoint can be compared.
    let child = begun(&["--config", &config, "--json", "--out", &killed], 5);
    for rank in ranks_of(&killed) {
        signal(rank, "-KILL");
    }
    let _ = child.wait_with_output();
    succeeded(&[(2, train(&["--resume", "--out", &killed]))]);
    assert_eq!(losses(&killed), losses(&whole));
    assert!(optimizer_state(&killed) == optimizer_state(&whole));
}

#[test]
fn a_rank_that_hangs_ends_the_others() {
    let folder = Folder::new();
    let long = folder.path("long.toml");
    fs::write(&long, CONFIGURATION.replace("steps = 12", "steps = 100000")).unwrap();
    let out = folder.path("out");
    let child = begun(&["--config", &long, "--json", "--out", &out], 5);
    signal(ranks_of(&out)[1], "-STOP");
    fails_within_a_minute(child);
}

#[test]
fn another_number_of_ranks_may_resume() {
    let folder = Folder::new();
    let config = folder.path("run.toml");
    let [whole, out] = ["whole", "out"].map(|name| folder.path(name));
    succeeded(&[(2, train(&["--config", &config, "--out", &whole]))]);
    succeeded(&[(2, train(&["--config", &config, "--out", &out]))]);
    fs::remove_dir_all(Path::new(&out).join("checkpoints/step-00000012")).unwrap();
    succeeded(&[(3, train(&["--resume", "--out", &out]))]);
    for (resumed, whole) in losses(&out).iter().zip(losses(&whole)) {
        assert!((resumed - whole).abs() < 1e-3, "{resumed} for {whole}");
    }
}

#[test]
fn ranks_that_would_train_differently_are_refused() {
    let folder = Folder::new();
    let config = folder.path("run.toml");
    let out = folder.path("out");
    let group = |recipe: &str| {
        let arguments = ["--config", &config, "--recipe", recipe, "--out", &out];
        (1, train(&arguments))
    };
    fails_naming(
        &[group("bf16"), group("fp16")],
        &["configuration of rank 1", "bf16", "fp16"],
    );
    let seed = |seed: &str| {
        (
            1,
            train(&["--config", &config, "--seed", seed, "--out", &out]),
        )
    };
    fails_naming(
        &[seed("1"), seed("2")],
        &["configuration of rank 1", "seed = 2"],
    );
    assert!(!Path::new(&out).exists(), "nothing was begun");

    // The same recipe by name, whose file differs between machines.
    let plan = |name: &str, recipe: &str| {
        let made = folder.path(&format!("made-{name}"));
        succeeded(&[(
            1,
            train(&["--config", &config, "--recipe", recipe, "--out", &made]),
        )]);
        let arguments = [
            "--config",
            &config,
            "--plan",
            &format!("{made}/plan.toml"),
            "--out",
            &out,
        ];
        (1, train(&arguments))
    };
    fails_naming(
        &[plan("a", "e5m2-unscaled"), plan("b", "int8")],
        &["plan of rank 1"],
    );
}

#[test]
fn a_checkpoint_that_a_rank_does_not_have_is_refused() {
    let folder = Folder::new();
    let config = folder.path("run.toml");
    let out = folder.path("out");
    let other = folder.path("other");
    succeeded(&[(2, train(&["--config", &config, "--out", &out]))]);
    let copied = Command::new("cp").args(["-r", &out, &other]).status();
    assert!(copied.unwrap().success());
    fs::remove_dir_all(Path::new(&other).join("checkpoints/step-00000012")).unwrap();
    let resume = |out: &str| (1, train(&["--resume", "--out", out]));
    fails_naming(
        &[resume(&out), resume(&other)],
        &[
            "last checkpoint of rank 1",
            "step-00000012",
            "step-00000008",
        ],
    );
    fs::remove_dir_all(Path::new(&other).join("checkpoints")).unwrap();
    fails_naming(
        &[resume(&out), resume(&other)],
        &["last checkpoint of rank 1", "all ranks see"],
    );
    fails_naming(
        &[resume(&out), resume(&folder.path("none"))],
        &["holds no run"],
    );
    // Nothing is lost.
    succeeded(&[(2, train(&["--resume", "--out", &out]))]);
}

#[test]
fn more_ranks_than_sequences_are_refused() {
    let folder = Folder::new();
    let arguments = train(&[
        "--config",
        &folder.path("run.toml"),
        "--batch-size",
        "2",
        "--out",
        &folder.path("out"),
    ]);
    fails_naming(&[(3, arguments)], &["2 rows", "3 ranks"]);
}

#[test]
fn ranks_profile_together() {
    let folder = Folder::new();
    let config = folder.path("run.toml");
    let profile = folder.path("profile.safetensors");
    let arguments = [
        "profile", "--config", &config, "--every", "4", "--recipe", "fp32", "-o", &profile,
    ];
    let arguments = arguments.map(str::to_owned).to_vec();
    let said = succeeded(&[(2, arguments)]);
    assert_eq!(said.matches("measured").count(), 1, "{said}");
    let plan = folder.path("plan.toml");
    succeeded(&[(
        1,
        ["plan", &profile, "-o", &plan].map(str::to_owned).to_vec(),
    )]);
}

/// The ranks see other rows, and must decide alike: they agree on the weights at every checkpoint, or end.
#[test]
fn ranks_are_guarded_together() {
    let folder = Folder::new();
    let config = folder.path("guarded.toml");
    let longer = CONFIGURATION.replace("steps = 12", "steps = 60");
    let text = longer.replace("mellempudi", "int8") + "[guard]\nevery = 5\n";
    fs::write(&config, text).unwrap();
    let out = folder.path("guarded");
    let faults = [
        "--config",
        &config,
        "--guard",
        "--inject",
        "outlier:head:1000@20",
        "--inject",
        "learning-rate:1000@40+4",
        "--out",
        &out,
    ];
    succeeded(&[(2, train(&faults))]);
    let decisions = fs::read_to_string(Path::new(&out).join("decisions.jsonl")).unwrap();
    for kind in ["promoted", "rolled_back"] {
        assert!(decisions.contains(kind), "{decisions}");
    }
    assert_eq!(losses(&out).len(), 60);
}
