//! A background task that ends when its owner lets go of it.

use crate::StoreError;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::task::JoinHandle;

/// Awaits a task; dropped before that, it ends the task.
pub(super) struct Task<T>(JoinHandle<Result<T, StoreError>>);

impl<T: Send + 'static> Task<T> {
    pub fn spawn(future: impl Future<Output = Result<T, StoreError>> + Send + 'static) -> Self {
        Task(tokio::spawn(future))
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|joined| match joined {
                Ok(result) => result,
                Err(e) => Err(StoreError::Other(format!(
                    "a task of reading ended early: {e}"
                ))),
            })
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
