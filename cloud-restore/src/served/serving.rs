//! The disks of a recovery point, opened to be served: what `serve`, `boot`, `drill` and `preflight` begin with.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use console::units::Bytes;
use console::{Failure, Finding, OrFailure};
use vault_store::read::{DiskImage, Point, Vault};
use virtual_disk::nbd::server::{Export, NamedExport};

use super::cache::Cache;
use super::disk::ServedDisk;
use super::overlay::{KeptOverlay, Over, Overlay};
use super::source::VaultSource;
use crate::failure::attempting;
use crate::point_view;

/// Of all disks together, in memory.
const MEMORY_BYTES: u64 = 128 << 20;
const DEFAULT_CACHE: &str = "4 GB";
/// No hypervisor has larger disks: a manifest that tells of one is damaged or hostile, and what is noted of each chunk
/// would not fit into memory.
const MOST_DISK_BYTES: u64 = 1 << 50;
/// Survives a restart of the machine, is not in memory, and is there.
const DEFAULT_FOLDER: &str = "/var/tmp";

/// Where what was fetched, and what is written, is kept meanwhile.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cache")]
pub struct CacheArgs {
    /// How much of what was fetched is kept on this machine; sealed, and gone at the end
    #[arg(long, value_name = "SIZE", default_value = DEFAULT_CACHE)]
    pub cache: Bytes,
    /// The folder for that, and for what is written over the disks
    #[arg(long, value_name = "FOLDER", default_value = DEFAULT_FOLDER)]
    pub cache_folder: PathBuf,
}

/// What becomes of writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writes {
    Refused,
    ThrownAway,
    /// In a folder, a file for each disk.
    Kept(PathBuf),
}

/// A disk that is ready to be served.
#[derive(Clone)]
pub struct Opened {
    pub name: String,
    pub disk: Arc<ServedDisk>,
}

/// Opens disks of a point, in the order of their names as given.
pub async fn open_disks(
    vault: &Vault,
    point: &Point,
    names: &[&str],
    cache: &CacheArgs,
    writes: &Writes,
) -> Result<Vec<Opened>, Failure> {
    let shown = point_view::name(&point.manifest.facts);
    let images = DiskImage::open_all(vault, point, names)
        .await
        .map_err(attempting(format!("cannot open the disks of {shown}")))?;
    if let Writes::Kept(folder) = writes {
        std::fs::create_dir_all(folder).or_failure(|| {
            Failure::failed(format!("cannot make the folder {}", folder.display()))
        })?;
    }
    let share = |bytes: u64, chunk: u32| bytes / u64::from(chunk) / names.len().max(1) as u64;
    let mut opened = Vec::with_capacity(names.len());
    for (name, image) in names.iter().zip(images) {
        check_size(&format!("{shown} {name}"), image.size_bytes())?;
        let chunk = image.chunk_bytes();
        let folder = &cache.cache_folder;
        let in_file = u32::try_from(share(cache.cache.get(), chunk)).unwrap_or(u32::MAX);
        let in_memory = share(MEMORY_BYTES, chunk) as usize;
        let no_cache = || {
            Failure::failed(format!("cannot make a cache in {}", folder.display()))
                .remedy("name a folder that you may write to with --cache-folder")
        };
        let made = Cache::create(folder, chunk, in_memory, in_file).or_failure(no_cache)?;
        let overlay = match writes {
            Writes::Refused => None,
            Writes::ThrownAway => Some(Overlay::thrown_away(folder).or_failure(no_cache)?),
            Writes::Kept(folder) => Some(kept(vault, point, name, image.size_bytes(), folder)?),
        };
        let source = Arc::new(VaultSource(image));
        let disk = ServedDisk::new(format!("{shown} {name}"), source, made, overlay);
        opened.push(Opened {
            name: (*name).to_owned(),
            disk: Arc::new(disk),
        });
    }
    Ok(opened)
}

fn check_size(disk: &str, size_bytes: u64) -> Result<(), Failure> {
    match size_bytes <= MOST_DISK_BYTES {
        true => Ok(()),
        false => Err(Failure::failed(format!(
            "disk {disk} is said to have {size_bytes} bytes, more than any disk has"
        ))
        .remedy("its recovery point cannot be trusted: take another one, and find out which gateway wrote it")),
    }
}

/// What an NBD server on this machine shows of them.
pub fn exports(disks: &[Opened]) -> Vec<NamedExport> {
    let export = |opened: &Opened| NamedExport {
        name: opened.name.clone(),
        description: String::new(),
        export: opened.disk.clone(),
    };
    disks.iter().map(export).collect()
}

/// Makes durable what is kept, of all disks, whatever fails of one.
pub async fn flush_all(disks: &[Opened]) -> Result<(), Failure> {
    let mut all = Ok(());
    for opened in disks {
        let flushed = opened.disk.flush().await;
        all = all.and(flushed.map_err(|e| Failure::failed(e.to_string())));
    }
    all
}

/// What a client asked for and did not get, of each disk.
pub fn unanswered(disks: &[Opened]) -> Vec<Finding> {
    let of = |opened: &Opened| {
        let failures = opened.disk.usage().failures;
        let requests = if failures == 1 { "request" } else { "requests" };
        (failures > 0).then(|| {
            Finding::new(
                format!("{failures} {requests} answered with an I/O error"),
                format!("disk {}", opened.name),
                "the vault could not be reached or is damaged there, or what was written found no room; each is in the log",
                "see that the vault answers, then `sparesite-restore verify` says what of it is lost",
            )
        })
    };
    disks.iter().filter_map(of).collect()
}

/// What is kept of a disk in a folder; it is made if it is not there.
pub fn kept(
    vault: &Vault,
    point: &Point,
    disk: &str,
    size_bytes: u64,
    folder: &Path,
) -> Result<Overlay, Failure> {
    let facts = &point.manifest.facts;
    let over = Over {
        vault: vault.config.id.to_string(),
        point: format!("{}@{} ({})", facts.vm, facts.point.sequence, facts.point),
        disk: disk.to_owned(),
        size_bytes,
    };
    let path = folder.join(format!("{disk}.overlay"));
    let opened = KeptOverlay::open(&path, &over).map_err(|e| Failure::failed(e.to_string()))?;
    Overlay::kept(opened)
        .or_failure(|| Failure::failed(format!("cannot read the overlay {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_no_disk_has_is_an_error_and_takes_no_memory() {
        assert!(check_size("vm@1 sda", 64 << 40).is_ok());
        for absurd in [MOST_DISK_BYTES + 1, u64::MAX] {
            let refused = check_size("vm@1 sda", absurd).unwrap_err().to_string();
            assert!(refused.contains("vm@1 sda"), "{refused}");
        }
    }
}
