//! What the daemon remembers of its jobs: how long they take, and what failed. Read back from the
//! job log at the start.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    jobs::{Job, JobKind, JobOutcome},
    schedule::{Failures, Took},
};

/// Of one VM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    pub took: Option<Took>,
    /// Of captures, in a row.
    pub failures: Failures,
    pub last_failure: String,
    /// Points that were replaced in a full outbox since one of the VM was last published.
    pub superseded: u64,
}

impl Memory {
    /// Takes in a record, the older ones first.
    pub fn note(&mut self, job: &Job) {
        let capture = match job.kind {
            JobKind::Capture | JobKind::Pass => true,
            JobKind::Upload => false,
            JobKind::Scrub | JobKind::Rebuild => return,
        };
        match job.outcome {
            JobOutcome::Stopped => {}
            JobOutcome::Failed if capture => {
                self.failures = self.failures.and_one_more(job.end);
                self.last_failure = job.why.first().cloned().unwrap_or_default();
            }
            // The uplink's failures are not the VM's.
            JobOutcome::Failed => {}
            JobOutcome::Done | JobOutcome::Findings => {
                let took = self.took.get_or_insert_default();
                let length = length(job.start, job.end);
                match job.kind {
                    JobKind::Capture => {
                        took.capture = length;
                        self.superseded = self.superseded.saturating_add(job.superseded);
                    }
                    JobKind::Upload => {
                        took.upload = length;
                        self.superseded = 0;
                    }
                    _ => {}
                }
                if capture {
                    self.failures = Failures::default();
                }
            }
        }
    }
}

/// Nothing, if the clock was set back meanwhile.
fn length(start: Timestamp, end: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(start)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(kind: JobKind, outcome: JobOutcome, start: i64, end: i64) -> Job {
        let at = |second| Timestamp::from_second(second).expect("a time");
        Job::new(kind, Some("a"), at(start), at(end), outcome)
    }

    #[test]
    fn lengths_are_the_last_ones_and_failures_count_until_a_capture_succeeds() {
        use {JobKind::*, JobOutcome::*};
        let mut memory = Memory::default();
        memory.note(&job(Capture, Done, 0, 30));
        memory.note(&job(Upload, Findings, 30, 100));
        memory.note(&job(Capture, Failed, 200, 201));
        memory.note(&job(Capture, Stopped, 300, 900));
        memory.note(&job(Upload, Failed, 400, 901));
        memory.note(&job(Scrub, Failed, 400, 901));
        let why = vec!["no such disk".to_owned()];
        memory.note(&Job {
            why,
            ..job(Pass, Failed, 500, 502)
        });
        let seconds = Duration::from_secs;
        let took = Took {
            capture: seconds(30),
            upload: seconds(70),
        };
        assert_eq!(memory.took, Some(took));
        assert_eq!(memory.failures.count, 2);
        assert_eq!(
            memory.failures.last_at,
            Some(Timestamp::from_second(502).expect("a time"))
        );
        assert_eq!(memory.last_failure, "no such disk");
        memory.note(&job(Capture, Done, 600, 590));
        assert_eq!(
            (memory.failures.count, memory.took.map(|t| t.capture)),
            (0, Some(seconds(0)))
        );
    }

    #[test]
    fn replaced_points_count_until_one_is_published() {
        use {JobKind::*, JobOutcome::*};
        let mut memory = Memory::default();
        for superseded in [2, 0, 1] {
            memory.note(&Job {
                superseded,
                ..job(Capture, Findings, 0, 30)
            });
        }
        memory.note(&job(Upload, Failed, 30, 100));
        assert_eq!(memory.superseded, 3);
        memory.note(&job(Upload, Done, 30, 100));
        assert_eq!(memory.superseded, 0);
    }
}
