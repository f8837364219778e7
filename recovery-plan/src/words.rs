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
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|error| serde::de::Error::custom(format!("{text:?}: {error}")))
}
