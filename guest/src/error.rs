//! Why something of a guest could not be read. A guest that cannot be read is a finding, never a failure of the program.

use virtual_disk::DiskError;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// The disk itself: the vault, the network, the medium.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What lies on it does not hold together. `what` names the volume and the structure.
    #[error("{what} is damaged: {why}")]
    Damaged { what: String, why: String },
    /// Whole, as far as can be seen, but of a kind that is not read here.
    #[error("{what} is not supported: {why}")]
    Unsupported { what: String, why: String },
    /// Larger than what is read of such a file or structure.
    #[error("{what} has {bytes} bytes, and at most {limit} are read")]
    TooLarge {
        what: String,
        bytes: u64,
        limit: u64,
    },
}

impl GuestError {
    pub(crate) fn damaged(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Damaged {
            what: what.into(),
            why: why.into(),
        }
    }

    pub(crate) fn unsupported(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Unsupported {
            what: what.into(),
            why: why.into(),
        }
    }
}
