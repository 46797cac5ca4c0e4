//! What other systems are given of a plan.

use mantissa_plan::{ExportTarget, Plan, Recipe, Site, SiteKind};

/// A plan with everything that some system can express and some cannot.
fn plan() -> Plan {
    let recipe = Recipe::from_toml(
        r#"
        schema = 1
        name = "mixture"
        [[rules]]
        sites = "*.ffn"
        lhs = "int8/channel"
        rhs = "int8/channel"
        grad = "int8/channel/stochastic"
        [[rules]]
        sites = "*.wide"
        lhs = "e4m3/channel"
        rhs = "e4m3/channel"
        grad = "bf16"
        grad_lhs = { rhs = "bf16" }
        grad_rhs = { lhs = "bf16" }
        [[rules]]
        sites = "*.blocks"
        lhs = "mxfp8"
        rhs = "mxfp8"
        grad = "mxfp8"
        [[rules]]
        sites = "head"
        lhs = "bf16"
        rhs = "bf16"
        grad = "bf16"
        [[rules]]
        sites = "*.mixed"
        lhs = "int8/tensor"
        rhs = "e4m3/tensor"
        grad = "e5m2/tensor"
        [[rules]]
        sites = "*"
        lhs = "e4m3/tensor"
        rhs = "e4m3/tensor"
        grad = "e5m2/tensor/stochastic"
        "#,
    )
    .unwrap();
    let sites = [
        ("token", SiteKind::Embedding),
        ("layers.0.query", SiteKind::Linear),
        ("layers.0.scores", SiteKind::Matmul),
        ("layers.0.ffn", SiteKind::Linear),
        ("layers.1.query", SiteKind::Linear),
        ("layers.1.wide", SiteKind::Linear),
        ("layers.1.blocks", SiteKind::Linear),
        ("layers.1.mixed", SiteKind::Linear),
        ("head", SiteKind::Linear),
    ];
    let sites = sites.map(|(name, kind)| Site::new(name, kind));
    Plan::from_recipe(&recipe, &sites).unwrap()
}

#[test]
fn torchao() {
    let exported = plan().export(ExportTarget::Torchao);
    insta::assert_snapshot!(exported.text);
    assert!(
        exported
            .not_expressed
            .iter()
            .any(|note| note.contains("layers.1.blocks"))
    );
    let sites = [Site::new("a", SiteKind::Linear)];
    let rowwise = Plan::from_recipe(&Recipe::preset("fp8-rowwise").unwrap(), &sites).unwrap();
    let exported = rowwise.export(ExportTarget::Torchao);
    assert!(exported.text.contains("round_scales_to_power_of_2=True"));
    assert!(exported.not_expressed.is_empty());
}

#[test]
fn transformer_engine() {
    insta::assert_snapshot!(plan().export(ExportTarget::TransformerEngine).text);
    let all = |recipe: &str| {
        let sites = [
            Site::new("a.b", SiteKind::Linear),
            Site::new("c", SiteKind::Linear),
        ];
        let plan = Plan::from_recipe(&Recipe::preset(recipe).unwrap(), &sites).unwrap();
        plan.export(ExportTarget::TransformerEngine)
    };
    for (recipe, te) in [
        (
            "fp8-hybrid",
            "Float8CurrentScaling(fp8_format=Format.HYBRID)",
        ),
        ("fp8-delayed", "DelayedScaling("),
        ("mxfp8", "MXFP8BlockScaling()"),
    ] {
        let exported = all(recipe);
        assert!(exported.text.contains(te), "{recipe}: {}", exported.text);
        assert!(!exported.text.contains("Disable") && exported.not_expressed.is_empty());
    }
    let nvfp4 = all("nvfp4");
    assert!(nvfp4.text.contains("NVFP4BlockScaling(disable_rht=True)\n"));
    assert!(nvfp4.not_expressed.is_empty());
    let int8 = all("int8");
    assert!(int8.text.contains("No recipe") && int8.not_expressed.len() == 6);
}

#[test]
fn qwix() {
    insta::assert_snapshot!(plan().export(ExportTarget::Qwix).text);
}

#[test]
fn other_systems_are_refused_by_name() {
    let message = "qwicks".parse::<ExportTarget>().unwrap_err().to_string();
    assert!(
        message.contains("did you mean `qwix`?") && message.contains("torchao"),
        "{message}"
    );
}
