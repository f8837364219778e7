//! Names with types: each id is its own type, shown and stored as lower-case hex.

use crate::FormatError;
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// Parses exactly the lower-case hex form.
            pub fn from_hex(text: &str) -> Result<Self, FormatError> {
                Ok($name(hex_array(text, stringify!($name))?))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({}…)", stringify!($name), hex::encode(&self.0[..4]))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                $name::from_hex(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(/// Keyed BLAKE3 of a plaintext chunk (section 6).
    ChunkId, 32);
id!(/// BLAKE3 of a pack's bytes: its name.
    PackName, 32);
id!(/// BLAKE3 of the bytes of the vault's first configuration object.
    VaultId, 32);
id!(/// BLAKE3 of a whole object, such as a manifest.
    ObjectHash, 32);
id!(/// One gateway in the vault; random.
    WriterId, 16);
id!(/// A protected VM, by the keyed hash of its name (section 2).
    VmId, 16);
id!(/// A recovery plan, by the keyed hash of its name (section 11).
    PlanId, 16);
id!(/// What tells two metadata objects of a writer apart (section 2).
    Tag, 16);
id!(/// Random id of one capture.
    CaptureId, 16);

/// Fixed-size lower-case hex; the error names what was expected.
pub(crate) fn hex_array<const N: usize>(
    text: &str,
    what: &'static str,
) -> Result<[u8; N], FormatError> {
    let mut out = [0; N];
    if text.bytes().any(|b| b.is_ascii_uppercase()) || hex::decode_to_slice(text, &mut out).is_err()
    {
        let shown: String = text.chars().take(16).collect();
        return Err(FormatError::damaged(format!(
            "`{shown}` is not {what}: {} hex digits are expected",
            2 * N
        )));
    }
    Ok(out)
}

/// BLAKE3 of an object's bytes, as other objects refer to it.
pub fn object_hash(bytes: &[u8]) -> ObjectHash {
    ObjectHash(*blake3::hash(bytes).as_bytes())
}

/// A recovery point of a VM: the points of a VM are ordered by this, never by a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PointId {
    pub epoch: u64,
    pub sequence: u64,
}

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}-{:010}", self.epoch, self.sequence)
    }
}

impl PointId {
    /// Parses `<epoch>-<sequence>`, ten digits each.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let wrong = || FormatError::damaged(format!("`{text}` is not <epoch>-<sequence>"));
        let (epoch, sequence) = text.split_once('-').ok_or_else(wrong)?;
        Ok(PointId {
            epoch: decimal(epoch).ok_or_else(wrong)?,
            sequence: decimal(sequence).ok_or_else(wrong)?,
        })
    }
}

/// A decimal name part: exactly ten digits.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    (text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}
