//! Carrying out a recovery plan. The plan's crate says what is next; here it is done, and written down in the vault first.
//!
//! From above: [`driver`] (begins what is next, ends with what came of it) → [`recorder`] (the record in the vault) and
//! [`step`] (each kind of step, done and taken back) → `world` (the vault, the cloud, the points of this run).

pub mod begin;
mod blocks;
pub mod choice;
pub mod driver;
pub mod ending;
pub mod find;
pub mod recorder;
pub mod report;
mod step;
pub mod world;

use step::CONVERSION;
pub use step::{alive_ahead, remove_left};
