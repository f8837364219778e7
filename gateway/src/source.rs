//! Where the disks of a VM come from: a list of images and devices, with a hook before and after;
//! or a running VM's QEMU.

pub mod consistency;
pub mod disk_extents;
pub mod disk_list;
#[allow(dead_code)] // until `sync` captures running VMs
pub mod guest_agent;
pub mod hook;
#[allow(dead_code)] // until `sync` captures running VMs
pub mod host;
mod json_lines;
#[allow(dead_code)] // until `sync` captures running VMs
pub mod live_disk;
#[allow(dead_code)] // until `sync` captures running VMs
pub mod qemu;
#[allow(dead_code)] // until `sync` captures running VMs
pub mod qmp;
