//! The last line of defence against hostile bytes: should a reader of a file system panic, its caller gets an error.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Entry, FileKind, FileSystem, Space};
use crate::GuestError;

/// Passes every call on, and turns a panic into [`GuestError::Damaged`].
pub(super) struct Guarded {
    pub place: String,
    pub inner: Box<dyn FileSystem>,
}

/// Runs `call`; after a panic nothing of it is used again but what the next call checks anew.
pub(super) fn guard<T>(
    place: &str,
    call: impl FnOnce() -> Result<T, GuestError>,
) -> Result<T, GuestError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let why = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("unknown");
        tracing::warn!(place, why, "the reader of a file system panicked");
        Err(GuestError::damaged(
            place,
            format!("its structures are such that the reader gave up ({why})"),
        ))
    })
}

impl Guarded {
    fn call<T>(
        &self,
        call: impl FnOnce(&dyn FileSystem) -> Result<T, GuestError>,
    ) -> Result<T, GuestError> {
        guard(&self.place, || call(&*self.inner))
    }
}

impl FileSystem for Guarded {
    fn space(&self) -> Option<Space> {
        self.call(|inner| Ok(inner.space())).ok().flatten()
    }

    fn state(&self) -> Vec<String> {
        self.call(|inner| Ok(inner.state()))
            .unwrap_or_else(|error| vec![error.to_string()])
    }

    fn kind(&self, path: &str) -> Result<Option<FileKind>, GuestError> {
        self.call(|inner| inner.kind(path))
    }

    fn size(&self, path: &str) -> Result<Option<u64>, GuestError> {
        self.call(|inner| inner.size(path))
    }

    fn list(&self, path: &str) -> Result<Vec<Entry>, GuestError> {
        self.call(|inner| inner.list(path))
    }

    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, GuestError> {
        self.call(|inner| inner.read(path, limit))
    }

    fn read_at(&self, path: &str, offset: u64, buf: &mut [u8]) -> Result<usize, GuestError> {
        self.call(|inner| inner.read_at(path, offset, buf))
    }

    fn read_link(&self, path: &str) -> Result<Option<String>, GuestError> {
        self.call(|inner| inner.read_link(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_that_names_the_volume() {
        let error = guard::<()>("sda:1", || panic!("index out of bounds")).unwrap_err();
        assert!(matches!(error, GuestError::Damaged { .. }));
        let text = error.to_string();
        assert!(text.contains("sda:1") && text.contains("index"), "{text}");
    }
}
