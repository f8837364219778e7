//! The job log, and what is remembered of it for each VM.

use std::{io, path::Path};

use super::memory::Memory;
use crate::jobs::{Job, JobLog, newest};

pub struct Journal {
    log: JobLog,
    vms: Vec<(String, Memory)>,
}

/// Read back at the start: hundreds for each VM of a small site.
const READ_BACK: usize = 10_000;

impl Journal {
    /// `vms` in the order of the configuration.
    pub fn open(state: &Path, vms: impl Iterator<Item = String>) -> io::Result<Self> {
        let log = JobLog::open(state)?;
        let mut journal = Journal {
            log,
            vms: vms.map(|vm| (vm, Memory::default())).collect(),
        };
        let jobs = newest(state, READ_BACK, |_| true)?;
        jobs.iter().rev().for_each(|job| journal.note(job));
        Ok(journal)
    }

    /// That it cannot be written must not stop a capture.
    pub fn record(&mut self, job: &Job) {
        if let Err(error) = self.log.append(job) {
            tracing::error!("the job log cannot be written: {error}");
        }
        self.note(job);
    }

    fn note(&mut self, job: &Job) {
        let of_vm = self
            .vms
            .iter_mut()
            .find(|(vm, _)| Some(vm) == job.vm.as_ref());
        if let Some((_, memory)) = of_vm {
            memory.note(job);
        }
    }

    pub fn memory(&self, vm: usize) -> &Memory {
        &self.vms[vm].1
    }
}
