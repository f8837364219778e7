//! The object layer: one small trait over S3, Azure Blob, a directory and memory.
//!
//! Objects are written once, by conditional create, and never rewritten; there is no
//! delete here, because only prune deletes. Everything above this module sees
//! [`Objects`] and [`ObjectError`] and no storage SDK.

mod adapter;
mod azure;
mod classify;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod credentials;
mod directory;
mod endpoint;
mod error;
pub mod faulty;
mod http;
pub(crate) mod local_file;
mod memory;
mod meter;
mod name;
mod open;
mod progress;
mod retrying;
mod s3;
mod settings;
mod splitmix;
mod throttle;
mod tls;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

pub use error::{ObjectError, Retry};
pub use http::Timeouts;
pub use memory::in_memory;
pub use meter::{Meter, RequestKind, Usage};
pub use name::check_name;
pub use open::{OpenOptions, open_vault_url};
pub use retrying::{RetryPolicy, Retrying};
pub use throttle::{Rate, Throttle};

/// What [`Objects::get`] reads at most. Packs are 64 MiB at most; larger objects
/// (base map layers) are read by ranges.
pub const MAX_GET_BYTES: u64 = 128 << 20;

/// How a conditional create ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The object was not there and is now.
    New,
    /// An object of this name was there already; its bytes may be the same or others.
    Exists,
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    pub size: u64,
    /// When the store took the object, by the store's clock.
    pub store_time: Timestamp,
}

/// The objects of one vault. Names are relative to the vault, `/` between segments.
#[async_trait]
pub trait Objects: Send + Sync + Debug {
    /// Creates `name` if it does not exist (If-None-Match: *). `Exists` is an answer, not an
    /// error; it is also the answer when an earlier attempt of the same call arrived and its
    /// answer was lost, so callers settle it by content.
    async fn create(&self, name: &str, bytes: Bytes) -> Result<Created, ObjectError>;

    /// The whole object, [`MAX_GET_BYTES`] at most.
    async fn get(&self, name: &str) -> Result<Bytes, ObjectError>;

    /// Exactly this range, or [`ObjectError::Truncated`] if the object ends before it does.
    /// An empty range costs no request.
    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, ObjectError>;

    /// The object's size, `None` if it does not exist. S3 answers HEAD without a reason, so
    /// there a missing bucket reads as a missing object.
    async fn size(&self, name: &str) -> Result<Option<u64>, ObjectError>;

    /// All objects below `prefix`, sorted by name. The prefix is whole segments: `points/a`
    /// lists `points/a/1` and not `points/ab/1`; the empty prefix lists the vault.
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError>;

    /// The store's clock: the newest `Date` it has answered with (a directory: now).
    fn store_time(&self) -> Option<Timestamp>;

    /// How fast all uploads together may go.
    fn rate(&self) -> Rate {
        Rate::Unlimited
    }

    /// The vault's URL, without secrets.
    fn describe(&self) -> String;
}

#[async_trait]
impl<O: Objects + ?Sized> Objects for Arc<O> {
    async fn create(&self, name: &str, bytes: Bytes) -> Result<Created, ObjectError> {
        (**self).create(name, bytes).await
    }

    async fn get(&self, name: &str) -> Result<Bytes, ObjectError> {
        (**self).get(name).await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, ObjectError> {
        (**self).get_range(name, range).await
    }

    async fn size(&self, name: &str) -> Result<Option<u64>, ObjectError> {
        (**self).size(name).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError> {
        (**self).list(prefix).await
    }

    fn store_time(&self) -> Option<Timestamp> {
        (**self).store_time()
    }

    fn rate(&self) -> Rate {
        (**self).rate()
    }

    fn describe(&self) -> String {
        (**self).describe()
    }
}
