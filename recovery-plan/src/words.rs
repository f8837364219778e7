//! Values that a plan writes as words: read by what they are, written the same way.

use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// For `#[serde(deserialize_with)]`: a string that is read by its type, whose error says what it takes.
pub fn parsed<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    read(&String::deserialize(deserializer)?)
}

/// The same, also of a time without quotes, as TOML has it.
pub fn parsed_or_time<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    match toml::Value::deserialize(deserializer)? {
        toml::Value::String(text) => read(&text),
        other => read(&other.to_string()),
    }
}

fn read<T, E>(text: &str) -> Result<T, E>
where
    T: FromStr<Err: Display>,
    E: serde::de::Error,
{
    text.parse()
        .map_err(|error| E::custom(format!("{text:?}: {error}")))
}
