//! A loss scaling as a word, or as a table of settings.

use std::fmt;
use std::str::FromStr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use toml::{Table, Value};

use super::{LossScaling, LossScalingError};
use crate::names;

/// The key that names the preset whose settings a table changes.
const PRESET: &str = "preset";
/// The key of a constant scale.
const CONSTANT: &str = "constant";

/// A preset's name, or a number: a constant scale.
impl FromStr for LossScaling {
    type Err = LossScalingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let scaling = match text.parse() {
            Ok(scale) => Self::Constant(scale),
            Err(_) => Self::preset(text)?,
        };
        scaling.check()?;
        Ok(scaling)
    }
}

impl Serialize for LossScaling {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(name) = self.preset_name() {
            return serializer.serialize_str(name);
        }
        match self {
            Self::None => serializer.serialize_str("none"),
            Self::Constant(scale) => serializer.collect_map([(CONSTANT, scale)]),
            Self::Dynamic(settings) => self.with_settings(settings).serialize(serializer),
            Self::Enhanced(settings) => self.with_settings(settings).serialize(serializer),
            Self::LogMax(settings) => self.with_settings(settings).serialize(serializer),
            Self::UnderflowAware(settings) => self.with_settings(settings).serialize(serializer),
        }
    }
}

#[derive(Serialize)]
struct WithSettings<'a, T> {
    preset: &'static str,
    #[serde(flatten)]
    settings: &'a T,
}

impl LossScaling {
    /// The settings by name, each value as in TOML; none of a scale that does not move.
    pub fn settings(&self) -> Vec<(String, String)> {
        let table = match self {
            Self::None => return Vec::new(),
            Self::Constant(scale) => return vec![(CONSTANT.to_string(), scale.to_string())],
            Self::Dynamic(settings) => Table::try_from(settings),
            Self::Enhanced(settings) => Table::try_from(settings),
            Self::LogMax(settings) => Table::try_from(settings),
            Self::UnderflowAware(settings) => Table::try_from(settings),
        };
        let settings = table.unwrap_or_default().into_iter();
        settings
            .map(|(name, value)| (name, value.to_string()))
            .collect()
    }

    /// All settings, so that a file means the same whatever a later version's presets are.
    fn with_settings<'a, T>(&self, settings: &'a T) -> WithSettings<'a, T> {
        WithSettings {
            preset: self.kind(),
            settings,
        }
    }
}

impl<'de> Deserialize<'de> for LossScaling {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = LossScaling;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a loss scaling, { constant = NUMBER } or { preset = NAME, SETTING = VALUE, ... }")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<LossScaling, E> {
        LossScaling::preset(name).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<LossScaling, A::Error> {
        let table = Table::deserialize(MapAccessDeserializer::new(map))?;
        let scaling = of_table(table).map_err(de::Error::custom)?;
        scaling.check().map_err(de::Error::custom)?;
        Ok(scaling)
    }
}

fn of_table(mut table: Table) -> Result<LossScaling, String> {
    if let Some(constant) = table.remove(CONSTANT) {
        if let Some(key) = table.keys().next() {
            return Err(format!(
                "a constant loss scale has no other setting; remove `{key}`"
            ));
        }
        let scale = constant
            .try_into()
            .map_err(|_| "a constant loss scale is a number".to_string())?;
        return Ok(LossScaling::Constant(scale));
    }
    let name = match table.remove(PRESET) {
        Some(Value::String(name)) => name,
        _ => {
            return Err(
                "the settings of a loss scaling begin with `preset = NAME`, what they are changed from"
                    .to_string(),
            );
        }
    };
    let preset = LossScaling::preset(&name).map_err(|error| error.to_string())?;
    Ok(match preset {
        LossScaling::Dynamic(settings) => LossScaling::Dynamic(changed(&name, settings, table)?),
        LossScaling::Enhanced(settings) => LossScaling::Enhanced(changed(&name, settings, table)?),
        LossScaling::LogMax(settings) => LossScaling::LogMax(changed(&name, settings, table)?),
        LossScaling::UnderflowAware(settings) => {
            LossScaling::UnderflowAware(changed(&name, settings, table)?)
        }
        fixed @ (LossScaling::None | LossScaling::Constant(_)) => match table.keys().next() {
            None => fixed,
            Some(key) => return Err(format!("`{name}` has no settings; remove `{key}`")),
        },
    })
}

/// The settings of a preset with those in `table` instead of its own.
fn changed<T: Serialize + DeserializeOwned>(
    preset: &str,
    settings: T,
    table: Table,
) -> Result<T, String> {
    let mut settings = Table::try_from(settings).map_err(|error| error.to_string())?;
    for (setting, value) in table {
        if !settings.contains_key(&setting) {
            let known: Vec<&str> = settings.keys().map(String::as_str).collect();
            let error = LossScalingError::UnknownSetting {
                preset: preset.to_string(),
                hint: names::did_you_mean(&setting, known.iter().copied()),
                known: names::listed(&known, usize::MAX),
                setting,
            };
            return Err(error.to_string());
        }
        // One at a time, so that a wrong value is reported with the name of its setting.
        let mut tried = settings.clone();
        tried.insert(setting.clone(), value.clone());
        T::deserialize(Value::Table(tried))
            .map_err(|error| format!("{setting}: {}", error.message()))?;
        settings.insert(setting, value);
    }
    T::deserialize(Value::Table(settings)).map_err(|error| error.message().to_string())
}
