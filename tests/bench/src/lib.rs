//! The bench's own tools: a disk and its changes from a fixed seed, the least
//! bytes that a change can cost, and the same work in a minimal loop.
//!
//! Nothing here depends on the product: what judges it must not share its code. (`bench-synthetic`
//! does: it makes a vault too large to sync, in the product's own format.)

pub mod bound;
pub mod change;
pub mod database_page;
pub mod disk;
pub mod extents;
pub mod filesystem;
pub mod limit;
pub mod real_files;
pub mod seed;

/// The unit of change: what the bound counts.
pub const BLOCK: usize = 4096;

/// Both the machine that the targets were set on and the loops here have two.
pub const THREADS: usize = 2;
