//! A disk of a recovery point as it is served: chunks fetched on demand and kept in a bounded cache, writes kept in an
//! overlay. The vault is only read.
//!
//! From above: [`ServedDisk`] (what NBD asks for) → `chunks` (which are at hand, which are on their way, what is read
//! ahead) → `cache` and `source`; `overlay` beside them. `sealed_blocks` is the file below cache and throw-away overlay.

mod cache;
mod chunks;
mod disk;
mod overlay;
mod queue;
mod read_ahead;
mod sealed_blocks;
mod serving;
mod source;
#[cfg(test)]
mod tests;

pub use disk::{ServedDisk, Usage};
pub use overlay::{Overlay, Part};
pub use serving::{CacheArgs, Opened, Writes, exports, flush_all, kept, open_disks, unanswered};
pub use source::{Chunk, ChunkSource, VaultSource};

/// The unit of overlays, and of what is sealed in files: the vault's block.
pub const BLOCK_BYTES: u64 = 4096;
