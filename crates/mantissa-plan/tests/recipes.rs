//! Presets, rules, and what is said about rules that are wrong.

use mantissa_plan::{LossScaling, Recipe, RecipeError, Site, SiteKind, SiteNumerics};

fn bert() -> Vec<Site> {
    let mut sites = vec![Site::new("embeddings.token", SiteKind::Embedding)];
    for layer in 0..2 {
        for name in ["query", "key", "value", "output"] {
            sites.push(Site::new(
                format!("encoder.layers.{layer}.mha.{name}"),
                SiteKind::Linear,
            ));
        }
        for name in ["scores", "context"] {
            sites.push(Site::new(
                format!("encoder.layers.{layer}.mha.{name}"),
                SiteKind::Matmul,
            ));
        }
        for name in ["linear_inner", "linear_outer"] {
            sites.push(Site::new(
                format!("encoder.layers.{layer}.pwff.{name}"),
                SiteKind::Linear,
            ));
        }
    }
    sites.push(Site::new("decoder", SiteKind::Linear));
    sites
}

fn recipe(rules: &str) -> Recipe {
    Recipe::from_toml(&format!("schema = 1\nname = \"mine\"\n{rules}")).unwrap()
}

fn operands(numerics: &SiteNumerics) -> Vec<String> {
    numerics
        .operands()
        .iter()
        .map(|(_, _, numerics)| numerics.to_string())
        .collect()
}

#[test]
fn every_preset_is_read_printed_and_applied() {
    let sites = bert();
    for name in Recipe::preset_names() {
        let preset = Recipe::preset(name).unwrap();
        assert_eq!(preset.name, name);
        assert!(preset.description.ends_with('.'), "{name}");
        assert_eq!(
            Recipe::from_toml(&preset.to_toml().unwrap()).unwrap(),
            preset
        );
        let assigned = preset.assign(&sites).unwrap();
        assert_eq!(assigned.len(), sites.len());
        assert!(assigned[0].is_fp32(), "{name} leaves embeddings alone");
        assert_eq!(assigned[1].is_fp32(), name == "fp32");
        // One layer is a network too.
        assert!(
            preset
                .assign(&[Site::new("model", SiteKind::Linear)])
                .is_ok(),
            "{name}"
        );
        let text = Recipe::preset_toml(name).unwrap();
        assert_eq!(Recipe::from_toml(text).unwrap(), preset);
        assert_eq!(
            preset.warnings().is_empty(),
            name != "e5m2-unscaled",
            "{name}"
        );
    }
    assert_eq!(Recipe::preset_toml("fp9"), None);
}

#[test]
fn presets_hold_the_numerics_they_are_known_for() {
    let of =
        |name: &str| operands(&Recipe::preset(name).unwrap().assign(&bert()).unwrap()[1]).join(" ");
    assert_eq!(of("fp32"), "fp32 fp32 fp32 fp32 fp32 fp32");
    assert_eq!(of("bf16"), "bf16 bf16 bf16 bf16 bf16 bf16");
    assert_eq!(of("fp16"), "fp16 fp16 fp16 fp16 fp16 fp16");
    assert_eq!(
        of("fp8-hybrid"),
        "e4m3/tensor e4m3/tensor e5m2/tensor e4m3/tensor e4m3/tensor e5m2/tensor"
    );
    assert_eq!(
        of("int8"),
        "int8/channel int8/channel int8/channel/stochastic int8/channel int8/channel int8/channel/stochastic"
    );
    assert_eq!(
        of("fp8-delayed"),
        of("fp8-hybrid").replace("/tensor", "/tensor/delayed16")
    );
    assert_eq!(of("mxfp8"), ["mxfp8"; 6].join(" "));
    assert_eq!(of("int8-tensor"), ["int8/tensor"; 6].join(" "));
    assert_eq!(of("e5m2-unscaled"), ["e5m2/unscaled"; 6].join(" "));
    let scaling = |name: &str| Recipe::preset(name).unwrap().loss_scaling;
    assert_eq!(scaling("fp16"), LossScaling::dynamic());
    assert_eq!(scaling("micikevicius"), LossScaling::Constant(1024.0));
    assert_eq!(
        scaling("mellempudi"),
        LossScaling::preset("enhanced").unwrap()
    );
    assert_eq!(scaling("e5m2-unscaled"), LossScaling::None);
}

