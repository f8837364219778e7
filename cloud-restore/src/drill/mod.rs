//! The drill: the newest recovery point of each VM is booted from the vault, isolated, and what was seen is written down.

mod probe;
pub mod report;
pub mod settings;
mod sign;
pub mod vm;
