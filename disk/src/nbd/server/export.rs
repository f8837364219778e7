//! What a server shows: a disk that may have to wait for its data.

use async_trait::async_trait;
use bytes::Bytes;

use crate::nbd::Extent;

/// Part of what a read gives, in order and without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Data(Bytes),
    /// That many zeroes, at least one.
    Zeroes(u32),
}

impl Piece {
    pub fn length(&self) -> u64 {
        match self {
            Piece::Data(bytes) => bytes.len() as u64,
            Piece::Zeroes(length) => u64::from(*length),
        }
    }
}

/// Why a request fails, in the protocol's own numbers, and in words for those who read them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ServeError {
    pub(super) errno: u32,
    message: String,
}

impl ServeError {
    /// The data cannot be had.
    pub fn io(message: impl Into<String>) -> Self {
        Self::new(5, message)
    }

    /// There is no room for a write.
    pub fn no_space(message: impl Into<String>) -> Self {
        Self::new(28, message)
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(22, message)
    }

    pub(super) fn read_only() -> Self {
        Self::new(1, "this export is read-only")
    }

    fn new(errno: u32, message: impl Into<String>) -> Self {
        ServeError {
            errno,
            message: message.into(),
        }
    }
}

/// A disk that is shown. Ranges lie within the disk and are not empty; requests come side by side, and whoever
/// answers one may take any order.
#[async_trait]
pub trait Export: Send + Sync {
    fn size_bytes(&self) -> u64;

    fn is_read_only(&self) -> bool;

    /// What is at hand without waiting; `None` when [`Export::read`] has to be asked.
    fn read_now(&self, offset: u64, length: u32) -> Option<Result<Vec<Piece>, ServeError>>;

    async fn read(&self, offset: u64, length: u32) -> Result<Vec<Piece>, ServeError>;

    async fn write(&self, offset: u64, data: Bytes) -> Result<(), ServeError>;

    /// Makes a range read as zero; also what a trim does, so that what was trimmed is known to be zero.
    async fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), ServeError>;

    /// What was written before, by whatever connection, survives the end of this program as far as it is kept at all.
    async fn flush(&self) -> Result<(), ServeError>;

    /// Brings a range near; whether that succeeds does not matter.
    async fn prefetch(&self, offset: u64, length: u64);

    /// `base:allocation` from `offset` on: at least one extent, none empty, in all at most `length` bytes.
    async fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, ServeError>;
}
