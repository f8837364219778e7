//! What can be wrong with bytes of a vault. Callers add the object's name; these say what in it is wrong.

/// Why bytes were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("truncated: {what} needs {needed} bytes, {left} are left")]
    Truncated {
        what: &'static str,
        needed: u64,
        left: u64,
    },
    #[error("not {what}: it does not begin as one")]
    Magic { what: &'static str },
    #[error("{what} {found} is unknown to this version; a newer sparesite-restore may know it")]
    Unknown { what: &'static str, found: String },
    #[error("{what} is {found}, more than the limit of {limit}")]
    Limit {
        what: &'static str,
        found: u64,
        limit: u64,
    },
    #[error("damaged: {0}")]
    Damaged(String),
    #[error("checksum does not match: the object is damaged")]
    Checksum,
    #[error("signature does not hold: {0}")]
    Signature(String),
    #[error("cannot be opened: {0} (damaged, of another vault, or swapped with another object)")]
    Sealed(&'static str),
    #[error("wrong passphrase for this recovery kit")]
    Passphrase,
    #[error(
        "no {kind} key number {number}: it was made after this key file was issued; issue a new gateway key"
    )]
    MissingKey { kind: &'static str, number: u32 },
}

impl FormatError {
    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        FormatError::Damaged(what.into())
    }

    pub(crate) fn unknown(what: &'static str, found: impl std::fmt::Display) -> Self {
        FormatError::Unknown {
            what,
            found: found.to_string(),
        }
    }
}
