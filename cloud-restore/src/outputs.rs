//! Which file each disk becomes, in each format: decided before anything is fetched.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use virtual_disk::Format;

/// What the path that was given is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Missing,
    File,
    Folder,
    Device,
}

impl Place {
    pub fn of(path: &Path) -> Self {
        match path.metadata() {
            Ok(about) if about.is_dir() => Place::Folder,
            Ok(about) if about.file_type().is_block_device() => Place::Device,
            Ok(_) => Place::File,
            Err(_) => Place::Missing,
        }
    }
}

/// One file (or device) to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Place in the list of disks.
    pub disk: usize,
    pub path: PathBuf,
    pub format: Format,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Outputs {
    /// A folder that holds them, if it is one.
    pub folder: Option<PathBuf>,
    pub files: Vec<Output>,
}

/// The formats of `--format raw,qcow2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formats(pub Vec<Format>);

impl FromStr for Formats {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut formats = Vec::new();
        for name in text.split(',') {
            let format = match Format::ALL.into_iter().find(|format| format.name() == name) {
                Some(Format::Vdi) => return Err("VDI images can be read, but not made".into()),
                Some(format) => format,
                None => {
                    return Err(format!("{name:?} is none of raw, vhd, vhdx, vmdk, qcow2"));
                }
            };
            if !formats.contains(&format) {
                formats.push(format);
            }
        }
        Ok(Formats(formats))
    }
}

/// One disk in one format is the file `path`, in several formats `path` with each one's ending;
/// several disks are files in the folder `path`, named after the disk with the format's ending.
/// Without `formats`, a file's ending says which.
pub fn plan(
    disks: &[&str],
    path: &Path,
    place: Place,
    formats: Option<&Formats>,
) -> Result<Outputs, String> {
    let shown = path.display();
    let slash = path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let in_folder = disks.len() > 1 || slash || place == Place::Folder;
    if in_folder && matches!(place, Place::File | Place::Device) {
        return Err(match disks.len() {
            0 | 1 => format!("{shown} is no folder"),
            n => format!(
                "{n} disks need a folder, and {shown} is none: name one, or choose with --disk"
            ),
        });
    }
    let named = Format::of_name(path).filter(|format| *format != Format::Vdi);
    let formats = match formats {
        Some(Formats(formats)) => formats.clone(),
        None if in_folder || place == Place::Device => vec![Format::Raw],
        None => vec![named.unwrap_or(Format::Raw)],
    };
    if place == Place::Device && formats != [Format::Raw] {
        return Err(format!(
            "{shown} is a block device, which takes format raw alone"
        ));
    }
    let file = |disk: usize, format: Format| {
        let path = match (in_folder, formats.len()) {
            (true, _) => path.join(format!("{}.{format}", disks[disk])),
            (false, 1) => path.to_owned(),
            (false, _) => with_ending(path, format),
        };
        Output { disk, path, format }
    };
    let files: Vec<Output> = (0..disks.len())
        .flat_map(|disk| formats.iter().map(move |format| (disk, *format)))
        .map(|(disk, format)| file(disk, format))
        .collect();
    let mut seen = BTreeSet::new();
    if let Some(twice) = files.iter().find(|file| !seen.insert(&file.path)) {
        return Err(format!("two disks would become {}", twice.path.display()));
    }
    Ok(Outputs {
        folder: in_folder.then(|| path.to_owned()),
        files,
    })
}

/// `dc01` and `dc01.raw` become `dc01.vhd`; `dc01.old` becomes `dc01.old.vhd`.
fn with_ending(path: &Path, format: Format) -> PathBuf {
    match Format::of_name(path) {
        Some(_) => path.with_extension(format.name()),
        None => {
            let mut name = OsString::from(path);
            name.push(format!(".{format}"));
            name.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Place::{Device, File, Folder, Missing};

    fn names(
        disks: &[&str],
        path: &str,
        place: Place,
        formats: Option<&str>,
    ) -> Result<Vec<String>, String> {
        let formats = formats.map(|f| f.parse().unwrap());
        let outputs = plan(disks, Path::new(path), place, formats.as_ref())?;
        let text = |o: &Output| format!("{} {}", o.path.display(), o.format);
        Ok(outputs.files.iter().map(text).collect())
    }

    #[test]
    fn one_disk_is_the_file_that_was_named() {
        for (path, formats, expected) in [
            ("d", None, "d raw"),
            ("d.raw", None, "d.raw raw"),
            ("d.qcow2", None, "d.qcow2 qcow2"),
            ("d.vhd", Some("raw"), "d.vhd raw"),
            ("d.raw", Some("qcow2"), "d.raw qcow2"),
            ("d.vdi", None, "d.vdi raw"),
            ("d.old", None, "d.old raw"),
        ] {
            for place in [Missing, File] {
                assert_eq!(
                    names(&["sda"], path, place, formats),
                    Ok(vec![expected.into()])
                );
            }
        }
        assert_eq!(
            names(&["sda"], "/dev/x.qcow2", Device, None),
            Ok(vec!["/dev/x.qcow2 raw".into()])
        );
    }

    #[test]
    fn several_formats_of_one_disk_differ_in_their_ending() {
        for path in ["d", "d.raw", "d.vhd"] {
            let files = names(&["sda"], path, Missing, Some("raw,vhd,raw"));
            assert_eq!(
                files,
                Ok(vec!["d.raw raw".into(), "d.vhd vhd".into()]),
                "{path}"
            );
        }
        let files = names(&["sda"], "d.old", Missing, Some("raw,vhd"));
        assert_eq!(
            files,
            Ok(vec!["d.old.raw raw".into(), "d.old.vhd vhd".into()])
        );
    }

    #[test]
    fn several_disks_are_files_in_a_folder() {
        let both = ["sda", "sdb.1"];
        for place in [Missing, Folder] {
            let files = names(&both, "out", place, None);
            assert_eq!(
                files,
                Ok(vec!["out/sda.raw raw".into(), "out/sdb.1.raw raw".into()])
            );
        }
        let files = names(&both, "out.vhd", Missing, Some("qcow2,vmdk")).unwrap();
        assert_eq!(files.len(), 4);
        assert_eq!(files[3], "out.vhd/sdb.1.vmdk vmdk");
        for (path, place) in [("out", Folder), ("out/", Missing)] {
            assert_eq!(
                names(&["sda"], path, place, None),
                Ok(vec!["out/sda.raw raw".into()])
            );
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(names(&["a", "b"], "out", File, None).is_err());
        assert!(names(&["a", "b"], "/dev/x", Device, None).is_err());
        assert!(names(&["a"], "/dev/x", Device, Some("raw,vhd")).is_err());
        assert!(names(&["a"], "/dev/x", Device, Some("qcow2")).is_err());
        // A manifest is written by others: its names are not to be trusted to differ.
        assert!(names(&["a", "a"], "out", Missing, None).is_err());
        for text in ["", "raw,", "vdi", "RAW", "vpc"] {
            assert!(text.parse::<Formats>().is_err(), "{text}");
        }
    }
}
