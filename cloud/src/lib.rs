//! What a failover asks of a cloud: disks as the cloud's snapshots, images, instances, and a deadline that tears a test down.
//! It knows nothing of vaults and plans; only this crate imports what speaks to a compute cloud.

pub mod aws;
mod blocks;
mod error;

pub use blocks::{BLOCK_BYTES, Blocks};
pub use error::{CloudError, Kind};
