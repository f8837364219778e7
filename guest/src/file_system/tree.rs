//! What all file systems that are read here have in common: a root, folders with names, files with bytes. Each tells
//! these; paths, listings, limits and the cache of folders are here once.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::rc::Rc;

use lru::LruCache;

use super::{Entry, FileKind, FileSystem, Space};
use crate::GuestError;

/// What a listing gives at most.
const MAX_LISTED: usize = 65_536;
/// What a folder may hold to be searched; one of a million mails is told as too large, not as empty.
pub(super) const MAX_CHILDREN: usize = 262_144;
/// Larger folders are not kept: 32 kept ones have 40 MB at most.
const MAX_KEPT_CHILDREN: usize = 16_384;
const KEPT_FOLDERS: NonZeroUsize = NonZeroUsize::new(32).expect("not zero");
/// No path of a guest that is asked for is longer.
const MAX_COMPONENTS: usize = 256;

/// A name in a folder.
#[derive(Clone, Debug)]
pub(super) struct Child<N> {
    pub name: String,
    /// None where the folder does not tell: [`Tree::kind`] does.
    pub kind: Option<FileKind>,
    pub node: N,
    /// A second name of the same file (8.3), which leads to it but is not listed.
    pub is_alias: bool,
}

pub(super) trait Tree {
    /// How the file system itself names a file.
    type Node: Clone;

    /// NTFS and FAT.
    const IGNORES_CASE: bool;

    fn root(&self) -> Self::Node;
    fn kind(&self, node: &Self::Node) -> Result<FileKind, GuestError>;
    /// Without `.` and `..`; fails above [`MAX_CHILDREN`].
    fn children(&self, folder: &Self::Node) -> Result<Vec<Child<Self::Node>>, GuestError>;
    fn size(&self, file: &Self::Node) -> Result<u64, GuestError>;
    /// Fills `buf` from `offset` of a file, which reaches that far, and reads nothing of it beside that.
    fn content_at(&self, file: &Self::Node, offset: u64, buf: &mut [u8]) -> Result<(), GuestError>;
    fn target(&self, link: &Self::Node) -> Result<Option<String>, GuestError>;
    fn space(&self) -> Option<Space>;
    fn state(&self) -> Vec<String>;
    /// The volume, for errors.
    fn place(&self) -> &str;
}

/// The blocks that hold `length` bytes from `offset` on.
pub(super) fn blocks_of(offset: u64, length: usize, block_bytes: u64) -> Range<u64> {
    let end = offset.saturating_add(length as u64).div_ceil(block_bytes);
    offset / block_bytes..end
}

/// Of a run of `length` bytes at `start` of a file, what falls into `buf`, which is the file from `offset` on: how far
/// into the run that is, and where it belongs.
pub(super) fn overlap(
    start: u64,
    length: u64,
    offset: u64,
    buf: &mut [u8],
) -> Option<(u64, &mut [u8])> {
    let from = start.max(offset);
    let end = start
        .saturating_add(length)
        .min(offset.saturating_add(buf.len() as u64));
    if from >= end {
        return None;
    }
    let part = buf.get_mut((from - offset) as usize..(end - offset) as usize)?;
    Some((from - start, part))
}

/// A [`Tree`] with paths.
pub(super) struct Browser<T: Tree> {
    tree: T,
    folders: RefCell<LruCache<String, Children<T>>>,
    /// What was found last, by the path that was asked for: files are read in pieces.
    last: RefCell<Option<(String, Found<T>)>>,
}

/// Kind, node, and the path as the cache knows it.
type Found<T> = (FileKind, <T as Tree>::Node, String);
type Children<T> = Rc<Vec<Child<<T as Tree>::Node>>>;

impl<T: Tree> Browser<T> {
    pub(super) fn new(tree: T) -> Self {
        Self {
            tree,
            folders: RefCell::new(LruCache::new(KEPT_FOLDERS)),
            last: RefCell::new(None),
        }
    }

    fn children(&self, path: &str, node: &T::Node) -> Result<Children<T>, GuestError> {
        if let Some(kept) = self.folders.borrow_mut().get(path) {
            return Ok(kept.clone());
        }
        let children = Rc::new(self.tree.children(node)?);
        if children.len() <= MAX_KEPT_CHILDREN {
            self.folders
                .borrow_mut()
                .put(path.to_owned(), children.clone());
        }
        Ok(children)
    }

    fn kind_of(&self, child: &Child<T::Node>) -> Result<FileKind, GuestError> {
        child.kind.map_or_else(|| self.tree.kind(&child.node), Ok)
    }

