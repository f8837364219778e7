//! The job log: what ran, when, what came of it and why. Lines of JSON in the state folder, only
//! appended to, bounded by turning over. A line that a crash tore is no record, and in nobody's way.

mod newest;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use newest::newest;

/// What ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// A VM's changed data, read into the outbox.
    Capture,
    /// A point, sent from the outbox and published.
    Upload,
    /// One round of a first sync over the running disks.
    Pass,
    /// Chunks of tracked disks, read again.
    Scrub,
    /// The state folder, from the vault.
    Rebuild,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobOutcome {
    Done,
    /// Done, and something was found.
    Findings,
    Failed,
    /// The gateway was told to stop.
    Stopped,
}

/// One record. What does not apply is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub kind: JobKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    /// The sequence number of the point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<u64>,
    pub start: Timestamp,
    pub end: Timestamp,
    pub outcome: JobOutcome,
    /// Why it failed, what was found, why all was compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<String>,
    #[serde(default)]
    pub bytes_read: u64,
    #[serde(default)]
    pub bytes_sent: u64,
    /// For how long the guest stood still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_milliseconds: Option<u64>,
    /// For how long its file systems were frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freeze_milliseconds: Option<u64>,
    /// Points that waited in a full outbox, and that this one replaced.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub superseded: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A kind or an outcome, as the log has it.
pub fn word(value: &impl Serialize) -> String {
    let word = serde_json::to_value(value).ok();
    word.and_then(|word| Some(word.as_str()?.to_owned()))
        .unwrap_or_default()
}

impl Job {
    pub fn new(
        kind: JobKind,
        vm: Option<&str>,
        start: Timestamp,
        end: Timestamp,
        outcome: JobOutcome,
    ) -> Self {
        Job {
            kind,
            vm: vm.map(str::to_owned),
            point: None,
            start,
            end,
            outcome,
            why: Vec::new(),
            bytes_read: 0,
            bytes_sent: 0,
            pause_milliseconds: None,
            freeze_milliseconds: None,
            superseded: 0,
        }
    }
}

/// Turned over at this size: some ten thousand records, and as many in the file before.
const MOST_BYTES: u64 = 4 << 20;
/// Of the words of one record.
const MOST_WHY: usize = 16;
const MOST_WHY_CHARS: usize = 1000;

/// The end of the log.
#[derive(Debug)]
pub struct JobLog {
    state: PathBuf,
    file: File,
    most_bytes: u64,
}

impl JobLog {
    /// Makes the state folder if it is not there.
    pub fn open(state: &Path) -> io::Result<Self> {
        Self::bounded(state, MOST_BYTES)
    }

    fn bounded(state: &Path, most_bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(state)?;
        let file = open_to_append(&current(state))?;
        Ok(JobLog {
            state: state.to_owned(),
            file,
            most_bytes,
        })
    }

    /// On the disk when it returns.
    pub fn append(&mut self, job: &Job) -> io::Result<()> {
        let mut job = job.clone();
        job.why.truncate(MOST_WHY);
        for why in &mut job.why {
            if let Some((end, _)) = why.char_indices().nth(MOST_WHY_CHARS) {
                why.truncate(end);
            }
        }
        let mut line = serde_json::to_vec(&job)?;
        line.push(b'\n');
        if self.file.metadata()?.len() + line.len() as u64 > self.most_bytes {
            fs::rename(current(&self.state), previous(&self.state))?;
            self.file = open_to_append(&current(&self.state))?;
        }
        self.file.write_all(&line)?;
        self.file.sync_data()
    }
}

fn current(state: &Path) -> PathBuf {
    state.join("jobs.jsonl")
}

fn previous(state: &Path) -> PathBuf {
    state.join("jobs.1.jsonl")
}

