//! What shall happen on the bad day, decided before it: a recovery plan, read and judged.
//!
//! Pure: the plan's text, what the vault knows of the VMs, what the cloud answered, prices and the time are arguments, and the same arguments give
//! the same answer. Who carries a plan out is elsewhere.

mod address;
pub mod anomaly;
mod check;
pub mod cloud;
pub mod draft;
pub mod judge;
pub mod known;
mod living;
mod order;
mod plan;
mod point;
pub mod prices;
pub mod run;
mod words;

pub use address::{AddressError, given_address};
pub use check::PlanError;
pub use living::{Controller, Living, living};
pub use order::{Start, starts};
pub use plan::{
    AddressRule, Cloud, Group, Hook, Licence, Map, Plan, PlannedVm, Probe, ProbeKind, Subnet,
    Volume, VolumeType,
};
pub use point::{Chosen, NoPoint, PointRule, choose};
