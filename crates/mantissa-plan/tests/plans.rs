//! Plan files: round trip, order, other models, and files that are damaged or hostile.

use mantissa_plan::{Plan, PlanError, Recipe, Site, SiteKind};
use proptest::prelude::*;

fn sites() -> Vec<Site> {
    vec![
        Site::new("token", SiteKind::Embedding),
        Site::new("layers.10.query", SiteKind::Linear),
        Site::new("layers.9.scores", SiteKind::Matmul),
        Site::new("layers.9.query", SiteKind::Linear),
    ]
}

fn plan(recipe: &str) -> Plan {
    Plan::from_recipe(&Recipe::preset(recipe).unwrap(), &sites()).unwrap()
}

#[test]
fn a_plan_survives_its_file() {
    let folder = tempfile::tempdir().unwrap();
    for recipe in Recipe::preset_names() {
        let plan = plan(recipe);
        let path = folder.path().join(format!("{recipe}.toml"));
        plan.save(&path).unwrap();
        plan.save(&path).unwrap();
        assert_eq!(Plan::load(&path).unwrap(), plan);
        plan.check_sites(&sites()).unwrap();
    }
    // Nothing but the plans is left of writing them.
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        Recipe::preset_names().count()
    );
}

#[test]
fn sites_are_sorted_by_name_whatever_order_they_came_in() {
    let forward = plan("int8");
    let mut reversed = sites();
    reversed.reverse();
    let reversed = Plan::from_recipe(&Recipe::preset("int8").unwrap(), &reversed).unwrap();
    assert_eq!(forward.to_toml().unwrap(), reversed.to_toml().unwrap());
    let names: Vec<&str> = forward
        .sites
        .iter()
        .map(|site| site.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "layers.9.query",
            "layers.9.scores",
            "layers.10.query",
            "token"
        ]
    );
}

#[test]
fn an_operand_is_named_in_the_file() {
    let text = plan("fp8-hybrid").to_toml().unwrap();
    assert!(
        text.starts_with("schema = 1\nloss_scaling = \"none\"\n"),
        "{text}"
    );
    assert!(
        text.contains("[sites.grad_lhs]\nrhs = \"e4m3/tensor\"\ngrad = \"e5m2/tensor\"\n"),
        "{text}"
    );
}

#[test]
fn a_plan_for_another_model_names_the_sites() {
    let plan = plan("int8");
    let mut other = sites();
    other[1].name = "layers.11.query".to_string();
    let message = plan.check_sites(&other).unwrap_err().to_string();
    assert!(
        message.contains("does not decide `layers.11.query`"),
        "{message}"
    );
    assert!(
        message.contains("decides `layers.10.query`, which the model does not have"),
        "{message}"
    );
    let mut other = sites();
    other[2].kind = SiteKind::Linear;
    let message = plan.check_sites(&other).unwrap_err().to_string();
    assert!(
        message.contains("`layers.9.scores` is planned as matmul but is linear"),
        "{message}"
    );
    let message = plan.site("layers.9.qeury").unwrap_err().to_string();
    assert!(
        message.contains("did you mean `layers.9.query`?"),
        "{message}"
    );
}

#[test]
fn wrong_plans_say_what_is_wrong_and_where() {
    let good = plan("int8").to_toml().unwrap();
    let twice = good.replacen("layers.9.scores", "layers.9.query", 1);
    let cases = [
        (good.replace("schema = 1", "schema = 7"), "schema 7"),
        (
            good.replacen("rhs = \"int8/channel\"", "", 1),
            "`rhs = \"fp32\"`",
        ),
        (
            good.replacen("[sites.forward]", "[sites.forward]\ngrad = \"bf16\"", 1),
            "no such operand",
        ),
        (good.replacen("int8/channel", "int9/channel", 1), "line"),
        (
            good.replacen("kind = \"linear\"", "kind = \"linaer\"", 1),
            "line",
        ),
        (twice, "`layers.9.query` twice"),
        (
            good.replace(
                "loss_scaling = \"none\"",
                "loss_scaling = { constant = 0.0 }",
            ),
            "not 0",
        ),
        (
            good.replace(
                "loss_scaling = \"none\"",
                "loss_scaling = { constant = nan }",
            ),
            "not NaN",
        ),
        (String::new(), "schema = 1"),
    ];
    for (text, expected) in cases {
        let message = Plan::from_toml(&text).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn files_that_cannot_be_read_or_written_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.toml");
    assert!(
        Plan::load(&missing)
            .unwrap_err()
            .to_string()
            .contains("none.toml")
    );
    assert!(matches!(
        Plan::load(folder.path()),
        Err(PlanError::Read { .. })
    ));
    let binary = folder.path().join("binary.toml");
    std::fs::write(&binary, [0xff, 0xfe, 0]).unwrap();
    let message = Plan::load(&binary).unwrap_err().to_string();
    assert!(
        message.contains("binary.toml") && message.contains("UTF-8"),
        "{message}"
    );
    let nowhere = folder.path().join("no/such/folder.toml");
    assert!(matches!(
        plan("int8").save(nowhere),
        Err(PlanError::Write { .. })
    ));
}

proptest! {
    #[test]
    fn a_truncated_plan_is_an_error_or_lacks_sites(cut in 0.0..1.0f64) {
        let text = plan("int8").to_toml().unwrap();
        let cut = (cut * text.len() as f64) as usize;
        let whole = plan("int8");
        match Plan::from_toml(&text[..cut]) {
            // Only the last line's end was lost.
            Ok(read) if read == whole => prop_assert_eq!(cut, text.trim_end().len()),
            Ok(smaller) => prop_assert!(smaller.check_sites(&sites()).is_err()),
            Err(_) => {}
        }
    }

    #[test]
    fn no_text_makes_reading_panic(text in "(schema = 1\n)?[\\[\\]a-z_.= \"{}0-9\n-]{0,200}") {
        let _ = Plan::from_toml(&text);
        let _ = Recipe::from_toml(&text);
    }
}
