//! The doing of `assemble`: each disk, in each format, from the vault.

use std::path::PathBuf;
use std::sync::Arc;

use console::{Failure, OrFailure, Progress};
use jiff::Timestamp;
use tokio::task::block_in_place;
use vault_format::manifest::Disk;
use vault_store::read::{AssembleReport, Point, Vault, assemble};
use vault_store::{Extents, Sink};
use virtual_disk::{CreateOptions, Format, OpenOptions};

use crate::failure::attempting;
use crate::local_disk::LocalDisk;
use crate::outputs::{Output, Outputs, Place};
use crate::point_view;
use crate::under_construction::{Formats, UnderConstruction};

pub struct Build<'a> {
    pub vault: &'a Vault,
    pub point: &'a Point,
    pub in_place: bool,
    pub sync: bool,
    /// Else an old copy's format is found out.
    pub format_given: bool,
}

/// One file (or device) that is whole now.
#[derive(Debug)]
pub struct Built {
    pub disk: String,
    pub path: PathBuf,
    pub format: Format,
    pub size_bytes: u64,
    pub how: How,
    pub chunks: u64,
    pub chunks_fetched: u64,
    pub chunks_kept: u64,
    pub bytes_written: u64,
    pub zeroed_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    New,
    /// Written over an old copy.
    Updated,
    /// Excluded from protection.
    Empty,
}

impl Build<'_> {
    pub async fn all(&self, disks: &[&Disk], outputs: &Outputs) -> Result<Vec<Built>, Failure> {
        let mut built = Vec::new();
        for (number, disk) in disks.iter().enumerate() {
            let files = outputs.files.iter().filter(|file| file.disk == number);
            let (old, new): (Vec<&Output>, Vec<&Output>) =
                files.partition(|file| self.is_old(file));
            if !new.is_empty() {
                built.extend(self.new_disk(number, disk, &new).await?);
            }
            for file in old {
                built.push(self.old_disk(disk, file).await?);
            }
        }
        Ok(built)
    }

    fn is_old(&self, file: &Output) -> bool {
        self.in_place && Place::of(&file.path) != Place::Missing
    }

    fn cannot(&self, disk: &Disk, path: &std::path::Path) -> Failure {
        let point = point_view::name(&self.point.manifest.facts);
        Failure::failed(format!(
            "cannot assemble disk {} of {point} to {}",
            disk.name,
            path.display()
        ))
    }

    /// In all formats at once, so that each chunk is fetched once.
    async fn new_disk(
        &self,
        number: usize,
        disk: &Disk,
        files: &[&Output],
    ) -> Result<Vec<Built>, Failure> {
        let mut making = UnderConstruction::default();
        for file in files {
            let options = self.create_options(number);
            let made = block_in_place(|| {
                LocalDisk::create(&file.path, file.format, disk.size_bytes, &options)
            });
            making
                .0
                .push(Arc::new(made.or_failure(|| self.cannot(disk, &file.path))?));
        }
        let sink: Arc<dyn Sink> = Arc::new(Formats(making.0.clone()));
        let (how, report) = match disk.excluded {
            true => (How::Empty, NOTHING),
            false => (How::New, self.fetch(disk, sink, None, files[0]).await?),
        };
        block_in_place(|| making.finish()).or_failure(|| self.cannot(disk, &files[0].path))?;
        Ok(files
            .iter()
            .map(|file| built(disk, file, how, &report))
            .collect())
    }

    async fn old_disk(&self, disk: &Disk, file: &Output) -> Result<Built, Failure> {
        let options = OpenOptions {
            format: self.format_given.then_some(file.format),
            ..OpenOptions::default()
        };
        let opened = block_in_place(|| LocalDisk::open_old(&file.path, disk.size_bytes, &options));
        let old = Arc::new(opened.or_failure(|| self.cannot(disk, &file.path))?);
        let making = UnderConstruction(vec![Arc::clone(&old)]);
        let (how, report) = match disk.excluded {
            true => {
                block_in_place(|| old.empty(disk.size_bytes))
                    .or_failure(|| self.cannot(disk, &file.path))?;
                (How::Empty, NOTHING)
            }
            false => {
                let extents: Arc<dyn Extents> = Arc::clone(&old) as Arc<dyn Extents>;
                (
                    How::Updated,
                    self.fetch(disk, old, Some(extents), file).await?,
                )
            }
        };
        block_in_place(|| making.finish()).or_failure(|| self.cannot(disk, &file.path))?;
        Ok(built(disk, file, how, &report))
    }

    async fn fetch(
        &self,
        disk: &Disk,
        sink: Arc<dyn Sink>,
        old: Option<Arc<dyn Extents>>,
        file: &Output,
    ) -> Result<AssembleReport, Failure> {
        let label = format!(
            "assemble {} {}",
            point_view::name(&self.point.manifest.facts),
            disk.name
        );
        let progress = Progress::start(&label, Some(disk.size_bytes));
        let add = |bytes| progress.add(bytes);
        let report = assemble(self.vault, self.point, &disk.name, sink, old, &add)
            .await
            .map_err(attempting(self.cannot(disk, &file.path).to_string()))?;
        progress.finish();
        Ok(report)
    }

    /// The same disk of the same point gives the same VHD, and no other disk does.
    fn create_options(&self, number: usize) -> CreateOptions {
        /// 2000-01-01T00:00:00Z, from which VHDs count.
        const VHD_EPOCH: i64 = 946_684_800;
        let mut vhd_unique_id = [0; 16];
        vhd_unique_id.copy_from_slice(&self.point.hash.0[..16]);
        vhd_unique_id[15] ^= number as u8;
        let captured = self.point.manifest.facts.captured_at.parse::<Timestamp>();
        let seconds = captured.map_or(0, |at| at.as_second() - VHD_EPOCH);
        CreateOptions {
            sync: self.sync,
            vhd_unique_id,
            vhd_timestamp: u32::try_from(seconds).unwrap_or(0),
            ..CreateOptions::default()
        }
    }
}

const NOTHING: AssembleReport = AssembleReport {
    chunks: 0,
    chunks_fetched: 0,
    chunks_kept: 0,
    bytes_written: 0,
    zeroed_bytes: 0,
};

fn built(disk: &Disk, file: &Output, how: How, report: &AssembleReport) -> Built {
    Built {
        disk: disk.name.clone(),
        path: file.path.clone(),
        format: file.format,
        size_bytes: disk.size_bytes,
        how,
        chunks: report.chunks,
        chunks_fetched: report.chunks_fetched,
        chunks_kept: report.chunks_kept,
        bytes_written: report.bytes_written,
        zeroed_bytes: report.zeroed_bytes,
    }
}
