//! Amounts as people write them in configuration and on the command line: `500 GB`, `8 Mbit/s`,
//! `1h 30m`. A number without its unit is refused. Each type prints what it parses, exactly;
//! rounded figures for people are in [`crate::show`].

mod bit_rate;
mod bytes;
mod duration;
mod quantity;

pub use bit_rate::BitRate;
pub use bytes::Bytes;
pub use duration::Duration;

/// Why a text is not the amount that was asked for. The message names what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {wanted}: {why}")]
pub struct UnitError {
    text: String,
    wanted: &'static str,
    why: String,
}

impl UnitError {
    fn new(text: &str, wanted: &'static str, why: impl Into<String>) -> Self {
        // A whole file pasted into a value must not become the message.
        let text = text.chars().take(40).collect();
        UnitError {
            text,
            wanted,
            why: why.into(),
        }
    }
}

/// serde and `FromStr`/`Display` go together: the written form is the serialized form.
macro_rules! written_form {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                struct Written;
                impl serde::de::Visitor<'_> for Written {
                    type Value = $type;
                    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                        f.write_str(<$type>::WANTED)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                input.deserialize_str(Written)
            }
        }
    };
}
use written_form;
