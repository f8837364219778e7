//! A vault in a directory: fsynced creates; staged leftovers of a crash stay unlisted.

use std::path::Path;
use std::sync::Arc;

use object_store::local::LocalFileSystem;

use super::ObjectError;
use super::adapter::{Backend, StoreObjects};
use super::open::OpenOptions;

/// Opens `root`, which must exist unless it is to be created (only `init` sets it).
pub(super) async fn open_directory(
    root: &Path,
    options: &OpenOptions,
) -> Result<StoreObjects, ObjectError> {
    let url = format!("file://{}", root.display());
    let trouble = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
            ObjectError::BucketMissing { store: url.clone() }
        }
        std::io::ErrorKind::PermissionDenied => ObjectError::Denied {
            name: "the directory".to_owned(),
            store: url.clone(),
            cause: error.to_string(),
        },
        _ => ObjectError::Other {
            name: "the directory".to_owned(),
            store: url.clone(),
            cause: error.to_string(),
        },
    };
    if options.create_directory {
        tokio::fs::create_dir_all(root).await.map_err(&trouble)?;
    }
    if !tokio::fs::metadata(root).await.map_err(&trouble)?.is_dir() {
        return Err(ObjectError::BucketMissing { store: url });
    }
    let store = LocalFileSystem::new_with_prefix(root).map_err(|error| ObjectError::Other {
        name: "the directory".to_owned(),
        store: url.clone(),
        cause: super::classify::deepest(&error),
    })?;
    Ok(StoreObjects::new(
        Arc::new(store.with_fsync(true)),
        Backend::Directory(root.to_owned()),
        String::new(),
        url,
        options.meter.clone(),
    ))
}
