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
    }
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
    assert_eq!(of("mxfp8"), ["mxfp8"; 6].join(" "));
    assert_eq!(of("int8-tensor"), ["int8/tensor"; 6].join(" "));
    assert_eq!(of("e5m2-unscaled"), ["e5m2/unscaled"; 6].join(" "));
    let scaling = |name: &str| Recipe::preset(name).unwrap().loss_scaling;
    assert_eq!(scaling("fp16"), LossScaling::Dynamic);
    assert_eq!(scaling("e5m2-unscaled"), LossScaling::None);
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
