//! The doing of `assemble`: each disk, in each format, from the vault; all disks side by side.
//!
//! What is there already is compared first, of all disks. New files get their names together, at the end: what was killed
//! before is resumed by the same command.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use console::{Failure, OrFailure, Progress};
use jiff::Timestamp;
use tokio::task::block_in_place;
use vault_format::manifest::Disk;
use vault_store::Extents;
use vault_store::read::{AssembleReport, Assembly, DiskAssembly, OnBytes, Point, Survey, Vault};
use virtual_disk::{CreateOptions, Format, OpenOptions, partial_file};

use super::side_by_side::side_by_side;
use crate::failure::attempting;
use crate::local_disk::LocalDisk;
use crate::outputs::{Output, Outputs, Place};
use crate::point_view;
use crate::under_construction::{Formats, UnderConstruction};

pub struct Build<'a> {
    pub vault: &'a Vault,
    pub point: &'a Point,
    pub in_place: bool,
    /// Nothing is written.
    pub dry_run: bool,
    pub sync: bool,
    /// Else an old copy's format is found out.
    pub format_given: bool,
}

/// One file (or device) that is whole now, or would be.
#[derive(Debug)]
pub struct Built {
    pub disk: String,
    pub path: PathBuf,
    pub format: Format,
    pub size_bytes: u64,
    pub how: How,
    /// Before anything was written: where something was there, or in a dry run.
    pub survey: Option<Survey>,
    pub report: AssembleReport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    New,
    /// What an interrupted run left was gone on with.
    Resumed,
    /// Written over an old copy.
    Updated,
    /// Excluded from protection.
    Empty,
}

/// A disk in the files that it is written to at once, so that each chunk is fetched once.
struct Job<'a> {
    disk: &'a Disk,
    files: Vec<&'a Output>,
    how: How,
    locals: UnderConstruction,
    /// None of an excluded disk.
    assembly: Option<DiskAssembly>,
    survey: Option<Survey>,
    report: AssembleReport,
}

