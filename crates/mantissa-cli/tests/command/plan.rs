//! `mantissa plan` and `mantissa check`: policies, budgets, sensitivity, exports, exit codes.

use crate::train::configuration;
use crate::{Folder, mantissa};

/// A profile of a small network's first steps.
fn profile(folder: &Folder) -> String {
    let config = configuration(folder, "hidden-markov");
    let profile = folder.path("profile.safetensors").display().to_string();
    let outcome = mantissa([
        "profile", "--config", &config, "--every", "6", "-o", &profile,
    ]);
    assert!(outcome.success, "{}", outcome.stderr);
    profile
}

#[test]
fn a_budget_in_units_of_a_recipe_is_kept_and_checked() {
    let folder = Folder::new();
    let profile = profile(&folder);
    let check = |what: &str, more: &[&str]| {
        let all = ["check", what, "--against", &profile, "--json"];
        mantissa(all.iter().chain(more))
    };
    let recipe: serde_json::Value = serde_json::from_str(&check("fp8-hybrid", &[]).stdout).unwrap();
    let allowed = recipe["quality_loss"]["estimate"].as_f64().unwrap();
    assert!(allowed > 0.0 && recipe["cost"].as_f64().unwrap() < 1.0);
    let plan = folder.path("plan.toml").display().to_string();
    let chosen = mantissa([
        "plan",
        &profile,
        "--policy",
        "budget",
        "--budget",
        "0.5x:fp8-hybrid",
        "-o",
        &plan,
    ]);
    assert!(
        chosen.success && chosen.stdout.contains("within a budget of"),
        "{}",
        chosen.stderr
    );
    let checked = check(&plan, &[]);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    let json = checked.json();
    let lost = json["quality_loss"]["estimate"].as_f64().unwrap();
    assert!(lost <= 0.5 * allowed, "{lost} of {allowed}");
    let by_site = json["sites"].as_array().unwrap().iter();
    let sum: f64 = by_site
        .map(|site| site["quality_loss"]["estimate"].as_f64().unwrap())
        .sum();
    assert!((sum / lost - 1.0).abs() < 1e-6);
    let tight = check(&plan, &["--budget", "1e-9"]);
    assert_eq!(tight.code, Some(5));
    assert!(
        tight.stdout.contains("\"rule\": \"budget\""),
        "{}",
        tight.stdout
    );
    let naive = check("e5m2-unscaled", &[]);
    assert_eq!(naive.code, Some(5), "{}", naive.stderr);
    assert!(naive.stdout.contains("gradient_underflow"));

    let explained = mantissa(["plan", &plan, "--explain", "head"]);
    assert!(
        explained.stdout.contains("Predicted quality loss"),
        "{}",
        explained.stdout
    );
    for system in ["torchao", "te", "qwix"] {
        let exported = mantissa(["plan", &plan, "--export", system]);
        assert!(exported.success && exported.stdout.starts_with("# Written by mantissa"));
    }
    let sensitivity = mantissa(["plan", &profile, "--sensitivity", "--of", "mellempudi"]);
    assert!(
        sensitivity.stdout.contains("pays"),
        "{}",
        sensitivity.stderr
    );
    let kept = folder.path("kept.toml").display().to_string();
    let next = mantissa([
        "plan",
        &profile,
        "--policy",
        "budget",
        "--budget",
        "0.5x:fp8-hybrid",
        "--previous",
        &plan,
        "-o",
        &kept,
    ]);
    assert!(next.success, "{}", next.stderr);
    assert_eq!(std::fs::read(&kept).unwrap(), std::fs::read(&plan).unwrap());

    mantissa(["plan", &profile, "--policy", "budget"]).fails_naming(&["needs --budget"]);
    mantissa(["plan", &profile, "--policy", "thrift"]).fails_naming(&["thrift", "thresholds"]);
    mantissa(["plan", &profile, "--budget=-1"]).fails_naming(&["at least 0"]);
    mantissa(["plan", &profile, "--budget", "half"]).fails_naming(&["half"]);
    mantissa(["plan", &profile, "--target", "h10"]).fails_naming(&["did you mean `h100`?"]);
    mantissa(["plan", &plan, "--budget", "1%"]).fails_naming(&["--budget", "is a plan"]);
    mantissa(["plan", &plan, "--export", "tf"]).fails_naming(&["torchao, te and qwix"]);
    mantissa(["check", "fp9", "--against", &profile]).fails_naming(&["fp9"]);
    let other = folder.write(
        "other.toml",
        b"schema = 1\nloss_scaling = \"none\"\n[source]\nrecipe = \"x\"\n",
    );
    mantissa(["check", other.to_str().unwrap(), "--against", &profile])
        .fails_naming(&["another model"]);
}
