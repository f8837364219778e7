//! Object-store I/O of the vault: everything that reads or writes its objects.
//!
//! [`gateway`] adds (capture, publish, rebuild); [`read`] reads (points, assemble, verify); [`setup`] makes vaults, kits
//! and keys; [`objects`] is the store below them all.

mod buffers;
pub mod error;
pub mod extents;
pub mod gateway;
pub mod objects;
pub mod read;
pub mod setup;

pub use error::StoreError;
pub use extents::{Extents, Sink};
