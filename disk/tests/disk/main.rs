//! Disks of every format against QEMU's own tools (Debian package qemu-utils).

mod device;
mod images;
mod in_use;
mod lifetime;
mod nbd;
mod nbd_tls;
mod read;
mod resume;
mod write;
