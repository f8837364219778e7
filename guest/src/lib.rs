//! What a guest's disks hold, judged from outside: partitions, volumes, file systems, boot loader, kernels, drivers,
//! network; and whether that will boot on a given target. Reads through [`virtual_disk::DiskReader`] and reads little;
//! writes nothing, mounts nothing. Every byte of a guest is hostile: bounded, checked, never a panic.
//!
//! From below: `storage` (disks → volumes), `file_system` (volumes → files), `linux` and `windows` (files → facts),
//! `judge` (facts → findings; pure).

mod error;
pub mod facts;
pub mod file_system;
mod inspect;
pub mod judge;
pub mod linux;
pub mod mend;
#[cfg(test)]
mod paper;
pub mod storage;
pub mod windows;

pub use error::GuestError;
pub use inspect::inspect;
pub use judge::judge;
