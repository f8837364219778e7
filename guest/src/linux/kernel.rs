//! The kernel that is started: its image's header, and what modules it has on the root file system.

use std::collections::BTreeSet;

use serde::Serialize;

use super::tree::{Presence, Tree};
use crate::storage::bytes::Bytes;

/// `modules.dep` of a distribution's kernel has about 700 KiB.
const MODULES_BYTES: u64 = 8 << 20;
/// The setup header's place and mark, and where it says the version begins, less 0x200 (Documentation/arch/x86/boot.rst).
const MARK: usize = 0x202;
const VERSION: usize = 0x20e;
const SETUP: u64 = 0x200;
/// Sectors of real-mode code less one, 0 for 4; the rest in units of 16 bytes, in 4 bytes since version 2.04.
const SETUP_SECTORS: usize = 0x1f1;
const UNITS: usize = 0x1f4;
const PROTOCOL: usize = 0x206;

#[derive(Clone, Debug, Default, Serialize)]
pub struct KernelFacts {
    /// Volume and path, links followed.
    pub path: String,
    pub presence: Presence,
    /// What its header says that it has, at least.
    pub needs_bytes: Option<u64>,
    /// `6.1.0-13-amd64`
    pub version: Option<String>,
    /// /lib/modules/VERSION is there.
    pub has_modules: bool,
}

/// Drivers by their name, `_` for `-`.
pub type Names = BTreeSet<String>;

/// `kernel/drivers/nvme/host/nvme-core.ko.xz` is `nvme_core`.
pub fn module_name(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?;
    let endings = [
        ".ko", ".ko.xz", ".ko.zst", ".ko.gz", ".ko.bz2", ".ko.lz4", ".ko.lzma",
    ];
    let name = endings
        .iter()
        .find_map(|ending| name.strip_suffix(ending))?;
    Some(name.replace('-', "_"))
}

/// The modules that a list names: modules.builtin, and modules.dep with what is needed after a colon.
pub fn modules(text: &str) -> Names {
    let names = text
        .lines()
        .filter_map(|line| module_name(line.split(':').next()?.trim()));
    names.collect()
}

pub fn inspect(tree: &Tree<'_>, path: &str) -> KernelFacts {
    let presence = tree.presence(path);
    let Some(spot) = tree.spot(path) else {
        return KernelFacts {
            path: path.to_owned(),
            presence,
            ..KernelFacts::default()
        };
    };
    let named = spot.inner.rsplit('/').next().unwrap_or_default();
    let named = [
        "vmlinuz-", "vmlinux-", "kernel-", "Image-", "bzImage-", "image-",
    ]
    .iter()
    .find_map(|prefix| named.strip_prefix(prefix));
    let header = part(tree, path, 0, 0x300);
    let header = header.filter(|header| header.get(MARK..MARK + 4) == Some(b"HdrS"));
    let version = header
        .as_deref()
        .and_then(|header| version(tree, path, header))
        .or_else(|| named.map(str::to_owned));
    KernelFacts {
        path: format!("{}:{}", spot.mount.volume, spot.inner),
        presence,
        needs_bytes: header.as_deref().and_then(needs_bytes),
        version,
        has_modules: false,
    }
}

impl KernelFacts {
    /// Its bytes and those that it should have, where that is more. Its size is told in units of 16 bytes.
    pub fn cut_off(&self) -> Option<(u64, u64)> {
        let Presence::Present { bytes } = self.presence else {
            return None;
        };
        let needs = self.needs_bytes.filter(|needs| bytes + 15 < *needs)?;
        (bytes > 0).then_some((bytes, needs))
    }
}

fn needs_bytes(header: &[u8]) -> Option<u64> {
    let sectors = match header.byte(SETUP_SECTORS)? {
        0 => 4,
        count => u64::from(count),
    };
    let units = match header.le16(PROTOCOL)? {
        ..0x204 => u64::from(header.le16(UNITS)?),
        _ => u64::from(header.le32(UNITS)?),
    };
    Some((sectors + 1) * 512 + units * 16)
}

fn version(tree: &Tree<'_>, path: &str, header: &[u8]) -> Option<String> {
    let place = u16::from_le_bytes([*header.get(VERSION)?, *header.get(VERSION + 1)?]);
    let text = part(tree, path, SETUP + u64::from(place), 128).filter(|_| place != 0)?;
    let end = text.iter().position(|byte| *byte == b' ' || *byte == 0)?;
    let version = std::str::from_utf8(&text[..end]).ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+-~".contains(c);
    (!version.is_empty() && version.chars().all(plain)).then(|| version.to_owned())
}

