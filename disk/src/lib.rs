//! What a disk is: opening and creating disk images of every format, sparse
//! reading and writing, and the NBD protocol. Blocking code, callable from any
//! thread; knows no vault, no cloud and no hypervisor.

mod create;
mod error;
pub mod format;
mod in_place;
pub mod in_use;
pub mod nbd;
mod nbd_disk;
mod new_file;
mod new_image;
mod open;
mod partial;
mod qemu_nbd;
mod raw;
mod reader;
mod unbuffered;
mod whole;
mod writer;
mod writing;

pub use create::{CreateOptions, Resumable, create, create_or_resume};
pub use error::DiskError;
pub use format::Format;
pub use in_place::open_in_place;
pub use in_use::{InUse, in_use};
pub use nbd_disk::NbdDisk;
pub use open::{OpenOptions, References, open};
pub use partial::partial_file;
pub use reader::DiskReader;
pub use writer::{DiskReadWriter, DiskWriter};
