//! The chain of reports in a folder: each names the hash of the one before it, and those of its screenshots.
//!
//! It shows that a report was changed, taken out or slipped in, up to the newest. The newest is named by none yet: whoever
//! must trust it too keeps its hash elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;

use super::{EarlierReports, FileHash, sha256};

/// A report with a hundred VMs is far below, a screenshot too.
const MOST_BYTES: u64 = 64 << 20;

/// The reports and pictures of a folder, of which only names, links and hashes are kept.
#[derive(Debug, Default)]
pub struct Folder {
    reports: BTreeMap<String, Report>,
    pictures: BTreeMap<String, String>,
    /// Named as a report, and why it is none.
    damaged: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Report {
    sha256: String,
    links: Links,
}

/// All that the chain needs of a report, so that reports of other versions are links of it too.
#[derive(Debug, Deserialize)]
struct Links {
    number: u64,
    previous: Option<FileHash>,
    vms: Vec<VmLinks>,
}

#[derive(Debug, Deserialize)]
struct VmLinks {
    screenshot: Option<FileHash>,
}

impl Folder {
    /// A folder that is not there yet has no reports.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut folder = Folder::default();
        let entries = match path.read_dir() {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(folder),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if !is_report(&name) && !is_picture(&name) {
                continue;
            }
            // What is no file (a pipe, a link) is not opened: it may never end.
            let read = match entry.file_type()?.is_file() {
                true => read_file(&entry.path()),
                false => Err(io::Error::other("is no file")),
            };
            match read {
                Ok(bytes) => folder.add(&name, &bytes),
                Err(error) if is_report(&name) => {
                    folder.damaged.insert(name, error.to_string());
                }
                // A picture that is not read is missed where a report names it.
                Err(_) => {}
            }
        }
        Ok(folder)
    }

    /// Takes a file up by its name; what is neither report nor picture is passed over.
    pub fn add(&mut self, name: &str, bytes: &[u8]) {
        if is_picture(name) {
            self.pictures.insert(name.into(), sha256(bytes));
        } else if is_report(name) {
            match serde_json::from_slice::<Links>(bytes) {
                Ok(links) => {
                    let sha256 = sha256(bytes);
                    self.reports.insert(name.into(), Report { sha256, links });
                }
                Err(error) => {
                    self.damaged.insert(name.into(), error.to_string());
                }
            }
        }
    }

    /// What the next report names. By number, since a clock that was wrong for a day must not make two ends. What is
    /// damaged is passed over here, and stays a break.
    pub fn newest(&self) -> Option<FileHash> {
        let (file, report) = self.in_order().pop()?;
        Some(FileHash {
            file: file.into(),
            sha256: report.sha256.clone(),
        })
    }

    pub fn next_number(&self) -> u64 {
        let numbers = self.reports.values().map(|report| report.links.number);
        numbers.max().unwrap_or(0).saturating_add(1)
    }

    pub fn check(&self) -> EarlierReports {
        EarlierReports {
            count: (self.reports.len() + self.damaged.len()) as u64,
            first_break: self.first_break(),
        }
    }

    /// The first break from the oldest report on, in words; none where the chain holds.
    pub fn first_break(&self) -> Option<String> {
        let mut followed = BTreeSet::new();
        let reports = self.in_order();
        for (place, (name, report)) in reports.iter().enumerate() {
            let broken = self
                .link_break(report, place == 0, &mut followed)
                .or_else(|| self.picture_break(report));
            if let Some(why) = broken {
                return Some(format!("{name} (report {}) {why}", report.links.number));
            }
        }
        let (name, why) = self.damaged.first_key_value()?;
        Some(format!("{name} is not readable as a report: {why}"))
    }

    fn link_break<'a>(
        &self,
        report: &'a Report,
        is_first: bool,
        followed: &mut BTreeSet<&'a str>,
    ) -> Option<String> {
        let number = report.links.number;
        let Some(FileHash { file, sha256 }) = &report.links.previous else {
            return match (is_first, number) {
                (true, 1) => None,
                (true, _) => Some("names no report before it, and is not the first".into()),
                (false, _) => Some("names no report before it, though there are some".into()),
            };
        };
        if let Some(why) = self.damaged.get(file) {
            return Some(format!("names {file}, which is no longer readable: {why}"));
        }
        let Some(before) = self.reports.get(file) else {
            return Some(format!("names {file}, which is not in the folder"));
        };
        if before.sha256 != *sha256 {
            return Some(format!(
                "names {file} with the SHA-256 {sha256}, but that file has {}: it was changed after it was written",
                before.sha256
            ));
        }
        if before.links.number.checked_add(1) != Some(number) {
            let before = before.links.number;
            return Some(format!("names {file}, which is report {before}"));
        }
        if !followed.insert(file) {
            return Some(format!(
                "names {file}, which another report follows already"
            ));
        }
        None
    }

    fn picture_break(&self, report: &Report) -> Option<String> {
        let pictures = report
            .links
            .vms
            .iter()
            .filter_map(|vm| vm.screenshot.as_ref());
        for FileHash { file, sha256 } in pictures {
            match self.pictures.get(file) {
                None => {
                    return Some(format!(
                        "names the screenshot {file}, which is not in the folder"
                    ));
                }
                Some(has) if has != sha256 => {
                    return Some(format!(
                        "names the screenshot {file} with the SHA-256 {sha256}, but that file has {has}: it was changed \
                         after it was taken"
                    ));
                }
                Some(_) => {}
            }
        }
        None
    }

    fn in_order(&self) -> Vec<(&str, &Report)> {
        let mut reports: Vec<_> = self.reports.iter().map(|(n, r)| (n.as_str(), r)).collect();
        reports.sort_by_key(|(name, report)| (report.links.number, *name));
        reports
    }
}

fn is_report(name: &str) -> bool {
    name.starts_with("drill-") && name.ends_with(".json")
}

fn is_picture(name: &str) -> bool {
    name.starts_with("drill-") && name.ends_with(".png")
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MOST_BYTES {
        true => Err(io::Error::other("is too large")),
        false => Ok(bytes),
    }
}
