//! What can go wrong with a vault, each with the object, the reason and the remedy.

use crate::objects::ObjectError;
use vault_format::FormatError;

/// An error of a source or sink of disk data, as its owner words it.
pub type DiskFailure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Object(#[from] ObjectError),

    #[error("object {name}: {error}; run `sparesite-restore verify` to learn what is affected")]
    Format { name: String, error: FormatError },

    #[error("{what}: {error}")]
    Key { what: String, error: FormatError },

    #[error(
        "this is the vault {found}, not {expected}: the key or kit is of another vault; check the vault URL"
    )]
    OtherVault { expected: String, found: String },

    #[error(
        "there is no vault at {0}: it is not mounted, or the URL is mistyped; check the vault URL. Nothing was captured"
    )]
    NoVault(String),

    #[error(
        "there is a vault at {0} already; nothing was changed. Choose an empty place, or add a gateway with --join"
    )]
    VaultExists(String),

    #[error(
        "state {path}: {cause}; if it persists, run `sparesite-gateway rebuild`, which costs time and no data"
    )]
    State { path: String, cause: String },

    #[error("state {0} is in use by another sparesite-gateway; wait for it, or end it")]
    StateInUse(String),

    #[error(
        "the key of this gateway (writer {writer}) was revoked; nothing was captured. Issue a new key with `sparesite-restore gateway-key issue`, and join with it"
    )]
    Revoked { writer: String },

    #[error(
        "another gateway has taken over this gateway's key (epoch {found}, this one has {own}): a copy of this machine is running, or this machine was set back to an older copy of its disk. Nothing was captured. End the other one, then run `sparesite-gateway rebuild` on the one that shall go on"
    )]
    TakenOver { own: u64, found: u64 },

    #[error(
        "somebody else wrote recovery point {object} with this gateway's key: its state is older than the vault, or a copy of it is running"
    )]
    Conflict { object: String },

    #[error(
        "VM {vm} is fenced: it was failed over by {by}, and is not captured until that is undone"
    )]
    Fenced { vm: String, by: String },

    #[error(
        "VM {vm} is captured by gateway {by} now. If that is a mistake, revoke its key; if both have a VM of this name, give one of them another name; to take the VM over, run `sparesite-gateway rebuild`"
    )]
    TakenVm { vm: String, by: String },

    #[error(
        "the outbox is full: the {most_bytes} bytes that it may take are taken, or kept so that points that wait can be replaced; raise `max` in [outbox], or let the uplink catch up"
    )]
    OutboxFull { most_bytes: u64 },

    #[error("disk {disk} of VM {vm}, offset {offset}: {cause}")]
    Disk {
        vm: String,
        disk: String,
        offset: u64,
        cause: String,
    },

    #[error("writing disk {disk}, offset {offset}: {cause}")]
    Sink {
        disk: String,
        offset: u64,
        cause: String,
    },

    #[error("VM {vm} is not in this vault; it has {known}")]
    NoSuchVm { vm: String, known: String },

    #[error("VM {vm} has no recovery point {asked}; it has {known}")]
    NoSuchPoint {
        vm: String,
        asked: String,
        known: String,
    },

    #[error(
        "chunk {id} is not restorable: {why}; run `sparesite-restore verify` to learn which recovery points are whole"
    )]
    LostChunk { id: String, why: String },

    #[error("{0}")]
    Other(String),
}

impl StoreError {
    pub fn format(name: &str) -> impl FnOnce(FormatError) -> StoreError {
        let name = name.to_owned();
        move |error| StoreError::Format { name, error }
    }

    /// Whether it concerns one VM, and no other.
    pub fn is_of_one_vm(&self) -> bool {
        matches!(self, StoreError::Fenced { .. } | StoreError::TakenVm { .. })
    }

    /// Whether the error says that an object is lost or damaged, in place of the store being out of reach.
    pub fn is_damage(&self) -> bool {
        match self {
            StoreError::Format { .. } | StoreError::LostChunk { .. } => true,
            StoreError::Object(e) => {
                e.is_not_found()
                    || matches!(
                        e,
                        ObjectError::Truncated { .. } | ObjectError::TooLarge { .. }
                    )
            }
            _ => false,
        }
    }
}
