//! Disks of every format against QEMU's own tools (Debian package qemu-utils).

mod images;
mod read;
