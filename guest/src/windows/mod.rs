//! Facts about a guest of this family.

use serde::Serialize;

use crate::{GuestError, file_system::FileSystem, storage::Volume};

/// One Windows installation.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WindowsFacts {
    pub volume: String,
}

/// The facts of the Windows on this volume.
pub fn inspect(volume: &Volume, _files: &dyn FileSystem) -> Result<WindowsFacts, GuestError> {
    Ok(WindowsFacts {
        volume: volume.place.clone(),
    })
}
