//! From a storage error to an [`ObjectError`].
//!
//! `object_store` hides the status and the store's error code in private types, so the HTTP
//! layer notes both, per operation, in a task-local that this module reads.

use std::cell::RefCell;
use std::error::Error;
use std::future::Future;
use std::io;

use object_store::client::{HttpError, HttpErrorKind};

use super::ObjectError;
use super::credentials::CredentialsTrouble;

/// The last refusal that the store gave during one operation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// 0: no HTTP, or no refusal.
    pub status: u16,
    /// `<Code>` of S3, `x-ms-error-code` of Azure.
    pub code: String,
    pub message: String,
    /// It came from where credentials are fetched, not from the store.
    pub from_token_service: bool,
}

tokio::task_local! {
    static ANSWER: RefCell<Answer>;
}

/// Runs one operation and keeps the store's refusal beside its result.
pub(super) async fn answer_of<F: Future>(operation: F) -> (F::Output, Answer) {
    let scope = ANSWER.scope(RefCell::default(), async {
        let output = operation.await;
        (output, ANSWER.with(|answer| answer.take()))
    });
    scope.await
}

/// Called by the HTTP layer for every answer that is no success.
pub(super) fn note_refusal(refusal: Answer) {
    // Outside an operation (a credential refresh in the background) nobody reads it.
    let _ = ANSWER.try_with(|answer| answer.replace(refusal));
}

impl Answer {
    /// Whether "already exists" is really meant. S3 also answers 409 to a create that raced
    /// with another one which may yet fail (ConditionalRequestConflict), and Azure to a
    /// container under deletion; `object_store` calls every 409 "exists".
    pub(super) fn means_exists(&self) -> bool {
        match (self.status, self.code.as_str()) {
            (0 | 304 | 412, _) => true,
            // An immutability policy can only protect a blob that is there.
            (409, "BlobAlreadyExists" | "BlobImmutableDueToPolicy") => true,
            _ => false,
        }
    }

    fn text(&self) -> String {
        let mut text = format!("HTTP {}", self.status);
        for part in [&self.code, &self.message] {
            if !part.is_empty() {
                text.push(' ');
                text.push_str(part);
            }
        }
        text
    }
}

/// Names the error for its object and store.
pub(super) fn classify(
    name: &str,
    store: &str,
    error: &object_store::Error,
    answer: &Answer,
) -> ObjectError {
    let (name, store) = (name.to_owned(), store.to_owned());
    if let Some(trouble) = find::<CredentialsTrouble>(error) {
        return trouble.explain(store);
    }
    if answer.from_token_service {
        let cause = answer.text();
        return ObjectError::CredentialsMissing { store, cause };
    }
    if answer.status != 0 {
        return classify_answer(name, store, answer);
    }
    if let Some(http) = find::<HttpError>(error) {
        let cause = deepest(http);
        return match http.kind() {
            HttpErrorKind::Decode => ObjectError::Other { name, store, cause },
            kind => ObjectError::Unreachable {
                name,
                store,
                cause,
                connected: kind != HttpErrorKind::Connect,
            },
        };
    }
    if let Some(error) = find::<io::Error>(error) {
        return classify_io(name, store, error);
    }
    match error {
        object_store::Error::NotFound { .. } => ObjectError::NotFound { name, store },
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => ObjectError::Denied {
            name,
            store,
            cause: deepest(error),
        },
        // Local and memory stores have no status for a range past the end.
        other if is_range_error(other) => ObjectError::Truncated {
            name,
            store,
            expected: 0,
            got: 0,
        },
        other => ObjectError::Other {
            name,
            store,
            cause: deepest(other),
        },
    }
}

fn classify_answer(name: String, store: String, answer: &Answer) -> ObjectError {
    let cause = answer.text();
    match (answer.status, answer.code.as_str()) {
        (_, "NoSuchBucket" | "ContainerNotFound" | "ContainerBeingDeleted") => {
            ObjectError::BucketMissing { store }
        }
        (_, "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired") => {
            ObjectError::CredentialsExpired { store, cause }
        }
        // Azure names an expired SAS or token only in words.
        (401 | 403, _) if names_expiry(&answer.message) => {
            ObjectError::CredentialsExpired { store, cause }
        }
        (404, _) => ObjectError::NotFound { name, store },
        (401 | 403, _) | (_, "AccountIsDisabled" | "InvalidAccessKeyId") => {
            ObjectError::Denied { name, store, cause }
        }
        (416, _) => ObjectError::Truncated {
            name,
            store,
            expected: 0,
            got: 0,
        },
        (507, _) => ObjectError::Full { name, store, cause },
        (408 | 429 | 500..=599, _)
        | (_, "SlowDown" | "RequestTimeout" | "ServerBusy")
        | (409, "ConditionalRequestConflict" | "OperationAborted") => {
            ObjectError::Throttled { name, store, cause }
        }
        (301 | 307 | 308, _) => ObjectError::Other {
            name,
            store,
            cause: format!("{cause}: the bucket is in another region than the one configured"),
        },
        _ => ObjectError::Other { name, store, cause },
    }
}

fn names_expiry(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("signed expiry time") || message.contains("lifetime validation failed")
}

pub(super) fn classify_io(name: String, store: String, error: &io::Error) -> ObjectError {
    let cause = error.to_string();
    match error.kind() {
        io::ErrorKind::NotFound => ObjectError::NotFound { name, store },
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ObjectError::Denied { name, store, cause }
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ObjectError::Full { name, store, cause }
        }
        io::ErrorKind::UnexpectedEof => ObjectError::Truncated {
            name,
            store,
            expected: 0,
            got: 0,
        },
        // NFS and SMB servers that went away.
        io::ErrorKind::StaleNetworkFileHandle | io::ErrorKind::TimedOut => {
            ObjectError::Unreachable {
                name,
                store,
                cause,
                connected: true,
            }
        }
        io::ErrorKind::Unsupported | io::ErrorKind::TooManyLinks => ObjectError::Other {
            name,
            store,
            cause: format!(
                "{cause}: the file system must have hard links, to create without overwriting"
            ),
        },
        _ => ObjectError::Other { name, store, cause },
    }
}

fn is_range_error(error: &object_store::Error) -> bool {
    let text = deepest(error).to_ascii_lowercase();
    text.contains("range")
}

fn find<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        current = error.source();
    }
    None
}

/// The innermost message: outer ones repeat the URL and the attempt's timing.
pub(super) fn deepest(error: &(dyn Error + 'static)) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string().chars().take(300).collect()
}
