//! Work on several disks at once, as many as the machine bears.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use vault_store::StoreError;
use vault_store::read::disks_at_once;

/// Runs all works, each in a task of its own: what blocks in one holds up no other. Returns their results by number, or the
/// first error with its; the others are ended then, as they are when this is dropped.
pub async fn side_by_side<T: Send + 'static>(
    works: Vec<(
        usize,
        impl Future<Output = Result<T, StoreError>> + Send + 'static,
    )>,
) -> Result<Vec<(usize, T)>, (usize, StoreError)> {
    let places = Arc::new(Semaphore::new(disks_at_once()));
    let mut tasks = JoinSet::new();
    for (number, work) in works {
        let places = Arc::clone(&places);
        tasks.spawn(async move {
            // The semaphore is never closed.
            let _place = places.acquire_owned().await;
            work.await
                .map(|done| (number, done))
                .map_err(|error| (number, error))
        });
    }
    let mut all = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(done) => all.push(done?),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => {
                let why = format!("the work on a disk ended early: {error}");
                return Err((0, StoreError::Other(why)));
            }
        }
    }
    Ok(all)
}
