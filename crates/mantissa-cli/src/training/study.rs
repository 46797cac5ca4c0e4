//! Runs that differ in some settings, each from several seeds, as a TOML file.

use std::path::Path;

use mantissa::plan::Policy;
use serde::Deserialize;
use toml::{Table, Value};

use super::config::{RunConfig, one_line};
use super::folder::folder_name;
use crate::commands::train::Configuration;
use crate::error::Error;

/// The version of the study file.
const SCHEMA: u32 = 1;

/// The file: settings that all runs share, and rows of what differs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema: u32,
    #[serde(default = "three_seeds")]
    seeds: Vec<u64>,
    #[serde(default)]
    run: Table,
    rows: Vec<FileRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRow {
    name: String,
    #[serde(default)]
    run: Table,
    /// What a policy file has.
    policy: Option<Table>,
}

fn three_seeds() -> Vec<u64> {
    vec![0, 1, 2]
}

/// What to compare.
#[derive(Debug)]
pub struct Study {
    /// The seeds of every row.
    pub seeds: Vec<u64>,
    /// The rows; the first is what the others are compared with.
    pub rows: Vec<Row>,
}

/// One way to train.
#[derive(Debug)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Its configuration, but for the seed.
    pub config: RunConfig,
    /// How its plan is to be chosen, where it has none yet.
    pub policy: Option<Policy>,
}

impl Study {
    /// Reads a study file, whose relative paths are in its own folder. `options` hold for every row, on top of the file.
    pub fn load(path: &Path, options: &Configuration) -> Result<Self, Error> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        let refused = |problem: String| Error::Study {
            path: path.to_owned(),
            problem,
        };
        let file: File = toml::from_str(&text).map_err(|error| refused(one_line(&error, &text)))?;
        if file.schema != SCHEMA {
            let found = file.schema;
            return Err(refused(format!(
                "it has schema {found}, this program reads schema {SCHEMA}"
            )));
        }
        if file.rows.is_empty() || file.seeds.is_empty() {
            return Err(refused("it needs at least one row and one seed".to_owned()));
        }
        let mut rows: Vec<Row> = Vec::new();
        for row in file.rows {
            let FileRow { name, run, policy } = row;
            let in_row = |problem: String| refused(format!("row `{name}`: {problem}"));
            if folder_name(&name).is_empty() {
                return Err(in_row("its name needs a letter or a digit".to_owned()));
            }
            let same = |other: &Row| folder_name(&other.name) == folder_name(&name);
            if let Some(other) = rows.iter().find(|other| same(other)) {
                return Err(in_row(format!(
                    "its name is too near to that of `{}`: both would be in one folder",
                    other.name
                )));
            }
            let merged = Value::Table(merged(file.run.clone(), run));
            let mut config: RunConfig = merged
                .try_into()
                .map_err(|error: toml::de::Error| in_row(error.message().to_owned()))?;
            config.resolve_paths(folder)?;
            options.clone().apply(&mut config);
            config.resolve_paths(Path::new(""))?;
            config.check().map_err(|error| in_row(error.to_string()))?;
            if config.numerics.guard == Some(true) {
                return Err(in_row(
                    "a comparison trains every row in its numerics as they are; leave out `guard`"
                        .to_owned(),
                ));
            }
            let numerics = &config.numerics;
            let policy = policy.map(Policy::from_table).transpose();
            let policy = policy.map_err(|error| in_row(error.to_string()))?;
            if policy.is_some() && numerics.names_any() {
                return Err(in_row(
                    "it has a policy to choose its plan by, and numerics of its own; leave one out"
                        .to_owned(),
                ));
            }
            rows.push(Row {
                name,
                config,
                policy,
            });
        }
        Ok(Self {
            seeds: file.seeds,
            rows,
        })
    }
}

/// `over` on top of `base`, table by table.
fn merged(mut base: Table, over: Table) -> Table {
    for (key, value) in over {
        let value = match (base.remove(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => Value::Table(merged(base, over)),
            (_, value) => value,
        };
        base.insert(key, value);
    }
    base
}

#[cfg(test)]
mod tests {
    use super::*;

    fn study(text: &str) -> Result<Study, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Study::load(file.path(), &Configuration::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn rows_lie_on_top_of_what_all_share() {
        let study = study(
            "schema = 1\n[run.training]\nsteps = 7\nbatch_size = 4\n[[rows]]\nname = \"fp32\"\n\
             [[rows]]\nname = \"fp16, short\"\n[rows.run.training]\nsteps = 3\n\
             [rows.run.numerics]\nrecipe = \"fp16\"\n",
        )
        .unwrap();
        assert_eq!(study.seeds, [0, 1, 2]);
        let [fp32, short] = &study.rows[..] else {
            panic!("{study:?}")
        };
        assert_eq!(
            (fp32.config.training.steps, short.config.training.steps),
            (7, 3)
        );
        assert_eq!(short.config.training.batch_size, 4);
        assert_eq!(short.config.numerics.recipe.as_deref(), Some("fp16"));
        assert_eq!(fp32.config.numerics.recipe, None);
    }

    #[test]
    fn mistakes_are_named_with_their_row() {
        for (text, expected) in [
            ("schema = 2\nrows = []", "schema 2"),
            ("schema = 1\nrows = []", "at least one row"),
            ("schema = 1\nrow = 3", "line 2"),
            (
                "schema = 1\n[[rows]]\nname = \"a\"\nrun.training.steps = 0",
                "row `a`: steps",
            ),
            (
                "schema = 1\n[[rows]]\nname = \"a\"\nrun.numeric.recipe = \"fp16\"",
                "row `a`: unknown field",
            ),
            (
                "schema = 1\n[[rows]]\nname = \"a b\"\n[[rows]]\nname = \"a-b\"",
                "too near",
            ),
            (
                "schema = 1\n[[rows]]\nname = \"a\"\nrun.numerics.guard = true",
                "row `a`: a comparison",
            ),
            ("schema = 1\n[[rows]]\nname = \"--\"", "a letter or a digit"),
            (
                "schema = 1\n[[rows]]\nname = \"a\"\npolicy = { budgets = 1 }",
                "row `a`: the policy",
            ),
            (
                "schema = 1\n[[rows]]\nname = \"a\"\npolicy = { budget = 0.1 }\nrun.numerics.recipe = \"fp16\"",
                "row `a`: it has a policy",
            ),
        ] {
            let error = study(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
