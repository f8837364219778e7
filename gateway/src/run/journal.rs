//! The job log, and what is remembered of it for each VM.

use std::{io, path::Path};

use super::memory::Memory;
use crate::jobs::{Job, JobLog, JobOutcome, newest, word};

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
        // Whoever starts the daemon has mended something, or wants to know: no VM waits for its pause to end.
        for (_, memory) in &mut journal.vms {
            memory.failures = memory.failures.at_once();
        }
        Ok(journal)
    }

    /// That it cannot be written must not stop a capture.
    pub fn record(&mut self, job: &Job) {
        tell(job);
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

/// To the system's log, where each job's end is told here and nowhere else. Findings are told with their reasons when they are
/// found.
fn tell(job: &Job) {
    let on = job.vm.as_ref().map(|vm| format!("VM {vm}: "));
    let (on, kind, why) = (on.unwrap_or_default(), word(&job.kind), job.why.join("; "));
    match job.outcome {
        JobOutcome::Failed => tracing::warn!("{on}{kind} failed: {why}"),
        outcome => tracing::info!("{on}{kind}: {}", word(&outcome)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use jiff::Timestamp;
    use tracing::Level;

    use super::*;
    use crate::jobs::JobKind;

    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Said {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn said_at(level: Level, job: &Job) -> String {
        let (said, state) = (Said::default(), tempfile::tempdir().expect("a folder"));
        let writer = said.clone();
        let logs = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let mut journal = Journal::open(state.path(), std::iter::empty()).expect("opens");
        tracing::subscriber::with_default(logs, || journal.record(job));
        let said = said.0.lock().expect("not poisoned").clone();
        String::from_utf8(said).expect("text")
    }

    #[test]
    fn a_failed_job_is_told_at_the_level_that_the_service_logs_and_others_at_the_next() {
        let job = |vm, kind, outcome| Job {
            why: vec!["no such disk".into()],
            ..Job::new(
                kind,
                vm,
                Timestamp::UNIX_EPOCH,
                Timestamp::UNIX_EPOCH,
                outcome,
            )
        };
        let failed = job(Some("db"), JobKind::Capture, JobOutcome::Failed);
        let said = said_at(Level::WARN, &failed);
        assert!(
            said.contains("VM db: capture failed: no such disk"),
            "{said}"
        );
        let upload = job(None, JobKind::Upload, JobOutcome::Failed);
        let said = said_at(Level::WARN, &upload);
        assert!(said.contains(" upload failed: no such disk"), "{said}");
        let done = job(Some("db"), JobKind::Upload, JobOutcome::Done);
        assert_eq!(said_at(Level::WARN, &done), "");
        let said = said_at(Level::INFO, &done);
        assert!(said.contains("VM db: upload: done"), "{said}");
    }
}
