//! Where the disks of a VM come from: a list of images and devices, with a hook before and after;
//! or a running VM's QEMU.

pub mod consistency;
pub mod discovered;
pub mod disk_extents;
pub mod disk_list;
pub mod guest_agent;
pub mod hook;
pub mod host;
mod json_lines;
pub mod libvirt;
pub mod live_disk;
pub mod nbd_list;
pub mod proxmox;
pub mod qemu;
pub mod qmp;

#[cfg(test)]
#[path = "source/tests/judged.rs"]
mod judged;
