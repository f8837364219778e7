//! The initial file system: which drivers it brings. A sequence of cpio archives, the first ones plain (microcode), the
//! last one compressed (Documentation/driver-api/early-userspace/buffer-format.rst). Read as a stream: names are kept,
//! contents are passed over but for the kernel's list of what is built in.

mod cpio;
mod unpack;

use std::{collections::BTreeSet, io::Read};

use serde::Serialize;

use super::{
    kernel::{Names, module_name, modules},
    tree::{Presence, Tree},
};

/// Of the file: dracut's without hostonly, with firmware, have about 150 MiB.
const FILE_BYTES: u64 = 512 << 20;
/// Of what comes out of it.
const UNPACKED_BYTES: u64 = 1 << 30;

#[derive(Clone, Debug, Default, Serialize)]
pub struct InitramfsFacts {
    /// The default entry's, by volume and path.
    pub paths: Vec<String>,
    pub presences: Vec<Presence>,
    /// `gzip`, `zstd`, …; `none`.
    pub compression: Option<String>,
    pub files: usize,
    /// The versions of kernels that it has modules of.
    pub kernels: BTreeSet<String>,
    pub has_init: bool,
    /// It is no initial file system: neither cpio nor compressed by anything known.
    pub broken: Option<String>,
    /// What of it could not be read, so drivers may be missed.
    pub unread: Option<String>,
}

/// What an initial file system has for one kernel.
#[derive(Debug, Default)]
pub struct Drivers {
    pub modules: Names,
    pub built_in: Names,
}

/// Reads a file of a tree in pieces.
struct FileStream<'a> {
    tree: &'a Tree<'a>,
    path: &'a str,
    offset: u64,
    left: u64,
}

impl Read for FileStream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let length = usize::try_from(self.left).map_or(buf.len(), |left| left.min(buf.len()));
        let Some(spot) = self.tree.spot(self.path).filter(|_| length > 0) else {
            return Ok(0);
        };
        let read = spot
            .mount
            .files
            .read_at(&spot.inner, self.offset, &mut buf[..length]);
        let count = read.map_err(std::io::Error::other)?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// What the archives hold, collected.
#[derive(Default)]
struct Contents {
    files: usize,
    has_init: bool,
    kernels: BTreeSet<String>,
    modules: Vec<(String, String)>,
    built_in: Vec<(String, Names)>,
}

/// Names of modules that are kept: a distribution's kernel has about 6,000. NAME_MAX bounds each.
const MODULES: usize = 20_000;
const NAME_BYTES: usize = 255;
/// Kernels whose lists are kept.
const KERNELS: usize = 16;

impl Contents {
    /// The kernel's version in `usr/lib/modules/VERSION/…`, and the rest.
    fn kernel(name: &str) -> Option<(&str, &str)> {
        let name = name.trim_start_matches("./").trim_start_matches('/');
        let name = name.strip_prefix("usr/").unwrap_or(name);
        name.strip_prefix("lib/modules/")?.split_once('/')
    }
}

impl cpio::Visitor for Contents {
    fn wants(&self, name: &str) -> bool {
        Contents::kernel(name).is_some_and(|(_, rest)| rest == "modules.builtin")
    }

    fn entry(&mut self, name: &str, content: Option<&[u8]>) {
        self.files += 1;
        let plain = name.trim_start_matches("./").trim_start_matches('/');
        self.has_init |= ["init", "sbin/init", "usr/lib/systemd/systemd"].contains(&plain);
        let Some((version, rest)) = Contents::kernel(name) else {
            return;
        };
        if version.len() > NAME_BYTES || rest.len() > NAME_BYTES * 16 {
            return;
        }
        if self.kernels.len() < KERNELS {
            self.kernels.insert(version.to_owned());
        }
        if let Some(content) = content.filter(|_| self.built_in.len() < KERNELS) {
            let names = modules(&String::from_utf8_lossy(content));
            self.built_in.push((version.to_owned(), names));
        } else if let Some(module) = module_name(rest)
            .filter(|name| self.modules.len() < MODULES && name.len() <= NAME_BYTES)
        {
            self.modules.push((version.to_owned(), module));
        }
    }
}

/// Reads the initial file systems of an entry; drivers count that are of `version`, or of any where it is not known.
pub fn inspect(
    tree: &Tree<'_>,
    paths: &[String],
    version: Option<&str>,
) -> (InitramfsFacts, Drivers) {
    let mut facts = InitramfsFacts::default();
    let mut contents = Contents::default();
    for path in paths {
        let spot = tree.spot(path);
        facts.paths.push(match &spot {
            Some(spot) => format!("{}:{}", spot.mount.volume, spot.inner),
            None => path.clone(),
        });
        let presence = tree.presence(path);
        let bytes = match &presence {
            Presence::Present { bytes } => *bytes,
            _ => 0,
        };
        facts.presences.push(presence);
        if bytes > FILE_BYTES {
            facts.unread = Some(format!(
                "{path} has {bytes} bytes, and at most {FILE_BYTES} are read"
            ));
            continue;
        }
        if bytes == 0 {
            continue;
        }
        let stream = FileStream {
            tree,
            path,
            offset: 0,
            left: bytes,
        };
        match unpack::unpack(stream, UNPACKED_BYTES, &mut contents) {
            Ok(compression) => facts.compression = compression.or(facts.compression),
            Err(unpack::Failure::Broken(why)) => facts.broken = Some(format!("{path}: {why}")),
            Err(unpack::Failure::Unread(why)) => facts.unread = Some(format!("{path}: {why}")),
        }
    }
    let counts = |own: &String| version.is_none_or(|version| version == own);
    let modules = contents.modules.into_iter().filter(|(own, _)| counts(own));
    let built_in = contents.built_in.into_iter().filter(|(own, _)| counts(own));
    let drivers = Drivers {
        modules: modules.map(|(_, name)| name).collect(),
        built_in: built_in.flat_map(|(_, names)| names).collect(),
    };
    facts.files = contents.files;
    facts.has_init = contents.has_init;
    facts.kernels = contents.kernels;
    (facts, drivers)
}

#[cfg(test)]
pub mod tests;
