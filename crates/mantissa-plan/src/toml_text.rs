//! Reading versioned TOML.

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// What is wrong with a TOML file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TomlFault {
    /// It is not TOML, or not of the expected shape.
    #[error("line {line}: {message}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What was found or expected there.
        message: String,
    },
    /// A table inside another file is not of the expected shape.
    #[error("{message}")]
    Table {
        /// What was found or expected in it.
        message: String,
    },
    /// There is no schema number.
    #[error(
        "it has no whole number `schema`; write `schema = {known}` if it was made for this version"
    )]
    NoSchema {
        /// The version this crate reads.
        known: u32,
    },
    /// It was made by another version.
    #[error(
        "it has schema {found} but this version of mantissa reads schema {known}; make it anew, or use the version that made it"
    )]
    OtherSchema {
        /// The file's version.
        found: i64,
        /// The version this crate reads.
        known: u32,
    },
}

/// Reads a file whose top level holds `schema`; the number is looked at first, because another version's file may
/// have any other fields.
pub(crate) fn parse<T: DeserializeOwned>(text: &str, known: u32) -> Result<T, TomlFault> {
    #[derive(Deserialize)]
    struct Head {
        schema: Option<toml::Value>,
    }
    let head: Head = toml::from_str(text).map_err(|error| at_line(text, &error))?;
    let Some(toml::Value::Integer(found)) = head.schema else {
        return Err(TomlFault::NoSchema { known });
    };
    if found != i64::from(known) {
        return Err(TomlFault::OtherSchema { found, known });
    }
    toml::from_str(text).map_err(|error| at_line(text, &error))
}

/// Reads a table inside another file, whose schema is that file's.
pub(crate) fn from_table<T: DeserializeOwned>(table: toml::Table) -> Result<T, TomlFault> {
    table
        .try_into()
        .map_err(|error: toml::de::Error| TomlFault::Table {
            message: error.message().to_owned(),
        })
}

/// Reads a TOML fragment that carries no schema of its own.
pub(crate) fn parse_unversioned<T: DeserializeOwned>(text: &str) -> Result<T, TomlFault> {
    toml::from_str(text).map_err(|error| at_line(text, &error))
}

fn at_line(text: &str, error: &toml::de::Error) -> TomlFault {
    let start = error.span().map_or(0, |span| span.start);
    let before = text.as_bytes().iter().take(start);
    TomlFault::Line {
        line: 1 + before.filter(|&&byte| byte == b'\n').count(),
        message: error.message().trim().replace('\n', " "),
    }
}
