//! The record of a run in the vault, appended to by one process at a time.

use std::collections::BTreeMap;

use console::Failure;
use jiff::Timestamp;
use recovery_plan::run::{Entry, Event, RecordError, Run, Stored};
use vault_format::run_record::RunName;
use vault_store::read::{Appended, RunEntry, Runs};

use crate::failure::attempting;

/// Numbers that are taken by entries which say nothing, before whoever appends gives up.
const MOST_TRIES: usize = 1000;

pub struct Recorder<'v> {
    runs: Runs<'v>,
    name: RunName,
    next: u64,
    /// As the record tells it.
    pub run: Run,
    by: String,
}

/// Entries of which nothing can be read, by their numbers.
pub type Unread = BTreeMap<u64, String>;

/// What is said in a record, and what in it is void.
pub fn stored(entries: Vec<RunEntry>) -> (Vec<Stored>, Unread) {
    let (mut said, mut void) = (Vec::new(), Unread::new());
    for entry in entries {
        let read = entry.says.and_then(|says| {
            serde_json::from_slice::<Entry>(&says).map_err(|error| error.to_string())
        });
        match read {
            Ok(read) => said.push(Stored {
                number: entry.number,
                hash: entry.hash.to_string(),
                entry: read,
            }),
            Err(why) => drop(void.insert(entry.number, why)),
        }
    }
    (said, void)
}

/// Why a run's record cannot be gone on with.
pub fn unreadable(name: &str) -> impl FnOnce(RecordError) -> Failure {
    let attempt = format!("cannot read the record of run {name}");
    |error| {
        Failure::failed(attempt)
            .because(error)
            .remedy("use the version of the program that began it")
    }
}

/// A name that no other process has.
pub fn process_name() -> String {
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy().into_owned();
    let number: u64 = rand::random();
    format!("{host}/{}/{number:016x}", std::process::id())
}

impl<'v> Recorder<'v> {
    /// Begins a run: `event` is its first entry. `None`: another process did so at the same time.
    pub async fn begin(
        runs: Runs<'v>,
        name: RunName,
        event: Event,
    ) -> Result<Option<Self>, Failure> {
        let failed = "cannot begin the run's record in the vault";
        let by = process_name();
        let (entry, bytes) = entry(String::new(), &by, event)?;
        let (said, void) = stored(runs.read(name).await.map_err(attempting(failed))?);
        if !said.is_empty() {
            return Ok(None);
        }
        // Behind what a stranger put there.
        let mut number = void.keys().next_back().copied().unwrap_or(0) + 1;
        for _ in 0..MOST_TRIES {
            let appended = runs.append(name, number, &bytes).await;
            match appended.map_err(attempting(failed))? {
                Appended::Done(hash) => {
                    let first = Stored {
                        number,
                        hash: hash.to_string(),
                        entry,
                    };
                    let run = Run::replay(&[first]).map_err(unreadable("that was just begun"))?;
                    return Ok(Some(Recorder {
                        runs,
                        name,
                        next: number + 1,
                        run,
                        by,
                    }));
                }
                Appended::Taken => {
                    let (said, _) = stored(runs.read(name).await.map_err(attempting(failed))?);
                    if !said.is_empty() {
                        return Ok(None);
                    }
                    number += 1;
                }
            }
        }
        Err(Failure::failed(failed)
            .because("somebody takes every number of it")
            .remedy("withdraw the gateway's credentials, and run the same command again"))
    }

    /// Takes a run over from whoever had it before.
    pub async fn take(runs: Runs<'v>, name: RunName) -> Result<Self, Failure> {
        let entries = runs.read(name).await;
        let entries = entries.map_err(attempting("cannot read the run's record in the vault"))?;
        let next = entries.last().map_or(1, |last| last.number + 1);
        let (said, _) = stored(entries);
        let run = Run::replay(&said).map_err(unreadable("in the vault"))?;
        let mut recorder = Recorder {
            runs,
            name,
            next,
            run,
            by: process_name(),
        };
        recorder.append(Event::Taken {}).await?;
        Ok(recorder)
    }

    /// Writes it down. An error: it is not written, or the run is another process's now.
    pub async fn append(&mut self, event: Event) -> Result<(), Failure> {
        let id = self.run.id.clone();
        let failed = || format!("cannot write down what run {id} does");
        for _ in 0..MOST_TRIES {
            let (entry, bytes) = entry(self.run.last.clone(), &self.by, event.clone())?;
            let number = self.next;
            let appended = self.runs.append(self.name, number, &bytes).await;
            match appended.map_err(attempting(failed()))? {
                Appended::Done(hash) => {
                    self.next += 1;
                    let hash = hash.to_string();
                    let stored = Stored {
                        number,
                        hash,
                        entry,
                    };
                    let applied = self.run.apply(&stored);
                    applied.map_err(unreadable(&self.run.id))?;
                    return match self.run.void.get(&number) {
                        None => Ok(()),
                        Some(why) => Err(Failure::failed(failed()).because(why.clone())),
                    };
                }
                Appended::Taken => self.read_on().await?,
            }
            if !matches!(event, Event::Taken {}) {
                self.ours()?;
            }
        }
        Err(Failure::failed(failed())
            .because("somebody takes every number of it")
            .remedy("withdraw the gateway's credentials, and run the same command again"))
    }

    /// An error: another process has the run now.
    pub async fn is_still_ours(&mut self) -> Result<(), Failure> {
        self.read_on().await?;
        self.ours()
    }

    fn ours(&self) -> Result<(), Failure> {
        match self.run.by == self.by {
            true => Ok(()),
            false => Err(
                Failure::failed(format!("run {} was taken over", self.run.id))
                    .because(format!("{} goes on with it", self.run.by))
                    .remedy("let it; this process stops, and nothing that it made is lost"),
            ),
        }
    }

    /// What others appended meanwhile.
    async fn read_on(&mut self) -> Result<(), Failure> {
        let entries = self.runs.read(self.name).await;
        let entries = entries.map_err(attempting("cannot read the run's record in the vault"))?;
        let new: Vec<RunEntry> = entries
            .into_iter()
            .filter(|entry| entry.number >= self.next)
            .collect();
        self.next = new.last().map_or(self.next, |last| last.number + 1);
        for stored in stored(new).0 {
            let applied = self.run.apply(&stored);
            applied.map_err(unreadable(&self.run.id))?;
        }
        Ok(())
    }
}

fn entry(previous: String, by: &str, event: Event) -> Result<(Entry, Vec<u8>), Failure> {
    let entry = Entry {
        previous,
        time: Timestamp::now(),
        by: by.to_owned(),
        event,
    };
    let bytes = serde_json::to_vec(&entry);
    let bytes = bytes.map_err(|error| Failure::failed("cannot write an entry").because(error))?;
    Ok((entry, bytes))
}
