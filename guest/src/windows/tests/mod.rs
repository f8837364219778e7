//! Guests in memory: hives that a small writer makes, files in a map.

pub mod files;
pub mod guest;
pub mod hive;
mod hostile;
mod inspection;
mod reading;
mod replay;
