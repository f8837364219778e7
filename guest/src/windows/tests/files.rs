//! Files in a map, as an NTFS volume would give them.

use std::collections::BTreeMap;

use crate::GuestError;
use crate::file_system::{Entry, FileKind, FileSystem, Space};
use crate::paper::copy_from;

#[derive(Clone, Default)]
pub struct MemoryFiles {
    /// By paths in lower case, with their names as they were given.
    files: BTreeMap<String, (String, Vec<u8>)>,
    pub states: Vec<String>,
}

impl MemoryFiles {
    pub fn put(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        let file = (path.to_owned(), content.into());
        self.files.insert(path.to_lowercase(), file);
    }

    pub fn remove(&mut self, path: &str) {
        assert!(self.files.remove(&path.to_lowercase()).is_some(), "{path}");
    }

    fn below<'a>(&'a self, folder: &str) -> impl Iterator<Item = &'a str> {
        let prefix = format!("{}/", folder.to_lowercase());
        let paths = self
            .files
            .iter()
            .filter(move |(path, _)| path.starts_with(&prefix));
        let length = folder.len() + 1;
        paths.map(move |(_, (path, _))| &path[length..])
    }
}

impl FileSystem for MemoryFiles {
    fn space(&self) -> Option<Space> {
        None
    }

    fn state(&self) -> Vec<String> {
        self.states.clone()
    }

    fn kind(&self, path: &str) -> Result<Option<FileKind>, GuestError> {
        if self.files.contains_key(&path.to_lowercase()) {
            return Ok(Some(FileKind::File));
        }
        Ok(self.below(path).next().map(|_| FileKind::Folder))
    }

    fn size(&self, path: &str) -> Result<Option<u64>, GuestError> {
        let file = self.files.get(&path.to_lowercase());
        Ok(file.map(|(_, content)| content.len() as u64))
    }

    fn list(&self, path: &str) -> Result<Vec<Entry>, GuestError> {
        let mut entries: Vec<Entry> = Vec::new();
        for rest in self.below(path) {
            let (name, kind) = match rest.split_once('/') {
                Some((name, _)) => (name.to_owned(), FileKind::Folder),
                None => (rest.to_owned(), FileKind::File),
            };
            if entries.iter().all(|entry| entry.name != name) {
                entries.push(Entry { name, kind });
            }
        }
        Ok(entries)
    }

    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, GuestError> {
        let Some((_, content)) = self.files.get(&path.to_lowercase()) else {
            return Ok(None);
        };
        let bytes = content.len() as u64;
        if bytes > limit {
            let what = path.to_owned();
            return Err(GuestError::TooLarge { what, bytes, limit });
        }
        Ok(Some(content.clone()))
    }

    fn read_at(&self, path: &str, offset: u64, buf: &mut [u8]) -> Result<usize, GuestError> {
        let file = self.files.get(&path.to_lowercase());
        Ok(file.map_or(0, |(_, content)| copy_from(content, offset, buf)))
    }

    fn read_link(&self, _path: &str) -> Result<Option<String>, GuestError> {
        Ok(None)
    }
}
