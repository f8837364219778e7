//! Facts about a guest of this family.

use serde::Serialize;

use crate::{GuestError, file_system::FileSystem, storage::Volume};

/// What is known of a Windows guest.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WindowsFacts {
    /// [`Volume::place`]
    pub place: String,
    /// `AMD64`, `x86`, `ARM64`.
    pub architecture: Option<String>,
    /// What could not be read, and why.
    pub unread: Vec<String>,
}

/// The facts of the Windows on this volume.
pub fn inspect(volume: &Volume, _files: &dyn FileSystem) -> Result<WindowsFacts, GuestError> {
    Ok(WindowsFacts {
        place: volume.place.clone(),
        ..WindowsFacts::default()
    })
}
