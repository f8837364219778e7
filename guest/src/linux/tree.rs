//! The guest's tree of files: its root file system with the others mounted, links followed as its kernel would, never
//! out of it. What cannot be read is noted and reads as absent; [`Presence`] tells the two apart where it matters.

use std::{cell::RefCell, collections::BTreeSet};

use serde::Serialize;

use crate::{
    GuestError,
    file_system::{Entry, FileKind, FileSystem},
};

/// Links followed on one path: what Linux follows (path_resolution(7)).
const HOPS: usize = 40;
/// Bytes and parts of a path: PATH_MAX.
const PATH_BYTES: usize = 4096;
/// Of a configuration file.
pub const TEXT_BYTES: u64 = 1 << 20;
/// Notes of what could not be read.
const NOTES: usize = 100;

/// Whether a file is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "presence")]
pub enum Presence {
    #[default]
    Absent,
    Present {
        bytes: u64,
    },
    /// It may be there.
    Unreadable {
        why: String,
    },
}

impl Presence {
    /// Absent, or without a single byte.
    pub fn is_missing(&self) -> bool {
        matches!(self, Presence::Absent | Presence::Present { bytes: 0 })
    }
}

/// What could not be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Note {
    /// Where it lies ([`crate::storage::Volume::place`]).
    pub volume: Option<String>,
    /// What, and why not.
    pub what: String,
}

/// Notes of what could not be read, each once.
#[derive(Debug, Default)]
pub struct Unread(RefCell<BTreeSet<Note>>);

impl Unread {
    pub fn note(&self, volume: Option<&str>, what: impl std::fmt::Display) {
        let mut notes = self.0.borrow_mut();
        if notes.len() < NOTES {
            notes.insert(Note {
                volume: volume.map(str::to_owned),
                what: what.to_string(),
            });
        }
    }

    pub fn into_notes(self) -> Vec<Note> {
        self.0.into_inner().into_iter().collect()
    }
}

/// A file system at its place in the tree.
#[derive(Clone, Copy)]
pub struct Mount<'a> {
    /// `/`, `/boot`.
    pub point: &'a str,
    /// [`crate::storage::Volume::place`].
    pub volume: &'a str,
    pub files: &'a dyn FileSystem,
}

/// File systems put together.
pub struct Tree<'a> {
    mounts: Vec<Mount<'a>>,
    pub unread: &'a Unread,
}

/// Where a path leads: the file system, and the path in it.
pub struct Spot<'a> {
    pub mount: Mount<'a>,
    pub inner: String,
    /// In the tree, without links.
    pub path: String,
    pub kind: FileKind,
}

impl<'a> Tree<'a> {
    pub fn new(unread: &'a Unread) -> Self {
        Tree {
            mounts: Vec::new(),
            unread,
        }
    }

    /// One file system alone, as a boot loader sees it.
    pub fn of_one(volume: &'a str, files: &'a dyn FileSystem, unread: &'a Unread) -> Self {
        let mut tree = Tree::new(unread);
        tree.mount("/", volume, files);
        tree
    }

    /// A later mount at the same place is ignored: the first one of fstab is mounted below the others.
    pub fn mount(&mut self, point: &'a str, volume: &'a str, files: &'a dyn FileSystem) {
        let point = match point.trim_end_matches('/') {
            "" => "/",
            point => point,
        };
        if self.mounts.iter().all(|mount| mount.point != point) {
            self.mounts.push(Mount {
                point,
                volume,
                files,
            });
        }
    }

    pub fn mounts(&self) -> &[Mount<'a>] {
        &self.mounts
    }

    /// The deepest file system that holds `path`, and the path in it.
    fn at(&self, path: &str) -> Option<(Mount<'a>, String)> {
        let inside = |mount: &&Mount<'_>| {
            mount.point == "/"
                || path
                    .strip_prefix(mount.point)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mount = self.mounts.iter().filter(inside);
        let mount = *mount.max_by_key(|mount| mount.point.len())?;
        let rest = match mount.point {
            "/" => path,
            point => &path[point.len()..],
        };
        let inner = if rest.is_empty() { "/" } else { rest };
        Some((mount, inner.to_owned()))
    }

