//! `mantissa recipes`.

use mantissa::plan::{LossScaling, Recipe};
use serde::Serialize;
use serde_json::json;

use crate::error::Error;
use crate::terminal::{complain, print, print_json, table};
use crate::training::trainer::named_recipe;

/// Arguments of `mantissa recipes`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A recipe says which sites get which numerics, and how the loss is scaled. What is printed for a NAME is a \
                  recipe file: save it, change it, and give it to `mantissa train --recipe mine.toml`.\n\nExamples:\n  \
                  mantissa recipes                          all recipes and loss scalings\n  \
                  mantissa recipes mellempudi               its rules, where they come from, and its loss scaling\n  \
                  mantissa recipes fp16 > mine.toml         a recipe to begin with\n  \
                  mantissa recipes mine.toml                whether it can be read, and what in it is contradictory"
)]
pub struct Args {
    /// A recipe of the list, or a recipe file ending in .toml
    name: Option<String>,
    /// Write JSON to stdout
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Error> {
    match args.name {
        None => list(args.json),
        Some(name) => explain(&name, args.json),
    }
}

fn list(as_json: bool) -> Result<(), Error> {
    let recipes = Recipe::preset_names()
        .map(Recipe::preset)
        .collect::<Result<Vec<_>, _>>()?;
    if as_json {
        let recipes: Vec<_> = recipes
            .iter()
            .map(|recipe| {
                json!({
                    "name": recipe.name,
                    "description": recipe.description,
                    "loss_scaling": recipe.loss_scaling,
                })
            })
            .collect();
        let scalings: Vec<_> = LossScaling::presets()
            .map(|(name, description)| json!({ "name": name, "description": description }))
            .collect();
        return print_json(
            &json!({ "recipes": recipes, "loss_scalings": scalings }),
            true,
        );
    }
    let recipes = recipes.into_iter().map(|recipe| {
        vec![
            recipe.name,
            recipe.loss_scaling.to_string(),
            recipe.description,
        ]
    });
    let headings = ["recipe", "loss scaling", "what it is"];
    let recipes = table(&headings, headings.len(), recipes.collect());
    let scalings = LossScaling::presets()
        .map(|(name, description)| vec![name.to_owned(), description.to_owned()]);
    let scalings = table(&["loss scaling", "what it does"], 2, scalings.collect());
    print(&format!("{recipes}\n{scalings}"))
}

/// A recipe with what is not in its text.
#[derive(Serialize)]
struct Explained<'a> {
    #[serde(flatten)]
    recipe: &'a Recipe,
    loss_scaling_settings: Vec<(String, String)>,
    warnings: Vec<String>,
}

fn explain(name: &str, as_json: bool) -> Result<(), Error> {
    let recipe = named_recipe(name)?;
    let warnings: Vec<String> = recipe.warnings().iter().map(ToString::to_string).collect();
    let settings = recipe.loss_scaling.settings();
    if as_json {
        let explained = Explained {
            recipe: &recipe,
            loss_scaling_settings: settings,
            warnings,
        };
        return print_json(&explained, true);
    }
    let text = match Recipe::preset_toml(name) {
        Some(text) => text.to_owned(),
        None => recipe.to_toml().map_err(|error| {
            Error::Usage(format!("the recipe cannot be printed as TOML: {error}"))
        })?,
    };
    let mut text = format!(
        "{text}\n# The loss scaling is {}{}\n",
        recipe.loss_scaling,
        if settings.is_empty() { "." } else { ":" }
    );
    for (setting, value) in settings {
        text += &format!("#   {setting} = {value}\n");
    }
    print(&text)?;
    for warning in warnings {
        complain("warning", &warning);
    }
    Ok(())
}