fn part(tree: &Tree<'_>, path: &str, offset: u64, length: usize) -> Option<Vec<u8>> {
    let spot = tree.spot(path)?;
    let mut bytes = vec![0; length];
    match spot.mount.files.read_at(&spot.inner, offset, &mut bytes) {
        Ok(count) => {
            bytes.truncate(count);
            Some(bytes)
        }
        Err(failure) => {
            let volume = Some(spot.mount.volume);
            tree.unread.note(volume, format_args!("{path}: {failure}"));
            None
        }
    }
}

/// What is built in and what is a module: by the lists of /lib/modules/VERSION.
pub fn drivers(tree: &Tree<'_>, version: &str) -> Option<(Names, Names)> {
    let folder = format!("/lib/modules/{version}");
    if version.contains('/') || !tree.exists(&folder) {
        return None;
    }
    let list = |name: &str| {
        let content = tree.read(&format!("{folder}/{name}"), MODULES_BYTES);
        modules(&String::from_utf8_lossy(&content.unwrap_or_default()))
    };
    Some((list("modules.builtin"), list("modules.dep")))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::{linux::tree::Unread, paper::TreeOnPaper};

    /// A kernel's first bytes.
    pub fn image(version: &str) -> Vec<u8> {
        let mut image = vec![0; 0xa00];
        image[MARK..MARK + 4].copy_from_slice(b"HdrS");
        image[VERSION..VERSION + 2].copy_from_slice(&0x150_u16.to_le_bytes());
        let text = format!("{version} (builder@host) #1 SMP\0");
        image[0x350..0x350 + text.len()].copy_from_slice(text.as_bytes());
        image
    }

    #[test]
    fn the_image_tells_its_version() {
        let files = TreeOnPaper::default()
            .file("/boot/vmlinuz-old", image("6.1.0-13-amd64"))
            .file("/boot/vmlinuz-5.14", "no kernel's header")
            .link("/vmlinuz", "boot/vmlinuz-old");
        let unread = Unread::default();
        let tree = Tree::of_one("sda:1", &files, &unread);
        let kernel = inspect(&tree, "/vmlinuz");
        assert_eq!(kernel.version.as_deref(), Some("6.1.0-13-amd64"));
        assert_eq!(kernel.path, "sda:1:/boot/vmlinuz-old");
        assert_eq!(
            inspect(&tree, "/boot/vmlinuz-5.14").version.as_deref(),
            Some("5.14")
        );
        assert!(inspect(&tree, "/none").presence.is_missing());
    }

    #[test]
    fn the_image_tells_its_size() {
        let cut_off = |bytes: usize, protocol: u16, units: u32| {
            let mut image = image("6");
            image[SETUP_SECTORS] = 3;
            image[PROTOCOL..PROTOCOL + 2].copy_from_slice(&protocol.to_le_bytes());
            image[UNITS..UNITS + 4].copy_from_slice(&units.to_le_bytes());
            image.resize(bytes, 0);
            let files = TreeOnPaper::default().file("/k", image);
            let unread = Unread::default();
            inspect(&Tree::of_one("sda", &files, &unread), "/k").cut_off()
        };
        // 4 sectors and 10,000 units.
        assert_eq!(cut_off(162_048, 0x20f, 10_000), None);
        assert_eq!(cut_off(162_032, 0x20f, 10_000), Some((162_032, 162_048)));
        assert_eq!(cut_off(81_000, 0x20f, 10_000), Some((81_000, 162_048)));
        // The upper half was something else once.
        assert_eq!(cut_off(162_048, 0x203, 10_000 | 7 << 16), None);
    }

    #[test]
    fn modules_are_named_alike() {
        let names = modules(
            "kernel/drivers/nvme/host/nvme-core.ko.xz: a.ko\nkernel/net/ena.ko.zst:\nno module\n",
        );
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["ena", "nvme_core"]);
    }

    proptest::proptest! {
        #[test]
        fn any_image_is_read(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..900), mark in proptest::bool::ANY) {
            if mark && bytes.len() > MARK + 4 {
                bytes[MARK..MARK + 4].copy_from_slice(b"HdrS");
            }
            let files = TreeOnPaper::default().file("/k", &bytes);
            let unread = Unread::default();
            let _ = inspect(&Tree::of_one("sda", &files, &unread), "/k");
        }
    }
}
