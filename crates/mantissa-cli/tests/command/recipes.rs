//! `mantissa recipes`.

use serde_json::json;

use crate::{Folder, mantissa};

#[test]
fn the_list_names_every_recipe_and_loss_scaling() {
    let list = mantissa(["recipes", "--json"]).json();
    let names = |key: &str| -> Vec<String> {
        let items = list[key].as_array().unwrap().iter();
        items
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let table = mantissa(["recipes"]).stdout;
    for (key, some) in [
        ("recipes", ["micikevicius", "mellempudi", "nvfp4"]),
        (
            "loss_scalings",
            ["torch-amp", "deepspeed", "underflow-aware"],
        ),
    ] {
        let names = names(key);
        for name in some {
            assert!(names.contains(&name.to_owned()), "{name}");
        }
        for name in names {
            assert!(table.contains(&name), "{name}");
        }
    }
    assert_eq!(list["recipes"][2]["loss_scaling"], "dynamic");
}

#[test]
fn a_recipe_is_explained_as_a_file_that_can_be_changed() {
    let text = mantissa(["recipes", "mellempudi"]).stdout;
    for part in [
        "arXiv 1905.12334",
        "e5m2/unscaled/stochastic",
        "loss scaling is enhanced",
        "growth_interval = 2000",
        "min_scale = 32768.0",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let folder = Folder::new();
    let text = text.replace("name = \"mellempudi\"", "name = \"mine\"");
    let mine = folder.write("mine.toml", text.as_bytes());
    let read = mantissa(["recipes", mine.to_str().unwrap(), "--json"]).json();
    assert_eq!(read["name"], "mine");
    assert_eq!(read["rules"][0]["only"], "ends");
    assert_eq!(read["warnings"], json!([]));
}

#[test]
fn a_contradictory_recipe_is_warned_of() {
    let naive = mantissa(["recipes", "e5m2-unscaled"]);
    assert!(naive.success);
    assert!(naive.stderr.starts_with("warning: "), "{}", naive.stderr);
    assert!(
        naive.stderr.contains("e5m2 without a scale"),
        "{}",
        naive.stderr
    );
    let json = mantissa(["recipes", "e5m2-unscaled", "--json"]);
    assert_eq!(json.stderr, "");
    assert_eq!(json.json()["warnings"].as_array().unwrap().len(), 1);
}

#[test]
fn an_unknown_recipe_is_answered_with_the_nearest() {
    mantissa(["recipes", "melempudi"]).fails_naming(&["`melempudi`", "did you mean `mellempudi`?"]);
    mantissa(["recipes", "/nowhere.toml"]).fails_naming(&["/nowhere.toml"]);
}
