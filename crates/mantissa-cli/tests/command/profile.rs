//! Profiles: measured in flight, shown, merged, and made of another framework's tensors.

use serde_json::Value;

use crate::train::{configuration, events};
use crate::{Folder, Outcome, f32_bytes, mantissa, safetensors};

fn done(arguments: &[&str]) -> Outcome {
    let outcome = mantissa(arguments);
    assert!(outcome.success, "{arguments:?}: {}", outcome.stderr);
    outcome
}

#[test]
fn a_run_is_measured_in_flight_and_shown() {
    let folder = Folder::new();
    let config = configuration(&folder, "hidden-markov");
    let out = folder.path("run").display().to_string();
    let train = [
        "train", "--config", &config, "--recipe", "bf16", "--out", &out, "--json",
    ];
    let outcome = done(&[&train[..], &["--profile", "4"]].concat());
    let profiled = events(&outcome.stdout)
        .into_iter()
        .find(|event| event["event"] == "profile")
        .unwrap();
    // Steps 0, 4, 8 and 12 of 14.
    assert_eq!(profiled["measured_steps"], 4);
    assert_eq!(profiled["steps"], serde_json::json!([0, 4, 8, 12]));
    assert!(profiled["overhead"].as_f64() > Some(0.0));
    let config = std::fs::read_to_string(folder.path("run/config.toml")).unwrap();
    assert!(config.contains("[profile]\nevery = 4"), "{config}");

    let profile = folder.path("run/profile.safetensors").display().to_string();
    let query = "encoder.layers.0.mha.query";
    let table = done(&["profile", "show", &profile, "--site", "*.query"]).stdout;
    // A head, its rule, and the six operands of one site.
    assert_eq!(table.lines().count(), 8, "{table}");
    assert!(
        table.contains(query) && table.contains("grad_rhs"),
        "{table}"
    );

    let shown = done(&["profile", "show", &profile, "--json"]).json();
    let operands = shown["operands"].as_array().unwrap();
    let weight = operands
        .iter()
        .find(|operand| operand["site"] == query && operand["operand"] == "rhs")
        .unwrap();
    assert_eq!(weight["series"].as_array().unwrap().len(), 4);
    assert_eq!(weight["fits"]["ranked"].as_array().unwrap().len(), 4);
    let nu = &weight["fits"]["nu"];
    assert!(nu["low"].as_f64() > Some(0.0), "{nu}");
    let quantile = |name: &str| weight["magnitudes"][name].as_f64().unwrap();
    assert!(quantile("p1") < quantile("p50") && quantile("p50") < quantile("p99"));
    let spread = |of: &str| weight[of]["amax_octaves"].as_f64().unwrap();
    assert!(spread("channels") > 0.0 && spread("blocks") >= spread("channels"));
    assert!(weight["drift"]["largest_jump"]["log2_ratio"].is_number());

    mantissa(["profile", "show", &profile, "--site", "*.quary"]).fails_naming(&["quary"]);
    mantissa(["profile", "show", &profile, "--site", "["]).fails_naming(&["glob"]);
    mantissa(["profile", "show", "/no/profile"]).fails_naming(&["/no/profile"]);
}

#[test]
fn merged_profiles_hold_what_both_measured() {
    let folder = Folder::new();
    let config = configuration(&folder, "hidden-markov");
    let profile = |name: &str, seed: &str| {
        let out = folder.path(name).display().to_string();
        done(&[
            "profile", "--config", &config, "--every", "7", "--seed", seed, "-o", &out,
        ]);
        out
    };
    let (a, b) = (profile("a", "1"), profile("b", "2"));
    let out = folder.path("both").display().to_string();
    let said = done(&["profile", "merge", &a, &b, "-o", &out]).stdout;
    assert!(said.contains("merged 2 profiles"), "{said}");
    let counts = |path: &str| -> Vec<u64> {
        let shown = done(&["profile", "show", path, "--json"]).json();
        let operands = shown["operands"].as_array().unwrap().iter();
        operands
            .map(|operand| operand["count"].as_u64().unwrap())
            .collect()
    };
    let sums: Vec<u64> = counts(&a)
        .iter()
        .zip(counts(&b))
        .map(|(a, b)| a + b)
        .collect();
    assert_eq!(counts(&out), sums);

    mantissa(["profile", "merge", &a, &b, "-o", &out]).fails_naming(&["exists", "--force"]);
    mantissa(["profile", "merge", &a, &b, "-o", &a, "--force"])
        .fails_naming(&["the file that is read"]);
    let dump = folder
        .write("dump.safetensors", &dump(3))
        .display()
        .to_string();
    mantissa(["profile", "merge", &a, &dump, "-o", &out, "--force"])
        .fails_naming(&["dump.safetensors", "different models"]);
    // Neither replaced nor left behind.
    assert_eq!(counts(&out), sums);
}

/// The tensors of one linear layer, of 24 inputs and 16 outputs, in a batch of 32.
fn dump(factor: u32) -> Vec<u8> {
    let values = |count: u32| {
        let value = |i: u32| ((i * factor) as f32 * 0.37).sin() + (i as f32 * 0.11).cos();
        f32_bytes(&(0..count).map(value).collect::<Vec<_>>())
    };
    safetensors(&[
        ("fc/lhs@10", "F32", &[4, 8, 24], values(32 * 24)),
        ("fc/weight@10", "F32", &[16, 24], values(16 * 24)),
        ("fc/grad@10", "F32", &[4, 8, 16], values(32 * 16)),
    ])
}

#[test]
fn tensors_of_another_framework_become_a_plan() {
    let folder = Folder::new();
    let (first, second) = (
        folder
            .write("a.safetensors", &dump(3))
            .display()
            .to_string(),
        folder
            .write("b.safetensors", &dump(5))
            .display()
            .to_string(),
    );
    let shown = done(&["profile", "show", &first, "--json"]).json();
    let shapes: Vec<&Value> = shown["operands"]
        .as_array()
        .unwrap()
        .iter()
        .map(|operand| &operand["shape"])
        .collect();
    assert_eq!(shapes[0], &serde_json::json!([1, 32, 24]));
    assert_eq!(shown["steps"], serde_json::json!([10]));
    let plan = done(&["plan", &first]).stdout;
    assert!(plan.contains("fc") && plan.contains("grad_rhs"), "{plan}");
    let profile = folder.path("profile").display().to_string();
    done(&["profile", "merge", &first, &second, "-o", &profile]);
    done(&["plan", &profile]);

    let half = f32_bytes(&[0.0; 32]);
    let wrong = safetensors(&[("fc/lhs", "F32", &[4, 8], half)]);
    let wrong = folder
        .write("wrong.safetensors", &wrong)
        .display()
        .to_string();
    for command in [&["plan"][..], &["profile", "show"]] {
        mantissa([command, &[wrong.as_str()]].concat()).fails_naming(&[
            "wrong.safetensors",
            "fc/lhs",
            "all zeros",
        ]);
    }
}

#[test]
fn measuring_still_needs_a_file_to_write() {
    let outcome = mantissa(["profile", "--steps", "3"]);
    assert!(
        !outcome.success && outcome.stderr.contains("--out"),
        "{}",
        outcome.stderr
    );
}