/// A line that was torn is ended first, so that the next one is not part of it.
fn open_to_append(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    if file.metadata()?.len() > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn job(number: i64) -> Job {
        let vm = if number % 2 == 0 { "even" } else { "odd" };
        Job {
            point: Some(number as u64),
            ..Job::new(
                JobKind::Capture,
                Some(vm),
                at(number),
                at(number + 1),
                JobOutcome::Done,
            )
        }
    }

    fn points(state: &Path, most: usize) -> Vec<u64> {
        let jobs = newest(state, most, |_| true).expect("read");
        jobs.into_iter().filter_map(|job| job.point).collect()
    }

    #[test]
    fn what_is_appended_is_read_newest_first_also_by_the_next_start() {
        let state = tempfile::tempdir().expect("a folder");
        assert!(points(state.path(), 9).is_empty());
        for start in 0..3 {
            let mut log = JobLog::open(&state.path().join("new")).expect("opens");
            for number in 0..2 {
                log.append(&job(2 * start + number)).expect("appended");
            }
        }
        let state = state.path().join("new");
        assert_eq!(points(&state, 9), [5, 4, 3, 2, 1, 0]);
        assert_eq!(points(&state, 2), [5, 4]);
        let odd = newest(&state, 9, |job| job.vm.as_deref() == Some("odd"));
        assert_eq!(odd.expect("read"), [job(5), job(3), job(1)]);
    }

    #[test]
    fn a_torn_line_costs_itself_only() {
        let state = tempfile::tempdir().expect("a folder");
        let append = |number| {
            let mut log = JobLog::open(state.path()).expect("opens");
            log.append(&job(number)).expect("appended");
        };
        append(1);
        append(2);
        let path = current(state.path());
        let whole = fs::read(&path).expect("read");
        let first = whole.iter().position(|b| *b == b'\n').expect("a line") + 1;
        for torn in first + 1..whole.len() {
            fs::write(&path, &whole[..torn]).expect("written");
            append(3);
            // Without its end, the line is whole.
            let second: &[u64] = if torn + 1 == whole.len() {
                &[3, 2, 1]
            } else {
                &[3, 1]
            };
            assert_eq!(points(state.path(), 9), second, "{torn}");
        }
    }

    #[test]
    fn the_log_is_bounded_and_keeps_what_is_newest() {
        let state = tempfile::tempdir().expect("a folder");
        let mut log = JobLog::bounded(state.path(), 2000).expect("opens");
        for number in 0..200 {
            log.append(&job(number)).expect("appended");
        }
        let size = |path: PathBuf| fs::metadata(path).expect("there").len();
        assert!(size(current(state.path())) <= 2000 && size(previous(state.path())) <= 2000);
        let kept = points(state.path(), 200);
        assert!(kept.len() >= 10, "{kept:?}");
        let expected: Vec<u64> = (0..200).rev().take(kept.len()).collect();
        assert_eq!(kept, expected);
    }

    #[test]
    fn foreign_and_endless_content_is_passed_over() {
        let state = tempfile::tempdir().expect("a folder");
        let path = current(state.path());
        let mut content = b"no json\n{\"kind\":\"other\"}\n\xff\xfe\n[1]\n".to_vec();
        content.extend(serde_json::to_vec(&job(7)).expect("json"));
        content.extend(b"\n");
        content.extend(vec![b'x'; 3 << 20]);
        fs::write(&path, content).expect("written");
        let mut log = JobLog::open(state.path()).expect("opens");
        log.append(&job(8)).expect("appended");
        assert_eq!(points(state.path(), 9), [8, 7]);
    }

    #[test]
    fn words_are_bounded() {
        let state = tempfile::tempdir().expect("a folder");
        let mut log = JobLog::open(state.path()).expect("opens");
        let long = Job {
            why: vec!["ü".repeat(5000); 100],
            ..job(1)
        };
        log.append(&long).expect("appended");
        let read = newest(state.path(), 1, |_| true).expect("read");
        assert_eq!(read[0].why, vec!["ü".repeat(MOST_WHY_CHARS); MOST_WHY]);
    }
}
