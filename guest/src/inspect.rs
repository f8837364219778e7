//! From a guest's disks to its facts: divides them, opens the file systems, and asks of each what it knows. What cannot
//! be read is said in the facts, and ends nothing.

use crate::{
    facts::{EfiPartition, Facts, FileSystemFacts, Machine, is_esp},
    file_system::{self, FileKind, FileSystem},
    linux::{
        self,
        tree::{Tree, Unread},
    },
    storage::{self, Content, NamedDisk, Storage, Volume},
    windows,
};

/// Loaders that are named of one EFI system partition, and how deep they lie: `/EFI/Microsoft/Boot/x.efi` is 3.
const LOADERS: usize = 200;
const LOADER_DEPTH: usize = 4;

/// A file system and its volume's [`Volume::place`].
pub struct Opened {
    pub place: String,
    pub files: Box<dyn FileSystem>,
}

/// Finds out what a guest is.
pub fn inspect(machine: Machine, disks: &[NamedDisk]) -> Facts {
    let storage = storage::divide(disks);
    let unread = Unread::default();
    let mut opened = Vec::new();
    for volume in &storage.volumes {
        match file_system::open(volume) {
            Ok(Some(files)) => opened.push(Opened {
                place: volume.place.clone(),
                files,
            }),
            Ok(None) => {}
            Err(failure) => unread.note(
                Some(&volume.place),
                format_args!("{}: {failure}", volume.place),
            ),
        }
    }
    of_file_systems(machine, storage, &opened, unread)
}

/// The facts of what was opened.
pub fn of_file_systems(
    machine: Machine,
    storage: Storage,
    opened: &[Opened],
    unread: Unread,
) -> Facts {
    let mut facts = Facts {
        machine,
        file_systems: opened.iter().map(file_system_facts).collect(),
        efi: efi_partitions(&storage, opened, &unread),
        windows: windows_systems(&storage, opened, &unread),
        storage,
        ..Facts::default()
    };
    let uefi = facts.boots_by_uefi();
    facts.linux = linux::find(&facts.storage, opened, &facts.efi, uefi, &unread);
    facts.unread = unread.into_notes();
    facts
}

fn file_system_facts(opened: &Opened) -> FileSystemFacts {
    FileSystemFacts {
        volume: opened.place.clone(),
        space: opened.files.space(),
        state: opened.files.state(),
    }
}

fn efi_partitions(storage: &Storage, opened: &[Opened], unread: &Unread) -> Vec<EfiPartition> {
    let facts = |volume: &Volume| {
        let files = opened.iter().find(|opened| opened.place == volume.place);
        let files = files.filter(|_| volume.content == Content::Fat);
        let mut loaders = Vec::new();
        if let Some(files) = files {
            let tree = Tree::of_one(&files.place, &*files.files, unread);
            programs(&tree, "/EFI", LOADER_DEPTH, &mut loaders);
        }
        EfiPartition {
            volume: volume.place.clone(),
            disk: volume.disk.clone(),
            typed: is_esp(volume),
            readable: files.is_some(),
            loaders,
        }
    };
    // Of another type, it counts where firmware that goes by the file system would start it.
    let counts = |efi: &EfiPartition| {
        efi.typed
            || ["x86_64", "aarch64", "i686"]
                .iter()
                .any(|kind| efi.has_fallback(kind))
    };
    let fat = |volume: &&Volume| is_esp(volume) || volume.content == Content::Fat;
    let partitions = storage.volumes.iter().filter(fat).map(facts);
    partitions.filter(counts).collect()
}

fn programs(tree: &Tree<'_>, folder: &str, depth: usize, found: &mut Vec<String>) {
    for entry in tree.list(folder) {
        let path = format!("{folder}/{}", entry.name);
        match entry.kind {
            FileKind::Folder if depth > 1 => programs(tree, &path, depth - 1, found),
            FileKind::File
                if found.len() < LOADERS && path.to_ascii_lowercase().ends_with(".efi") =>
            {
                found.push(path);
            }
            _ => {}
        }
    }
}

/// A volume with Windows on it: its registry is there.
fn windows_systems(
    storage: &Storage,
    opened: &[Opened],
    unread: &Unread,
) -> Vec<windows::WindowsFacts> {
    let mut found = Vec::new();
    for volume in storage
        .volumes
        .iter()
        .filter(|volume| volume.content == Content::Ntfs)
    {
        let Some(files) = opened.iter().find(|opened| opened.place == volume.place) else {
            continue;
        };
        let registry = files.files.kind("/Windows/System32/config/SYSTEM");
        match registry.and_then(|kind| match kind {
            Some(_) => windows::inspect(volume, &*files.files).map(Some),
            None => Ok(None),
        }) {
            Ok(facts) => found.extend(facts),
            Err(failure) => unread.note(
                Some(&volume.place),
                format_args!("{}: {failure}", volume.place),
            ),
        }
    }
    found
}
