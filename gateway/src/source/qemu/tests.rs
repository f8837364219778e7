//! Against a real QEMU without a guest: writes go through the device's own block backend, by the
//! monitor's `qemu-io`, and so through whatever filter is in place.

pub mod agent;
pub mod fixture;
mod frozen;
mod guarded;
mod instant;
mod left_behind;
mod over_restarts;
mod over_ssh;
mod scratch_space;
