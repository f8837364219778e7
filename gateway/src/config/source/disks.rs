//! The disks of a VM, as paths or as tables; and the names they get where none is given.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    path::{Path, PathBuf},
};

use virtual_disk::Format;

use super::{
    super::{
        names::not_a_name,
        place::real,
        problem::Notes,
        protection::path_value,
        section::{self, Keys, Section, Value},
    },
    Disk,
};

const DISK: Keys = Keys {
    known: &["path", "name", "format", "exclude"],
    later: &[],
};

/// Where each disk's content lies → the VM that listed it first.
#[derive(Default)]
pub(super) struct DisksSeen {
    by: HashMap<PathBuf, String>,
}

impl DisksSeen {
    /// A disk listed twice would be read twice, or be two VMs' at once.
    fn note(&mut self, path: &Path, vm: &str, span: &Range<usize>, notes: &mut Notes) {
        let shown = path.display();
        match self.by.insert(real(path), vm.to_owned()) {
            Some(first) if first == vm => {
                notes.at(span, format!("{vm} lists the disk {shown} twice"));
            }
            Some(first) => {
                let note = format!("{vm} lists the disk {shown}, which {first} lists already");
                notes.at(span, note);
            }
            None => {}
        }
    }
}

/// A disk whose name may still have to be made.
struct Listed {
    name: Option<String>,
    path: PathBuf,
    format: Option<Format>,
    exclude: bool,
}

pub(super) fn read(
    source: &Section,
    vm: &str,
    folder: &Path,
    seen: &mut DisksSeen,
    notes: &mut Notes,
) -> Option<Vec<Disk>> {
    let value = source.required("disks", "disks = [\"/dev/vg0/files\"]", notes)?;
    let entries = section::list(&source.called("disks"), value, notes);
    if entries.is_empty() && value.get_ref().is_array() {
        notes.at(
            &value.span(),
            format!("{vm} has no disks: list at least one"),
        );
    }
    let mut listed: Vec<Listed> = Vec::new();
    let mut taken = HashSet::new();
    for entry in entries {
        let Some(disk) = read_disk(entry, vm, folder, notes) else {
            continue;
        };
        seen.note(&disk.path, vm, &entry.span(), notes);
        if let Some(name) = &disk.name
            && !taken.insert(name.to_ascii_lowercase())
        {
            let note = format!("a second disk {name:?} in {vm}: give each its own name");
            notes.at(&entry.span(), note);
        }
        listed.push(disk);
    }
    if !listed.is_empty() && listed.len() == entries.len() && listed.iter().all(|d| d.exclude) {
        notes.at(
            &value.span(),
            format!("every disk of {vm} is excluded: nothing is protected"),
        );
    }
    Some(named(listed, taken))
}

fn read_disk(entry: &Value, vm: &str, folder: &Path, notes: &mut Notes) -> Option<Listed> {
    let called = format!("a disk of {vm}");
    if entry.get_ref().is_str() {
        let path = path_value(&called, entry, folder, notes)?;
        return Some(Listed {
            name: None,
            path,
            format: None,
            exclude: false,
        });
    }
    if !entry.get_ref().is_table() {
        section::wrong_kind(&called, entry, "a path or a table with path", notes);
        return None;
    }
    let disk = Section::of(&called, entry, notes)?;
    disk.check_keys(&DISK, notes);
    let name = disk.get("name").and_then(|value| {
        let name = section::text(&disk.called("name"), value, notes)?;
        match not_a_name(name) {
            Some(why) => {
                notes.at(
                    &value.span(),
                    format!("{name:?} is no name for a disk: {why}"),
                );
                None
            }
            None => Some(name.to_owned()),
        }
    });
    let formats = Format::ALL.map(|format| (format.name(), format));
    let format = disk
        .get("format")
        .and_then(|value| section::word(&disk.called("format"), value, &formats, notes));
    let exclude = disk
        .get("exclude")
        .and_then(|value| section::flag(&disk.called("exclude"), value, notes))
        .unwrap_or(false);
    let value = disk.required("path", "path = \"/dev/vg0/files\"", notes)?;
    let path = path_value(&disk.called("path"), value, folder, notes)?;
    Some(Listed {
        name,
        path,
        format,
        exclude,
    })
}

/// Gives every disk without a name its file's stem, numbered from 2 where that is taken. Names
/// that are written stand first, wherever they are in the list.
fn named(listed: Vec<Listed>, mut taken: HashSet<String>) -> Vec<Disk> {
    let name_for = |disk: &Listed, taken: &mut HashSet<String>| {
        let stem = stem(&disk.path);
        let numbered = (2u32..).map(|number| {
            let number = format!("-{number}");
            // Cut to keep 64 with the number; all is ASCII.
            format!("{}{number}", &stem[..stem.len().min(64 - number.len())])
        });
        let mut candidates = std::iter::once(stem.clone()).chain(numbered);
        candidates
            .find(|name| taken.insert(name.to_ascii_lowercase()))
            .unwrap_or(stem)
    };
    listed
        .into_iter()
        .map(|disk| Disk {
            name: disk
                .name
                .clone()
                .unwrap_or_else(|| name_for(&disk, &mut taken)),
            path: disk.path,
            format: disk.format,
            exclude: disk.exclude,
        })
        .collect()
}

/// The file's name without its ending, with `_` for what no name may hold.
fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name: String = stem
        .chars()
        .map(|c| if allowed(c) { c } else { '_' })
        .take(64)
        .collect();
    if name.is_empty() || not_a_name(&name).is_some() {
        "disk".into()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(paths: &[(&str, Option<&str>)]) -> Vec<String> {
        let listed = paths.iter().map(|(path, name)| Listed {
            name: name.map(String::from),
            path: path.into(),
            format: None,
            exclude: false,
        });
        let taken = paths
            .iter()
            .filter_map(|(_, name)| name.map(str::to_ascii_lowercase));
        named(listed.collect(), taken.collect())
            .into_iter()
            .map(|disk| disk.name)
            .collect()
    }

    #[test]
    fn a_disk_without_a_name_takes_its_files_stem() {
        let long = format!("/srv/{}.raw", "x".repeat(80));
        assert_eq!(
            names(&[
                ("/srv/a.qcow2", None),
                ("/srv/old/A.raw", None),
                ("/dev/vg0/files", None),
                ("/srv/my disk ü.raw", None),
                ("/x/y.raw", Some("a-2")),
                ("/srv/b/a.vmdk", None),
                (&long, None),
                (&long, None),
                ("/", None),
                ("/srv/.hidden.raw", None),
            ]),
            [
                "a",
                "A-3",
                "files",
                "my_disk__",
                "a-2",
                "a-4",
                &"x".repeat(64),
                &format!("{}-2", "x".repeat(62)),
                "disk",
                "disk-2"
            ]
        );
    }
}
