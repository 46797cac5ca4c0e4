//! How weights and gradients are to be stored, as text.

use mantissa_plan::{
    Plan, PlanError, Recipe, Site, SiteKind, SiteStorage, Storage, StorageError, StorageRule,
    StorageTable,
};

fn sites() -> [Site; 3] {
    [
        Site::new("embedding", SiteKind::Embedding),
        Site::new("encoder.0.query", SiteKind::Linear),
        Site::new("encoder.0.scores", SiteKind::Matmul),
    ]
}

fn recipe(storage: &str) -> String {
    format!("schema = 1\nname = \"mine\"\n[storage]\n{storage}\n")
}

#[test]
fn storages_survive_their_text() {
    for text in [
        "fp32",
        "bf16+16",
        "fp16",
        "fp16/stochastic",
        "bf16/stochastic",
        "e4m3/tensor/stochastic",
        "int8/channel",
        "mxfp8/stochastic",
        "e5m2/unscaled",
    ] {
        let storage: Storage = text.parse().unwrap();
        assert_eq!(storage.to_string(), text);
    }
    for (text, reason) in [
        ("fp16/tensor", "fp16 and bf16 without"),
        ("tf32", "is no storage"),
        ("e4m3/tensor/delayed16", "scales of its own"),
        ("bf16+8", "a storage is `fp32`, `bf16+16`, or a numerics"),
    ] {
        let error = text.parse::<Storage>().unwrap_err().to_string();
        assert!(error.contains(text) && error.contains(reason), "{error}");
    }
}

#[test]
fn the_first_rule_decides_and_products_of_activations_store_nothing() {
    let recipe = Recipe::from_toml(&recipe(
        r#"
        parameters = "fp16/stochastic"
        gradients = "e4m3/tensor"
        [[storage.rules]]
        sites = "emb*"
        parameters = "fp32"
        [[storage.rules]]
        sites = "*"
        gradients = "bf16"
        "#,
    ))
    .unwrap();
    let stored = recipe.storage.assign(&sites()).unwrap();
    let text = |stored: &SiteStorage| format!("{} {}", stored.parameters, stored.gradients);
    assert_eq!(
        stored.iter().map(text).collect::<Vec<_>>(),
        ["fp32 e4m3/tensor", "fp16/stochastic bf16", "fp32 fp32"]
    );
    let plan = Plan::from_recipe(&recipe, &sites()).unwrap();
    assert_eq!(plan.storage, recipe.storage);
    assert_eq!(Plan::from_toml(&plan.to_toml().unwrap()).unwrap(), plan);
    let again = Recipe::from_toml(&recipe.to_toml().unwrap()).unwrap();
    assert_eq!(again, recipe);
}

#[test]
fn tables_that_mean_nothing_are_errors() {
    let error = |storage: &str| Recipe::from_toml(&recipe(storage)).unwrap_err().to_string();
    assert!(error("gradients = \"bf16+16\"").contains("second half nothing reads"));
    assert!(error("parameters = \"fp9\"").contains("fp9"));
    assert!(error("parameter = \"fp16\"").contains("parameter"));
    let rule = |sites: &str| StorageTable {
        rules: vec![StorageRule {
            sites: sites.into(),
            parameters: Some(Storage::SplitBf16),
            gradients: None,
        }],
        ..StorageTable::default()
    };
    let unmatched = rule("encoder.0.scores").assign(&sites()).unwrap_err();
    assert!(matches!(
        unmatched,
        StorageError::MatchesNothing { rule: 1, .. }
    ));
    assert!(
        unmatched.to_string().contains("encoder.0.query"),
        "{unmatched}"
    );
    let glob = rule("a{").check().unwrap_err();
    assert!(matches!(glob, StorageError::Glob { rule: 1, .. }));

    let mut plan = Plan::from_recipe(&Recipe::preset("fp32").unwrap(), &sites()).unwrap();
    plan.storage.gradients = Storage::SplitBf16;
    let read = Plan::from_toml(&plan.to_toml().unwrap());
    assert!(matches!(read, Err(PlanError::Storage(_))));
}

#[test]
fn storages_that_lose_updates_or_gradients_are_warned_of() {
    let warnings = |storage: &str| -> Vec<String> {
        let recipe = Recipe::from_toml(&recipe(storage)).unwrap();
        recipe.warnings().iter().map(ToString::to_string).collect()
    };
    for sound in [
        "parameters = \"bf16/stochastic\"",
        "parameters = \"bf16+16\"",
        "parameters = \"fp16\"",
        "gradients = \"e4m3/tensor\"",
        "gradients = \"bf16\"",
    ] {
        assert_eq!(warnings(sound), Vec::<String>::new());
    }
    let [stalling] = &warnings("parameters = \"e4m3/tensor\"")[..] else {
        panic!("one warning")
    };
    assert!(stalling.contains("e4m3/tensor/stochastic"), "{stalling}");
    let [underflow] = &warnings("gradients = \"fp16\"")[..] else {
        panic!("one warning")
    };
    assert!(underflow.contains("as they are stored"), "{underflow}");
    for name in ["mellempudi", "fp8-lm-o1", "fp8-lm-o2", "fp8-lm-o3"] {
        let recipe = Recipe::preset(name).unwrap();
        assert!(!recipe.storage.is_default());
        assert_eq!(recipe.warnings(), [], "{name}");
    }
}
