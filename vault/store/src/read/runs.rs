//! Run records: entries of one run of a recovery plan, each created once. What they say is the plan's business.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use vault_format::control_log::MOST_LOST;
use vault_format::ids::{ObjectHash, PlanId, object_hash};
use vault_format::names::{self, Name};
use vault_format::run_record::{RunKeys, RunName};
use vault_format::signed_json::MAX_SIGNED_JSON_BYTES;

use super::Vault;
use crate::StoreError;
use crate::objects::Created;

/// Entries read at the same time.
const AT_ONCE: usize = 8;

/// Run 0 of a plan is none: its entries are the plan's texts, the newest that says something is the one that counts.
const TEXTS: u64 = 0;

/// Numbers that others take before a text gets its own.
const MOST_TRIES: usize = 32;

/// What came of appending an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// With the hash of the entry, which the next one names.
    Done(ObjectHash),
    /// Somebody else took the number: whoever appends reads on, and sees whether the run is still its own.
    Taken,
}

/// An entry as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunEntry {
    pub number: u64,
    pub hash: ObjectHash,
    /// What it says; else why it is void: whoever may create objects can take a number, and say nothing.
    pub says: Result<Vec<u8>, String>,
}

/// The run records of a vault.
#[derive(Debug)]
pub struct Runs<'a> {
    vault: &'a Vault,
    keys: RunKeys,
}

impl<'a> Runs<'a> {
    pub fn of(vault: &'a Vault) -> Self {
        Runs {
            vault,
            keys: RunKeys::new(&vault.keys.recovery, vault.config.id),
        }
    }

    pub fn plan_id(&self, name: &str) -> PlanId {
        self.keys.plan_id(name)
    }

    /// Keeps what is to be known of a plan, over what was kept of it before. `text` has to differ from all before it.
    pub async fn keep(&self, plan: PlanId, text: &[u8]) -> Result<(), StoreError> {
        let name = RunName { plan, run: TEXTS };
        let entries = self.read(name).await?;
        let mut number = entries.last().map_or(1, |last| last.number + 1);
        for _ in 0..MOST_TRIES {
            match self.append(name, number, text).await? {
                Appended::Done(_) => return Ok(()),
                Appended::Taken => number += 1,
            }
        }
        Err(StoreError::Other(format!(
            "others took the next number of the plan's texts {MOST_TRIES} times; try again"
        )))
    }

    /// The newest that was kept of a plan.
    pub async fn kept(&self, plan: PlanId) -> Result<Option<Vec<u8>>, StoreError> {
        let entries = self.read(RunName { plan, run: TEXTS }).await?;
        Ok(entries.into_iter().rev().find_map(|entry| entry.says.ok()))
    }

    /// Plans of which something was kept.
    pub async fn plans(&self) -> Result<Vec<PlanId>, StoreError> {
        let listed = self.listed(names::RUNS).await?;
        let texts = listed.into_keys().filter(|name| name.run == TEXTS);
        Ok(texts.map(|name| name.plan).collect())
    }

    /// All runs, of all plans, in their order, and how many objects each has. One listing; nothing is checked.
    pub async fn list(&self) -> Result<BTreeMap<RunName, u64>, StoreError> {
        let mut all = self.listed(names::RUNS).await?;
        all.retain(|name, _| name.run != TEXTS);
        Ok(all)
    }

    /// The newest run of a plan in which something is said, and its entries.
    pub async fn newest(
        &self,
        plan: PlanId,
    ) -> Result<Option<(RunName, Vec<RunEntry>)>, StoreError> {
        let listed = self.listed(&names::runs_of(&plan)).await?;
        for run in listed.into_keys().rev().filter(|name| name.run != TEXTS) {
            let entries = self.read(run).await?;
            if entries.iter().any(|entry| entry.says.is_ok()) {
                return Ok(Some((run, entries)));
            }
        }
        Ok(None)
    }

    async fn listed(&self, prefix: &str) -> Result<BTreeMap<RunName, u64>, StoreError> {
        let mut runs = BTreeMap::new();
        for object in self.vault.objects.list(prefix).await? {
            if let Some(Name::Run(run, _)) = names::parse(&object.name) {
                *runs.entry(run).or_default() += 1;
            }
        }
        Ok(runs)
    }

    /// The entries of a run, in the order of their numbers. A number that is missing is for the chain of hashes to tell.
    pub async fn read(&self, run: RunName) -> Result<Vec<RunEntry>, StoreError> {
        let mut listed = BTreeMap::new();
        for object in self.vault.objects.list(&names::run(run)).await? {
            if let Some(Name::Run(_, number)) = names::parse(&object.name) {
                listed.insert(number, object.size);
            }
        }
        // A number far behind the one before it is a made-up one, as in the control log.
        let mut last = 0;
        let near = |(number, _): &(u64, u64)| {
            let near = *number <= last + MOST_LOST;
            last = *number;
            near
        };
        let listed: Vec<(u64, u64)> = listed.into_iter().take_while(near).collect();
        let got = stream::iter(listed).map(|(number, size)| self.entry(run, number, size));
        got.buffered(AT_ONCE).try_collect().await
    }

    async fn entry(&self, run: RunName, number: u64, size: u64) -> Result<RunEntry, StoreError> {
        let void = |hash, why: String| RunEntry {
            number,
            hash,
            says: Err(why),
        };
        if size > MAX_SIGNED_JSON_BYTES {
            return Ok(void(
                ObjectHash([0; 32]),
                "it is larger than any entry".into(),
            ));
        }
        let bytes = self
            .vault
            .objects
            .get(&names::run_entry(run, number))
            .await?;
        let hash = object_hash(&bytes);
        let says = self
            .keys
            .decode(&self.vault.config.control, run, number, &bytes);
        Ok(match says {
            Ok(says) => RunEntry {
                number,
                hash,
                says: Ok(says),
            },
            Err(why) => void(hash, why.to_string()),
        })
    }

    /// Creates the entry of this number. `entry` has to name who appends it: where it exists already and is the very same,
    /// it was created by an attempt whose answer was lost.
    pub async fn append(
        &self,
        run: RunName,
        number: u64,
        entry: &[u8],
    ) -> Result<Appended, StoreError> {
        let name = names::run_entry(run, number);
        let control = &self.vault.keys.control;
        let bytes = self
            .keys
            .encode(control, run, number, entry)
            .map_err(StoreError::format(&name))?;
        let bytes = Bytes::from(bytes);
        let done = Appended::Done(object_hash(&bytes));
        match self.vault.objects.create(&name, bytes.clone()).await? {
            Created::New => Ok(done),
            Created::Exists => match self.vault.objects.get(&name).await? == bytes {
                true => Ok(done),
                false => Ok(Appended::Taken),
            },
        }
    }
}
