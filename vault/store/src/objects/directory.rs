//! A vault in a directory: fsynced creates. Where the file system cannot make nameless files, a crash may leave a staged
//! one (`name#1`), which is not listed.

use std::path::Path;
use std::sync::Arc;

use object_store::local::LocalFileSystem;

use super::ObjectError;
use super::adapter::{Backend, StoreObjects};
use super::local_file::Root;
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
    over(Root::new(root.to_owned()), options)
}

fn over(root: Root, options: &OpenOptions) -> Result<StoreObjects, ObjectError> {
    let url = format!("file://{}", root.path.display());
    let store =
        LocalFileSystem::new_with_prefix(&root.path).map_err(|error| ObjectError::Other {
            name: "the directory".to_owned(),
            store: url.clone(),
            cause: super::classify::deepest(&error),
        })?;
    Ok(StoreObjects::new(
        Arc::new(store.with_fsync(true)),
        Backend::Directory(Arc::new(root)),
        String::new(),
        url,
        options.meter.clone(),
    )
    .throttled(options.throttle.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::conformance;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_system_without_nameless_files_passes_the_suite_too() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::refusing(folder.path().to_owned());
        let objects = over(root, &OpenOptions::default()).unwrap();
        conformance::run(&objects).await;
    }
}
