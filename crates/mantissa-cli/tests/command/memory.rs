//! What training takes of memory, expected and measured.

use serde_json::Value;

use crate::train::events;
use crate::{Folder, mantissa};

fn copies(expected: &Value) -> Vec<(&str, f64)> {
    let parameters = expected["parameters"].as_f64().unwrap();
    let copies = expected["copies"].as_array().unwrap().iter();
    let each = |copy: &Value| copy["bytes"].as_f64().unwrap() / parameters;
    copies
        .map(|copy| (copy["name"].as_str().unwrap(), each(copy)))
        .collect()
}

#[test]
fn copies_add_up_to_what_recipes_are_known_for() {
    let memory = |recipe: &str| mantissa(["memory", "--recipe", recipe, "--json"]).json();
    let fp32 = memory("fp32");
    assert_eq!(fp32["bytes_per_parameter"], 16.0);
    assert_eq!(
        copies(&fp32),
        ["weights", "gradients", "first moment", "second moment"].map(|name| (name, 4.0))
    );
    let fp8 = memory("fp8-lm-o3");
    let of = |name: &str| copies(&fp8).iter().find(|copy| copy.0 == name).unwrap().1;
    // Small tensors stay f32.
    assert!((2.0..2.1).contains(&of("weights")), "{fp8}");
    assert!((1.0..1.15).contains(&of("gradients")), "{fp8}");
    assert!(fp8["activations"].as_f64() < fp32["activations"].as_f64());
    let table = mantissa(["memory", "--recipe", "fp8-lm-o3"]).stdout;
    assert!(
        table.contains("first moment") && table.contains("in all"),
        "{table}"
    );
}

#[test]
fn a_run_takes_about_what_was_expected() {
    for (model, batch_size) in [("bert-tiny", "32"), ("bert-mini", "8")] {
        for recipe in ["fp32", "fp8-hybrid", "int8", "fp8-lm-o3"] {
            let folder = Folder::new();
            let out = folder.path("run");
            let outcome = mantissa([
                "train",
                "--model",
                model,
                "--batch-size",
                batch_size,
                "--recipe",
                recipe,
                "--steps",
                "3",
                "--json",
                "--out",
                out.to_str().unwrap(),
            ]);
            let events = events(&outcome.stdout);
            let find = |name: &str| events.iter().find(|event| event["event"] == name).unwrap();
            let expected = find("memory");
            let bytes: f64 = copies(expected).iter().map(|(_, each)| each).sum();
            let bytes = bytes * expected["parameters"].as_f64().unwrap();
            let expected = bytes + expected["activations"].as_f64().unwrap();
            let measured = find("peak_memory")["bytes"].as_f64().unwrap();
            let ratio = measured / expected;
            assert!(
                (0.85..1.2).contains(&ratio),
                "{model}, {recipe}: {measured} of {expected} expected, {ratio:.2} times"
            );
        }
    }
}
