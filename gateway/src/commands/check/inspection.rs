//! Reads a guest for its facts: each byte counted, on a thread of its own that nobody waits for longer than a while.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use console::Progress;
use guest_inspection::{
    facts::{Facts, Machine},
    inspect,
    storage::NamedDisk,
};
use tokio::{sync::oneshot, time::timeout};
use virtual_disk::{DiskError, DiskReader};

use super::guest::Openable;
use crate::interrupt::Interrupt;

/// Some tens of megabytes are read of an ordinary guest.
const LIMIT: Duration = Duration::from_secs(60);
/// For a read that is under way when the time is over.
const LAST_READ: Duration = Duration::from_secs(5);

/// What came of an inspection.
#[derive(Debug)]
pub struct Inspected {
    pub read_bytes: u64,
    /// Or why there are none.
    pub facts: Result<Facts, String>,
}

impl Inspected {
    pub fn not(why: impl Into<String>) -> Self {
        Inspected {
            read_bytes: 0,
            facts: Err(why.into()),
        }
    }
}

/// What all disks of a guest share.
struct Reading {
    bytes: AtomicU64,
    /// Nobody waits for it any more.
    over: AtomicBool,
    progress: Progress,
}

/// Counts what is read, and fails once it is over.
struct CountedDisk {
    name: String,
    inner: Arc<dyn DiskReader>,
    reading: Arc<Reading>,
}

impl CountedDisk {
    fn go_on(&self) -> Result<(), DiskError> {
        match self.reading.over.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(DiskError::Io {
                action: "read on in",
                path: self.name.clone().into(),
                source: std::io::ErrorKind::TimedOut.into(),
            }),
        }
    }
}

impl DiskReader for CountedDisk {
    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.go_on()?;
        self.inner.read_at(offset, buf)?;
        let bytes = buf.len() as u64;
        self.reading.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.reading.progress.add(bytes);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskError> {
        self.go_on()?;
        self.inner.next_data(offset)
    }
}

/// The facts of a guest, within a minute or so. An interrupt ends it as a limit does.
pub async fn inspect_within_limit(
    machine: Machine,
    disks: Openable,
    interrupt: &Interrupt,
) -> Inspected {
    within(LIMIT, LAST_READ, machine, move || disks.open(), interrupt).await
}

async fn within(
    limit: Duration,
    last_read: Duration,
    machine: Machine,
    open: impl FnOnce() -> Result<Vec<NamedDisk>, String> + Send + 'static,
    interrupt: &Interrupt,
) -> Inspected {
    let began = Instant::now();
    let progress = Progress::start(&format!("preflight {}", machine.name), None);
    let reading = Arc::new(Reading {
        bytes: AtomicU64::new(0),
        over: AtomicBool::new(false),
        progress: progress.clone(),
    });
    let (tell, mut told) = oneshot::channel();
    let theirs = Arc::clone(&reading);
    // Not one of the runtime's: it waits for those when it ends.
    let spawned = thread::Builder::new()
        .name("inspection".into())
        .spawn(move || {
            let facts = open().map(|disks| inspect(machine, &counted(disks, &theirs)));
            // By here the disks are closed.
            let _ = tell.send(facts);
        });
    if let Err(error) = spawned {
        return Inspected::not(format!("no thread for it: {error}"));
    }
    let done = tokio::select! {
        done = timeout(limit, &mut told) => done.ok(),
        () = interrupt.wait() => None,
    };
    let facts = match done {
        Some(Ok(facts)) => facts,
        Some(Err(_)) => Err("its inspection broke off".to_owned()),
        None => {
            reading.over.store(true, Ordering::Relaxed);
            let _ = timeout(last_read, told).await;
            let took = console::show::duration(began.elapsed());
            Err(format!(
                "it was not read to its end in {took}, and given up"
            ))
        }
    };
    if facts.is_ok() {
        progress.finish();
    }
    Inspected {
        read_bytes: reading.bytes.load(Ordering::Relaxed),
        facts,
    }
}

fn counted(disks: Vec<NamedDisk>, reading: &Arc<Reading>) -> Vec<NamedDisk> {
    let counted = |disk: NamedDisk| NamedDisk {
        name: disk.name.clone(),
        reader: Arc::new(CountedDisk {
            name: disk.name,
            inner: disk.reader,
            reading: Arc::clone(reading),
        }),
    };
    disks.into_iter().map(counted).collect()
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;

    /// An empty disk whose reads take a while.
    struct SlowDisk(Duration);

    impl DiskReader for SlowDisk {
        fn size_bytes(&self) -> u64 {
            64 << 20
        }

        fn read_at(&self, _: u64, buf: &mut [u8]) -> Result<(), DiskError> {
            thread::sleep(self.0);
            buf.fill(0);
            Ok(())
        }

        fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskError> {
            Ok((offset < self.size_bytes()).then_some(offset..self.size_bytes()))
        }
    }

    async fn inspected(read: Duration, limit: Duration) -> Inspected {
        let (_still, came) = watch::channel(false);
        let disks = move || {
            Ok(vec![NamedDisk {
                name: "vda".into(),
                reader: Arc::new(SlowDisk(read)),
            }])
        };
        let machine = Machine {
            name: "dc01".into(),
            ..Machine::default()
        };
        within(limit, limit, machine, disks, &Interrupt::of(came)).await
    }

    #[tokio::test]
    async fn what_is_read_is_counted() {
        let done = inspected(Duration::ZERO, LIMIT).await;
        let facts = done.facts.expect("facts");
        assert_eq!(facts.storage.disks[0].disk, "vda");
        assert!(
            (512..64 << 20).contains(&done.read_bytes),
            "{}",
            done.read_bytes
        );
    }

    #[tokio::test]
    async fn a_disk_that_does_not_answer_is_given_up() {
        let began = Instant::now();
        let hangs = Duration::from_secs(30);
        let done = inspected(hangs, Duration::from_millis(50)).await;
        assert!(began.elapsed() < Duration::from_secs(20));
        let why = done.facts.expect_err("given up");
        assert!(why.ends_with("and given up"), "{why}");
    }
}
