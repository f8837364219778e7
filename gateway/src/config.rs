//! `gateway.toml`: read, checked as a whole, and turned into a plain value. Every problem of the
//! file is reported at once, each with its line.
//!
//! [`Config::load`] touches the file system only to read the file and to follow symbolic links;
//! whether disks, hooks and the vault can be reached is for `check` to say.

mod nearest;
pub(crate) mod place;
mod problem;
mod protection;
mod section;
pub(crate) mod vault_url;

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use console::units::Duration;
use vault_format::manifest::Consistency;
use virtual_disk::Format;

pub use problem::ConfigError;

/// A configuration that can be acted on: names are unique, references resolve, paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A cache: may be lost at any time.
    pub state: PathBuf,
    pub vault: Vault,
    pub policies: Vec<Policy>,
    /// In the order of the file.
    pub vms: Vec<Vm>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vault {
    pub url: String,
    /// The gateway key.
    pub key: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub name: String,
    pub rpo_target: Duration,
    /// What is asked for; a point that has less is a finding.
    pub consistency: Consistency,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    pub name: String,
    /// Index into [`Config::policies`].
    pub policy: usize,
    /// 1 first; a VM without one comes after all that have one.
    pub priority: Option<u32>,
    pub disks: Vec<Disk>,
    /// Run before the disks are read, to freeze what writes to them.
    pub before: Option<PathBuf>,
    /// Run after the disks were read, whatever came of it.
    pub after: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Unique in its VM, also where case does not count: assemble names files after it.
    pub name: String,
    pub path: PathBuf,
    /// `None`: told from the content.
    pub format: Option<Format>,
    /// Not read; recreated empty.
    pub exclude: bool,
}

/// No configuration of a small site comes near; what is larger is some other file.
const MOST_BYTES: u64 = 4 << 20;

impl Config {
    pub fn load(file: &Path) -> Result<Config, ConfigError> {
        let unreadable = |why: String| ConfigError::unreadable(file, why);
        let absolute = std::path::absolute(file).map_err(|e| unreadable(e.to_string()))?;
        let mut text = String::new();
        File::open(file)
            .and_then(|open| open.take(MOST_BYTES + 1).read_to_string(&mut text))
            .map_err(|e| unreadable(e.to_string()))?;
        if text.len() as u64 > MOST_BYTES {
            return Err(unreadable(format!("it is larger than {MOST_BYTES} bytes")));
        }
        Config::parse(&text, file, absolute.parent().unwrap_or(Path::new("/")))
    }

    /// `file` is named in problems; relative paths are taken from `folder`.
    pub fn parse(text: &str, file: &Path, folder: &Path) -> Result<Config, ConfigError> {
        problem::collect(text, file, |root, notes| {
            protection::read(root, folder, notes)
        })
    }

    pub fn policy_of(&self, vm: &Vm) -> &Policy {
        &self.policies[vm.policy]
    }

    /// The order in which VMs are synced: by priority, then as in the file.
    pub fn vms_by_priority(&self) -> Vec<&Vm> {
        let mut vms: Vec<_> = self.vms.iter().collect();
        vms.sort_by_key(|vm| vm.priority.unwrap_or(u32::MAX));
        vms
    }
}

#[cfg(test)]
mod tests;
