//! Where the disks of a VM come from: a list of images and devices, with a hook before and after.

pub mod consistency;
pub mod disk_extents;
pub mod disk_list;
pub mod hook;
