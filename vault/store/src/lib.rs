//! Object-store I/O of the vault: everything that reads or writes its objects.

pub mod objects;