    /// Follows all links. None where there is no such name, or where the links go in circles.
    fn resolve(&self, path: &str) -> Result<Option<Spot<'a>>, GuestError> {
        if path.len() > PATH_BYTES {
            return Ok(None);
        }
        let parts = |path: &str| -> Vec<String> { path.rsplit('/').map(str::to_owned).collect() };
        let mut left = parts(path);
        let mut done = String::new();
        let mut hops = 0;
        while let Some(part) = left.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    done.truncate(done.rfind('/').unwrap_or(0));
                    continue;
                }
                part => {
                    done.push('/');
                    done.push_str(part);
                }
            }
            if done.len() > PATH_BYTES {
                return Ok(None);
            }
            let Some((mount, inner)) = self.at(&done) else {
                return Ok(None);
            };
            if inner == "/" {
                continue;
            }
            match mount.files.kind(&inner)? {
                None => return Ok(None),
                Some(FileKind::Link) => {
                    hops += 1;
                    let Some(target) = mount.files.read_link(&inner)?.filter(|_| hops <= HOPS)
                    else {
                        return Ok(None);
                    };
                    let absolute = target.starts_with('/');
                    let parent = if absolute {
                        0
                    } else {
                        done.rfind('/').unwrap_or(0)
                    };
                    done.truncate(parent);
                    left.extend(parts(&target));
                    if left.len() > PATH_BYTES {
                        return Ok(None);
                    }
                }
                Some(_) => {}
            }
        }
        let path = if done.is_empty() {
            "/".to_owned()
        } else {
            done
        };
        let Some((mount, inner)) = self.at(&path) else {
            return Ok(None);
        };
        let kind = match inner.as_str() {
            "/" => Some(FileKind::Folder),
            inner => mount.files.kind(inner)?,
        };
        Ok(kind.map(|kind| Spot {
            mount,
            inner,
            path,
            kind,
        }))
    }

    /// Where a path leads; a failure is noted.
    pub fn spot(&self, path: &str) -> Option<Spot<'a>> {
        self.noted(path, self.resolve(path)).flatten()
    }

    fn noted<T>(&self, path: &str, result: Result<T, GuestError>) -> Option<T> {
        let failed = |failure: &GuestError| {
            let volume = self.at(path).map(|(mount, _)| mount.volume);
            self.unread.note(volume, format_args!("{path}: {failure}"));
        };
        result.inspect_err(failed).ok()
    }

    pub fn exists(&self, path: &str) -> bool {
        self.spot(path).is_some()
    }

    pub fn presence(&self, path: &str) -> Presence {
        let sized = |spot: Spot<'_>| match spot.kind {
            FileKind::File => spot.mount.files.size(&spot.inner),
            _ => Ok(None),
        };
        let found = self.resolve(path).and_then(|spot| match spot {
            Some(spot) => sized(spot),
            None => Ok(None),
        });
        match found {
            Ok(Some(bytes)) => Presence::Present { bytes },
            Ok(None) => Presence::Absent,
            Err(why) => Presence::Unreadable {
                why: why.to_string(),
            },
        }
    }

    /// What a link says, unfollowed, its folders followed.
    pub fn link(&self, path: &str) -> Option<String> {
        let (folder, name) = path.rsplit_once('/')?;
        let folder = self.spot(if folder.is_empty() { "/" } else { folder })?;
        let inner = format!("{}/{name}", folder.inner.trim_end_matches('/'));
        self.noted(path, folder.mount.files.read_link(&inner))
            .flatten()
    }

    pub fn read(&self, path: &str, limit: u64) -> Option<Vec<u8>> {
        let spot = self.spot(path).filter(|spot| spot.kind == FileKind::File)?;
        self.noted(path, spot.mount.files.read(&spot.inner, limit))
            .flatten()
    }

    /// A configuration file; what is no UTF-8 becomes U+FFFD.
    pub fn text(&self, path: &str) -> Option<String> {
        let content = self.read(path, TEXT_BYTES)?;
        Some(String::from_utf8_lossy(&content).into_owned())
    }

    /// In the order of their names.
    pub fn list(&self, path: &str) -> Vec<Entry> {
        let Some(spot) = self.spot(path) else {
            return Vec::new();
        };
        let listed = self.noted(path, spot.mount.files.list(&spot.inner));
        let mut entries = listed.unwrap_or_default();
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        entries
    }

    /// The paths in a folder that end so.
    pub fn files(&self, folder: &str, ending: &str) -> Vec<String> {
        let entries = self.list(folder).into_iter();
        let named =
            entries.filter(|entry| entry.kind != FileKind::Folder && entry.name.ends_with(ending));
        // 1,000 files of one kind of configuration are more than any guest has.
        let paths = named.map(|entry| format!("{}/{}", folder.trim_end_matches('/'), entry.name));
        paths.take(1000).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paper::TreeOnPaper;

    #[test]
    fn links_lead_through_mounts_and_never_out() {
        let root = TreeOnPaper::default()
            .link("/sbin", "usr/sbin")
            .link("/usr/sbin/init", "/lib/systemd/systemd")
            .link("/lib", "usr/lib")
            .file("/usr/lib/systemd/systemd", "ELF")
            .link("/out", "../../../boot/kernel")
            .link("/circle", "circle")
            .link("/one", "/two")
            .link("/two", "one");
        let boot = TreeOnPaper::default()
            .file("/kernel", "MZ!")
            .link("/back", "../usr/lib/systemd/systemd");
        let unread = Unread::default();
        let mut tree = Tree::new(&unread);
        tree.mount("/", "sda:2", &root);
        tree.mount("/boot/", "sda:1", &boot);
        assert_eq!(tree.text("/sbin/init").as_deref(), Some("ELF"));
        assert_eq!(tree.text("/boot/back").as_deref(), Some("ELF"));
        let kernel = tree.spot("/out").expect("it is there");
        assert_eq!(
            (kernel.path.as_str(), kernel.inner.as_str()),
            ("/boot/kernel", "/kernel")
        );
        assert_eq!(tree.presence("/circle"), Presence::Absent);
        assert_eq!(tree.presence("/one"), Presence::Absent);
        assert_eq!(
            tree.link("/sbin/init").as_deref(),
            Some("/lib/systemd/systemd")
        );
        assert!(tree.exists("/boot") && tree.exists("/") && !tree.exists("/boot/none"));
        assert_eq!(tree.files("/boot", "nel"), ["/boot/kernel"]);
        assert!(unread.into_notes().is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_noted_once() {
        let root = TreeOnPaper::default().unreadable("/etc/fstab");
        let unread = Unread::default();
        let tree = Tree::of_one("sda:1", &root, &unread);
        assert_eq!(
            (tree.text("/etc/fstab"), tree.text("/etc/fstab")),
            (None, None)
        );
        assert_eq!(unread.into_notes().len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn any_path_and_any_link_end(path in ".{0,60}", target in "[a./]{0,30}") {
            let root = TreeOnPaper::default().link("/a", &target).file("/b/c", "");
            let unread = Unread::default();
            let tree = Tree::of_one("sda", &root, &unread);
            let _ = (tree.presence(&path), tree.presence("/a/a/../b"), tree.list(&path));
        }
    }
}