    fn find(&self, path: &str) -> Result<Option<Found<T>>, GuestError> {
        if let Some((last, found)) = &*self.last.borrow()
            && last == path
        {
            return Ok(Some(found.clone()));
        }
        let found = self.walk(path)?;
        if let Some(found) = &found {
            *self.last.borrow_mut() = Some((path.to_owned(), found.clone()));
        }
        Ok(found)
    }

    /// Goes down the path without following links.
    fn walk(&self, path: &str) -> Result<Option<Found<T>>, GuestError> {
        let Some(components) = components(path) else {
            return Ok(None);
        };
        let mut kind = FileKind::Folder;
        let mut node = self.tree.root();
        let mut walked = String::new();
        for component in components {
            if kind != FileKind::Folder {
                return Ok(None);
            }
            let children = self.children(&walked, &node)?;
            let Some(child) = children
                .iter()
                .find(|child| same_name::<T>(&child.name, component))
            else {
                return Ok(None);
            };
            kind = self.kind_of(child)?;
            node = child.node.clone();
            walked.push('/');
            walked.push_str(&child.name);
        }
        Ok(Some((kind, node, walked)))
    }

    fn find_kind(&self, path: &str, wanted: FileKind) -> Result<Option<T::Node>, GuestError> {
        Ok(self
            .find(path)?
            .and_then(|(kind, node, _)| (kind == wanted).then_some(node)))
    }
}

/// `None` for a path that is not absolute, or too long. `..` goes up by name, as no link is ever followed.
fn components(path: &str) -> Option<Vec<&str>> {
    let mut components = Vec::new();
    for component in path.strip_prefix('/')?.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                components.pop();
            }
            name => components.push(name),
        }
    }
    (components.len() <= MAX_COMPONENTS).then_some(components)
}

fn same_name<T: Tree>(name: &str, wanted: &str) -> bool {
    name == wanted
        || T::IGNORES_CASE
            && name
                .chars()
                .flat_map(char::to_uppercase)
                .eq(wanted.chars().flat_map(char::to_uppercase))
}

impl<T: Tree> FileSystem for Browser<T> {
    fn space(&self) -> Option<Space> {
        self.tree.space()
    }

    fn state(&self) -> Vec<String> {
        self.tree.state()
    }

    fn kind(&self, path: &str) -> Result<Option<FileKind>, GuestError> {
        Ok(self.find(path)?.map(|(kind, ..)| kind))
    }

    fn size(&self, path: &str) -> Result<Option<u64>, GuestError> {
        self.find_kind(path, FileKind::File)?
            .map(|node| self.tree.size(&node))
            .transpose()
    }

    fn list(&self, path: &str) -> Result<Vec<Entry>, GuestError> {
        let Some((FileKind::Folder, node, walked)) = self.find(path)? else {
            return Ok(Vec::new());
        };
        self.children(&walked, &node)?
            .iter()
            .filter(|child| !child.is_alias)
            .take(MAX_LISTED)
            .map(|child| {
                Ok(Entry {
                    name: child.name.clone(),
                    kind: self.kind_of(child)?,
                })
            })
            .collect()
    }

    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, GuestError> {
        let Some(node) = self.find_kind(path, FileKind::File)? else {
            return Ok(None);
        };
        let bytes = self.tree.size(&node)?;
        match usize::try_from(bytes) {
            Ok(length) if bytes <= limit => {
                let mut content = vec![0; length];
                self.tree.content_at(&node, 0, &mut content)?;
                Ok(Some(content))
            }
            _ => Err(GuestError::TooLarge {
                what: format!("{}:{path}", self.tree.place()),
                bytes,
                limit,
            }),
        }
    }

    fn read_at(&self, path: &str, offset: u64, buf: &mut [u8]) -> Result<usize, GuestError> {
        let Some(node) = self.find_kind(path, FileKind::File)? else {
            return Ok(0);
        };
        let left = self.tree.size(&node)?.saturating_sub(offset);
        let length = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
        if length > 0 {
            self.tree.content_at(&node, offset, &mut buf[..length])?;
        }
        Ok(length)
    }

    fn read_link(&self, path: &str) -> Result<Option<String>, GuestError> {
        match self.find_kind(path, FileKind::Link)? {
            Some(node) => self.tree.target(&node),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart_by_name() {
        assert_eq!(components("/"), Some(vec![]));
        assert_eq!(components("/a//./b/"), Some(vec!["a", "b"]));
        assert_eq!(components("/../a/../b"), Some(vec!["b"]));
        assert_eq!(components("a"), None);
        assert_eq!(components(&"/a".repeat(300)), None);
    }
}