#[test]
fn presets_treat_weights_activations_and_ends_as_their_papers_do() {
    let sites = bert();
    let of = |recipe: &str, site: &str| {
        let assigned = Recipe::preset(recipe).unwrap().assign(&sites).unwrap();
        operands(&assigned[sites.iter().position(|known| known.name == site).unwrap()]).join(" ")
    };
    // The order is that of the passes' operands: lhs rhs, grad rhs, lhs grad.
    let inner = "encoder.layers.0.pwff.linear_inner";
    let scores = "encoder.layers.1.mha.scores";
    let (weights, stochastic) = ("e5m2/unscaled", "e5m2/unscaled/stochastic");
    assert_eq!(
        of("mellempudi", inner),
        [
            stochastic, weights, stochastic, weights, stochastic, stochastic
        ]
        .join(" ")
    );
    assert_eq!(of("mellempudi", scores), [stochastic; 6].join(" "));
    for end in ["encoder.layers.0.mha.query", "decoder"] {
        assert_eq!(of("mellempudi", end), ["fp16"; 6].join(" "));
    }
    assert_eq!(of("micikevicius", inner), ["fp16"; 6].join(" "));
    assert_eq!(of("fp8-rowwise", inner), ["e4m3/channel/pow2"; 6].join(" "));
    assert_eq!(
        of("fp8-block", inner),
        "e4m3/block128 e4m3/tile128x128 e4m3/block128 e4m3/tile128x128 e4m3/block128 e4m3/block128"
    );
    assert_eq!(
        of("mxfp4-weights", inner),
        "mxfp6-e3m2 mxfp4 mxfp6-e3m2 mxfp4 mxfp6-e3m2 mxfp6-e3m2"
    );
    assert_eq!(of("mxfp4-weights", scores), ["mxfp6-e3m2"; 6].join(" "));
    let tile = "e2m1/tile16x16/two-level";
    assert_eq!(
        of("nvfp4", inner),
        [
            "nvfp4",
            tile,
            "nvfp4/stochastic",
            tile,
            "nvfp4",
            "nvfp4/stochastic"
        ]
        .join(" ")
    );
    for recipe in ["fp8-block", "nvfp4"] {
        assert_eq!(of(recipe, scores), ["bf16"; 6].join(" "));
        assert_eq!(of(recipe, "decoder"), ["bf16"; 6].join(" "));
    }
}

#[test]
fn a_rule_can_be_for_the_first_or_the_last_of_its_sites() {
    let lhs = |only: &str| {
        let recipe = recipe(&format!(
            "[[rules]]\nsites = \"*.mha.*\"\nkind = \"linear\"\nonly = \"{only}\"\nlhs = \"fp16\"\n"
        ));
        let sites = bert();
        let assigned = recipe.assign(&sites).unwrap();
        let chosen = sites.iter().zip(&assigned);
        chosen
            .filter(|(_, numerics)| !numerics.is_fp32())
            .map(|(site, _)| site.name.clone())
            .collect::<Vec<_>>()
    };
    let (first, last) = ("encoder.layers.0.mha.query", "encoder.layers.1.mha.output");
    assert_eq!(lhs("first"), [first]);
    assert_eq!(lhs("last"), [last]);
    assert_eq!(lhs("ends"), [first, last]);
}

#[test]
fn parts_that_contradict_each_other_are_warned_of_with_the_reason() {
    let warning = |scaling: &str, grad: &str| {
        let recipe = recipe(&format!(
            "loss_scaling = {scaling}\n[[rules]]\nsites = \"*\"\nlhs = \"bf16\"\ngrad = \"{grad}\"\n"
        ));
        let plan = mantissa_plan::Plan::from_recipe(&recipe, &bert()).unwrap();
        assert_eq!(plan.warnings().len(), recipe.warnings().len());
        let all: Vec<String> = plan.warnings().iter().map(ToString::to_string).collect();
        all.join("\n")
    };
    let unscaled = warning("\"none\"", "fp16");
    for part in [
        "decoder",
        "fp16 without a scale",
        "2.9802322e-8",
        "\"dynamic\"",
        "fp16/tensor",
    ] {
        assert!(unscaled.contains(part), "{part} in {unscaled}");
    }
    assert!(warning("\"torch-amp\"", "bf16").contains("loss scaling `torch-amp` gains nothing"));
    assert!(warning("{ constant = 8.0 }", "e5m2/tensor").contains("constant 8"));
    assert!(warning("\"underflow-aware\"", "fp16").contains("format = \"fp16\""));
    assert!(warning("\"log-max\"", "e4m3/unscaled").contains("448; lower log_max"));
    for (scaling, grad) in [
        ("\"none\"", "bf16"),
        ("\"none\"", "fp16/tensor"),
        ("\"none\"", "mxfp8"),
        ("\"dynamic\"", "fp16"),
        ("{ constant = 8.0 }", "e5m2/unscaled"),
        ("\"underflow-aware\"", "e5m2/unscaled"),
        ("\"log-max\"", "e5m2/unscaled"),
        ("\"log-max\"", "fp16"),
    ] {
        assert_eq!(warning(scaling, grad), "", "{scaling} {grad}");
    }
}

