//! What the daemon does next, and how fast the uplink may be used: decided from values, with the
//! time as an argument, so that months are simulated in a second.

mod backoff;
mod next_action;
#[cfg(test)]
mod simulation;
mod uplink_caps;

pub use backoff::Failures;
pub use next_action::{Action, Place, Schedule, Took, UplinkStanding, VmStanding, next_action};
pub use uplink_caps::{CapNow, cap_at};
