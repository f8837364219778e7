//! Writes a report into its folder.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{DrillReport, file_name, html, sha256};

/// File names, as in [`super::VmDrill::screenshot`], and PNG.
pub type Pictures = BTreeMap<String, Vec<u8>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub json: PathBuf,
    pub html: PathBuf,
    /// Of the JSON file: what the next report names, and what is worth keeping elsewhere.
    pub sha256: String,
}

/// The JSON comes last: where it is, what it names is there too. Nothing is ever replaced, and only its owner may read it:
/// screens and consoles of servers are in it.
pub fn publish(report: &DrillReport, pictures: &Pictures, folder: &Path) -> io::Result<Published> {
    std::fs::create_dir_all(folder)?;
    let bytes = report.to_json()?;
    let json = folder.join(file_name(report.started_at));
    let page = json.with_extension("html");
    for (name, picture) in pictures {
        if Path::new(name).file_name() != Some(name.as_ref()) {
            return Err(io::Error::other(format!("{name:?} is no file name")));
        }
        write(folder, &folder.join(name), picture)?;
    }
    let rendered = html::render(report, &sha256(&bytes), pictures);
    write(folder, &page, rendered.as_bytes())?;
    write(folder, &json, &bytes)?;
    std::fs::File::open(folder)?.sync_all()?;
    Ok(Published {
        json,
        html: page,
        sha256: sha256(&bytes),
    })
}

fn write(folder: &Path, to: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(to)?;
    Ok(())
}
