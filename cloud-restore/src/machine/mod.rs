//! A recovery point as a running machine: QEMU on the disks that are served. Used by `boot` and `drill`.
//!
//! `plan` says which machine (pure), `local` what QEMU of this host can do, `running` starts and ends it, `qmp` speaks to
//! it.

mod arguments;
mod local;
mod plan;
mod qmp;
mod running;

pub use arguments::Console;
pub use local::{Local, has_kvm_here, qemu_version};
pub use plan::{Choices, Machine, Network, Plan, bus_name, nic_device, plan};
pub use qmp::Qmp;
pub use running::{Running, how};
