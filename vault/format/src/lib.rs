//! The vault format: what the bytes are, and what they mean. Pure: no I/O, no clock, no randomness; keys, ids, times and
//! seeds are arguments, so the same input gives the same bytes. The document is `docs/vault-format.md`; section numbers
//! in these modules are its.

pub mod block_values;
pub mod chain;
pub mod control_log;
pub mod entry;
pub mod error;
pub mod fence;
pub mod gateway_key;
pub mod ids;
pub mod keys;
pub mod kit;
pub mod kit_page;
pub mod layer;
pub mod layer_plan;
pub mod manifest;
pub mod metadata_object;
pub mod names;
pub mod pack;
pub mod proof;
pub mod record;
pub mod run_record;
pub mod seal;
pub mod segment;
pub mod signed_json;
pub mod vault_config;

mod reader;

pub use error::FormatError;
pub use ids::{ChunkId, PackName, PointId, VaultId, VmId, WriterId};

/// The format version that this code writes and reads.
pub const FORMAT: u16 = 1;
/// The unit of change inside a chunk, in bytes.
pub const BLOCK_BYTES: usize = 4096;
/// Chunk size unless `init` was told otherwise, in bytes.
pub const DEFAULT_CHUNK_BYTES: u32 = 256 * 1024;
/// Smallest and largest chunk size, in bytes; powers of two only.
pub const CHUNK_BYTES_RANGE: std::ops::RangeInclusive<u32> = 64 * 1024..=4 * 1024 * 1024;

/// The format document itself, as `init` stores it in every vault.
pub const DOCUMENT: &str = include_str!("../../../docs/vault-format.md");
