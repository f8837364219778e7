//! File systems on paper, for tests: folders grow from the paths of the files.

use std::collections::BTreeMap;

use crate::{
    GuestError,
    file_system::{Entry, FileKind, FileSystem, Space},
    storage::{Content, Volume},
};

#[derive(Clone, Debug)]
pub enum Node {
    File(Vec<u8>),
    Link(String),
    Unreadable,
}

/// Files and links by their absolute path.
#[derive(Clone, Debug, Default)]
pub struct TreeOnPaper {
    nodes: BTreeMap<String, Node>,
    pub caseless: bool,
    pub free_bytes: Option<u64>,
    pub state: Vec<String>,
}

impl TreeOnPaper {
    pub fn file(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let content = Node::File(content.as_ref().to_vec());
        self.nodes.insert(path.to_owned(), content);
        self
    }

    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.nodes
            .insert(path.to_owned(), Node::Link(target.to_owned()));
        self
    }

    pub fn unreadable(mut self, path: &str) -> Self {
        self.nodes.insert(path.to_owned(), Node::Unreadable);
        self
    }

    pub fn without(mut self, path: &str) -> Self {
        let below = format!("{path}/");
        self.nodes
            .retain(|name, _| name != path && !name.starts_with(&below));
        self
    }

    pub fn caseless(mut self) -> Self {
        self.caseless = true;
        self
    }

    pub fn nodes(&self) -> impl Iterator<Item = (&String, &Node)> {
        self.nodes.iter()
    }

    fn find(&self, path: &str) -> Option<(&String, &Node)> {
        match self.caseless {
            true => self
                .nodes
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(path)),
            false => self.nodes.get_key_value(path),
        }
    }

    /// What follows `path/` in the names that begin so.
    fn below(&self, path: &str) -> Vec<&str> {
        let prefix = format!("{}/", path.trim_end_matches('/'));
        let rest = |name: &'_ String| {
            let head = name.get(..prefix.len())?;
            let same = head == prefix || self.caseless && head.eq_ignore_ascii_case(&prefix);
            same.then_some(prefix.len())
        };
        let names = self.nodes.keys();
        names
            .filter_map(|name| Some(&name[rest(name)?..]))
            .collect()
    }
}

impl FileSystem for TreeOnPaper {
    fn space(&self) -> Option<Space> {
        Some(Space {
            total_bytes: 10 << 30,
            free_bytes: self.free_bytes.unwrap_or(5 << 30),
            free_inodes: None,
        })
    }

    fn state(&self) -> Vec<String> {
        self.state.clone()
    }

    fn kind(&self, path: &str) -> Result<Option<FileKind>, GuestError> {
        Ok(match self.find(path) {
            Some((_, Node::Link(_))) => Some(FileKind::Link),
            Some(_) => Some(FileKind::File),
            None if path == "/" || !self.below(path).is_empty() => Some(FileKind::Folder),
            None => None,
        })
    }

    fn size(&self, path: &str) -> Result<Option<u64>, GuestError> {
        Ok(match self.find(path) {
            Some((_, Node::File(content))) => Some(content.len() as u64),
            Some((_, Node::Unreadable)) => Some(1000),
            _ => None,
        })
    }

    fn list(&self, path: &str) -> Result<Vec<Entry>, GuestError> {
        let mut names: Vec<String> = Vec::new();
        for rest in self.below(path) {
            names.push(rest.split('/').next().unwrap_or_default().to_owned());
        }
        names.dedup();
        let entry = |name: String| {
            let path = format!("{}/{name}", path.trim_end_matches('/'));
            let kind = self.kind(&path).ok().flatten().unwrap_or(FileKind::Other);
            Entry { name, kind }
        };
        Ok(names.into_iter().map(entry).collect())
    }

    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, GuestError> {
        match self.find(path) {
            Some((_, Node::File(content))) if content.len() as u64 > limit => {
                Err(GuestError::TooLarge {
                    what: path.to_owned(),
                    bytes: content.len() as u64,
                    limit,
                })
            }
            Some((_, Node::File(content))) => Ok(Some(content.clone())),
            Some((_, Node::Unreadable)) => Err(GuestError::Damaged {
                what: path.to_owned(),
                why: "its extents point behind the volume".into(),
            }),
            _ => Ok(None),
        }
    }

    fn read_at(&self, path: &str, offset: u64, buf: &mut [u8]) -> Result<usize, GuestError> {
        let whole = self.read(path, u64::MAX)?.unwrap_or_default();
        Ok(copy_from(&whole, offset, buf))
    }

    fn read_link(&self, path: &str) -> Result<Option<String>, GuestError> {
        Ok(match self.find(path) {
            Some((_, Node::Link(target))) => Some(target.clone()),
            _ => None,
        })
    }
}

/// A part of a file that is in memory; how many bytes.
pub fn copy_from(content: &[u8], offset: u64, buf: &mut [u8]) -> usize {
    let from = usize::try_from(offset).map_or(content.len(), |from| from.min(content.len()));
    let count = buf.len().min(content.len() - from);
    buf[..count].copy_from_slice(&content[from..from + count]);
    count
}

/// A partition: `sda:2` is number 2 of disk `sda`.
pub fn volume(place: &str, content: Content, uuid: Option<&str>) -> Volume {
    let (disk, number) = place.split_once(':').unwrap_or((place, ""));
    Volume {
        place: place.to_owned(),
        disk: disk.to_owned(),
        number: number.parse().ok(),
        size_bytes: 10 << 30,
        content,
        uuid: uuid.map(str::to_owned),
        label: None,
        part_uuid: None,
        part_label: None,
        part_type: None,
        bootable: false,
        lvm: None,
        reader: None,
    }
}