#[test]
fn the_first_matching_rule_decides_and_passes_override_operands() {
    let recipe = recipe(
        r#"
        [[rules]]
        sites = "*.scores"
        kind = "matmul"
        lhs = "bf16"
        rhs = "bf16"
        [[rules]]
        sites = "encoder.*"
        lhs = "e4m3"
        rhs = "int8"
        grad = "e5m2"
        grad_rhs = { lhs = "int8/channel" }
        [[rules]]
        sites = "*token*"
        kind = "embedding"
        rhs = "int8/channel"
        "#,
    );
    let sites = bert();
    let assigned = recipe.assign(&sites).unwrap();
    let of = |name: &str| {
        operands(&assigned[sites.iter().position(|site| site.name == name).unwrap()]).join(" ")
    };
    assert_eq!(
        of("encoder.layers.1.mha.scores"),
        "bf16 bf16 fp32 bf16 bf16 fp32"
    );
    assert_eq!(
        of("encoder.layers.1.mha.context"),
        "e4m3/tensor int8/tensor e5m2/tensor int8/tensor int8/channel e5m2/tensor"
    );
    assert_eq!(of("decoder"), "fp32 fp32 fp32 fp32 fp32 fp32");
    assert!(of("embeddings.token").starts_with("fp32 int8/channel"));
}

#[test]
fn a_rule_that_matches_nothing_is_an_error_that_names_it_and_the_nearest_sites() {
    let wrong = "[[rules]]\nsites = \"*\"\nlhs = \"bf16\"\n";
    let misspelt = recipe("[[rules]]\nsites = \"encoder.layers.0.mha.qurey\"\nlhs = \"bf16\"\n");
    let message = misspelt.assign(&bert()).unwrap_err().to_string();
    assert!(
        message.contains("rule 1 of recipe `mine` (`encoder.layers.0.mha.qurey`)"),
        "{message}"
    );
    assert!(
        message.contains("`encoder.layers.0.mha.query`"),
        "{message}"
    );
    assert!(message.contains("optional = true"), "{message}");

    let optional = recipe("[[rules]]\nsites = \"lm_head\"\noptional = true\nlhs = \"bf16\"\n");
    assert!(optional.assign(&bert()).is_ok());

    let other_kind = recipe("[[rules]]\nsites = \"decoder\"\nkind = \"matmul\"\n");
    assert!(
        other_kind
            .assign(&bert())
            .unwrap_err()
            .to_string()
            .contains("kind matmul")
    );

    let shadowed = recipe(&format!(
        "{wrong}[[rules]]\nsites = \"decoder\"\nlhs = \"fp16\"\n"
    ));
    let message = shadowed.assign(&bert()).unwrap_err().to_string();
    assert!(
        message.contains("rule 2")
            && message.contains("earlier rules decide, the first of them rule 1"),
        "{message}"
    );

    assert!(matches!(
        recipe(wrong).assign(&[]),
        Err(RecipeError::MatchesNothing { .. })
    ));
}

#[test]
fn wrong_recipes_say_what_is_wrong_and_where() {
    let cases = [
        ("schema = 1\nname = 3\n", "line 2"),
        ("schema = 1\nname = \"a\"\nrulez = []\n", "rulez"),
        ("schema = 2\nname = \"a\"\nwhatever = 1\n", "schema 2"),
        ("name = \"a\"\n", "schema = 1"),
        ("schema = \"one\"\n", "schema = 1"),
        (
            "schema = 1\nname = \"a\"\n[[rules]]\nsites = \"*\"\nlhs = \"e4m4x\"\n",
            "line 5",
        ),
        (
            "schema = 1\nname = \"a\"\n[[rules]]\nsites = \"[\"\n",
            "not a glob",
        ),
        (
            "schema = 1\nname = \"a\"\n[[rules]]\nsites = \"*\"\nforward = { grad = \"e5m2\" }\n",
            "its operands are lhs and rhs",
        ),
        (
            "schema = 1\nname = \"a\"\nloss_scaling = { constant = -1.0 }\n",
            "finite and positive, not -1",
        ),
        (
            "schema = 1\nname = \"a\"\nloss_scaling = \"sometimes\"\n",
            "line 3",
        ),
        ("\u{0}\u{1}", "line 1"),
        ("", "schema = 1"),
    ];
    for (text, expected) in cases {
        let message = Recipe::from_toml(text).unwrap_err().to_string();
        assert!(message.contains(expected), "{text:?}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
    let message = Recipe::preset("fp8-hybird").unwrap_err().to_string();
    assert!(
        message.contains("did you mean `fp8-hybrid`?") && message.contains("`int8-tensor`"),
        "{message}"
    );
    assert!(
        Recipe::preset("???")
            .unwrap_err()
            .to_string()
            .starts_with("there is no recipe `???`. The recipes are")
    );
}

#[test]
fn two_sites_of_one_name_are_an_error() {
    let sites = [
        Site::new("a", SiteKind::Linear),
        Site::new("a", SiteKind::Linear),
    ];
    let error = Recipe::preset("int8").unwrap().assign(&sites).unwrap_err();
    assert!(error.to_string().contains("two sites named `a`"));
}