impl Build<'_> {
    /// `foretell` is called before anything is written, if something is there to be compared, or in a dry run.
    pub async fn all(
        &self,
        disks: &[&Disk],
        outputs: &Outputs,
        foretell: impl FnOnce(&[Built]) -> Result<(), Failure>,
    ) -> Result<Vec<Built>, Failure> {
        let cannot = attempting(format!("cannot read {}", self.point_name()));
        let assembly = Assembly::open(self.vault, self.point)
            .await
            .map_err(cannot)?;
        let mut jobs = Vec::new();
        for (number, disk) in disks.iter().enumerate() {
            let files = outputs.files.iter().filter(|file| file.disk == number);
            let (old, new): (Vec<&Output>, Vec<&Output>) =
                files.partition(|file| self.is_old(file));
            for files in [new]
                .into_iter()
                .chain(old.into_iter().map(|file| vec![file]))
            {
                if !files.is_empty() {
                    jobs.push(self.job(&assembly, number, disk, files).await?);
                }
            }
        }
        self.survey(&mut jobs).await?;
        if jobs.iter().any(|job| job.survey.is_some()) {
            foretell(&jobs.iter().flat_map(built).collect::<Vec<_>>())?;
        }
        if !self.dry_run {
            self.write(&mut jobs).await?;
        }
        let all = jobs.iter().flat_map(built).collect();
        for job in jobs {
            let cannot = || self.cannot(job.disk, &job.files[0].path);
            block_in_place(|| job.locals.finish()).or_failure(cannot)?;
        }
        Ok(all)
    }

    fn is_old(&self, file: &Output) -> bool {
        self.in_place && Place::of(&file.path) != Place::Missing
    }

    fn point_name(&self) -> String {
        point_view::name(&self.point.manifest.facts)
    }

    fn cannot(&self, disk: &Disk, path: &Path) -> Failure {
        Failure::failed(format!(
            "cannot assemble disk {} of {} to {}",
            disk.name,
            self.point_name(),
            path.display()
        ))
    }

    async fn job<'d>(
        &self,
        assembly: &Assembly<'_>,
        number: usize,
        disk: &'d Disk,
        files: Vec<&'d Output>,
    ) -> Result<Job<'d>, Failure> {
        let opened = match disk.excluded {
            true => None,
            false => {
                let opened = assembly.disk(&disk.name).await;
                let attempt = self.cannot(disk, &files[0].path).to_string();
                Some(opened.map_err(attempting(attempt))?)
            }
        };
        let mut job = Job {
            disk,
            files,
            how: if disk.excluded { How::Empty } else { How::New },
            locals: UnderConstruction::default(),
            assembly: opened,
            survey: None,
            report: AssembleReport::default(),
        };
        for file in job.files.clone() {
            let (local, how) = block_in_place(|| self.open(number, disk, file))
                .or_failure(|| self.cannot(disk, &file.path))?;
            job.locals.0.extend(local.map(Arc::new));
            if how != How::New && !disk.excluded {
                job.how = how;
            }
        }
        Ok(job)
    }

    /// The disk that is written to, or compared in a dry run.
    fn open(
        &self,
        number: usize,
        disk: &Disk,
        file: &Output,
    ) -> Result<(Option<LocalDisk>, How), virtual_disk::DiskError> {
        let Output { path, format, .. } = file;
        if self.is_old(file) {
            let options = OpenOptions {
                format: self.format_given.then_some(*format),
                ..OpenOptions::default()
            };
            let old = match self.dry_run {
                true => LocalDisk::look(path, &options)?,
                false => LocalDisk::open_old(path, disk.size_bytes, &options)?,
            };
            return Ok((Some(old), How::Updated));
        }
        if self.dry_run {
            let partial = partial_file(path, *format).filter(|partial| partial.is_file());
            // What cannot be opened is begun anew. A VHD has its footer at last, and is plain until then.
            let seen = match format {
                Format::Vhd => Format::Raw,
                other => *other,
            };
            let options = OpenOptions {
                format: Some(seen),
                ..OpenOptions::default()
            };
            let partial = partial.and_then(|partial| LocalDisk::look(&partial, &options).ok());
            let how = if partial.is_some() {
                How::Resumed
            } else {
                How::New
            };
            return Ok((partial, how));
        }
        let options = self.create_options(number);
        if disk.excluded || Place::of(path) == Place::Device {
            let new = LocalDisk::create(path, *format, disk.size_bytes, &options)?;
            return Ok((Some(new), How::New));
        }
        let (new, resumed) = LocalDisk::create_or_resume(path, *format, disk.size_bytes, &options)?;
        Ok((Some(new), if resumed { How::Resumed } else { How::New }))
    }

    /// Compares what is there, of all disks; a dry run looks up what is not there as well.
    async fn survey(&self, jobs: &mut [Job<'_>]) -> Result<(), Failure> {
        let is_compared = |job: &Job| matches!(job.how, How::Updated | How::Resumed);
        let compared = jobs.iter().filter(|job| is_compared(job));
        let bytes: u64 = compared.map(|job| job.disk.size_bytes).sum();
        let progress = (bytes > 0).then(|| {
            let label = format!("compare {} with what is there", self.point_name());
            Progress::start(&label, Some(bytes))
        });
        let mut works = Vec::new();
        for (number, job) in jobs.iter_mut().enumerate() {
            if !(is_compared(job) || self.dry_run) {
                continue;
            }
            let Some(mut assembly) = job.assembly.take() else {
                continue;
            };
            // A dry run has no disk for a format that is not there: all of it is to be written.
            let whole = job.locals.0.len() == job.files.len() && is_compared(job);
            let old = job.locals.0.iter().filter(|_| whole);
            let old = old
                .map(|disk| Arc::clone(disk) as Arc<dyn Extents>)
                .collect();
            let add = adding(progress.as_ref());
            let survey = async move {
                let survey = assembly.survey(old, add).await?;
                Ok((assembly, survey))
            };
            works.push((number, survey));
        }
        let done = side_by_side(works).await;
        for (number, (assembly, survey)) in done.map_err(|e| self.failed(jobs, e))? {
            jobs[number].assembly = Some(assembly);
            jobs[number].survey = Some(survey);
        }
        progress.iter().for_each(Progress::finish);
        Ok(())
    }

    async fn write(&self, jobs: &mut [Job<'_>]) -> Result<(), Failure> {
        let mut label = format!("assemble {}", self.point_name());
        if let [job] = jobs {
            label += &format!(" {}", job.disk.name);
        }
        let wanted = jobs.iter().filter(|job| job.assembly.is_some());
        let bytes = wanted.map(|job| job.disk.size_bytes).sum();
        let progress = Progress::start(&label, Some(bytes));
        let mut works = Vec::new();
        for (number, job) in jobs.iter_mut().enumerate() {
            let Some(assembly) = job.assembly.take() else {
                for (local, file) in job.locals.0.iter().zip(&job.files) {
                    if self.is_old(file) {
                        block_in_place(|| local.empty(job.disk.size_bytes))
                            .or_failure(|| self.cannot(job.disk, &file.path))?;
                    }
                }
                continue;
            };
            let sink = Arc::new(Formats(job.locals.0.clone()));
            works.push((number, assembly.write(sink, adding(Some(&progress)))));
        }
        let done = side_by_side(works).await;
        for (number, report) in done.map_err(|e| self.failed(jobs, e))? {
            jobs[number].report = report;
        }
        progress.finish();
        Ok(())
    }

    fn failed(&self, jobs: &[Job], (number, error): (usize, vault_store::StoreError)) -> Failure {
        let job = &jobs[number];
        attempting(self.cannot(job.disk, &job.files[0].path).to_string())(error)
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

fn adding(progress: Option<&Progress>) -> OnBytes {
    match progress.cloned() {
        Some(progress) => Arc::new(move |bytes| progress.add(bytes)),
        None => Arc::new(|_| {}),
    }
}

fn built<'j>(job: &'j Job) -> impl Iterator<Item = Built> + 'j {
    job.files.iter().map(|file| Built {
        disk: job.disk.name.clone(),
        path: file.path.clone(),
        format: file.format,
        size_bytes: job.disk.size_bytes,
        how: job.how,
        survey: job.survey,
        report: job.report,
    })
}
