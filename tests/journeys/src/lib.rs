//! What the journeys stand on: a site of their own in a temporary folder, disks whose content is
//! known, and runs of the two programs that are judged as a user or a script would judge them.

mod disk;
mod guest;
mod image;
mod libvirt;
mod namespace;
mod process;
mod programs;
mod qemu;
mod reader;
mod run;
mod site;

pub use disk::{KIB, MIB, assert_same, fill, make_disk, make_random, make_sparse, zero};
pub use guest::make_guest;
pub use image::{assert_same_image, check, convert, virtual_size};
pub use libvirt::Libvirt;
pub use namespace::{SmallDisk, small_disk};
pub use process::{Background, processes_of, qemu_nbd_of, wait_until};
pub use programs::{has, program, program_folder};
pub use qemu::{GUEST_DISK_BYTES, Left, Monitor, Qemu};
pub use reader::{make_reader, reader_says};
pub use run::Run;
pub use site::{PASSPHRASE, Site, Where, copy_folder, packs};
