//! Run records: entries of one run of a recovery plan, each created once. What they say is the plan's business.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use vault_format::ids::PlanId;
use vault_format::names::{self, Name};
use vault_format::run_record::{RunKeys, RunName};

use super::Vault;
use crate::StoreError;
use crate::objects::Created;

/// Entries read at the same time.
const AT_ONCE: usize = 8;
/// Of one run: a plan of a thousand VMs with ten steps each, tried several times.
const MOST_ENTRIES: u64 = 100_000;

/// What came of appending an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    Done,
    /// Somebody else took the number: whoever appends reads on, and sees whether the run is still its own.
    Taken,
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

    /// All runs, of all plans, in their order, and how many entries each has. One listing.
    pub async fn list(&self) -> Result<BTreeMap<RunName, u64>, StoreError> {
        self.listed(names::RUNS).await
    }

    /// The newest run of a plan.
    pub async fn newest(&self, plan: PlanId) -> Result<Option<RunName>, StoreError> {
        let listed = self.listed(&names::runs_of(&plan)).await?;
        Ok(listed.into_keys().next_back())
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

    /// The entries of a run from number `from` on, up to the first that is not there.
    pub async fn read(&self, run: RunName, from: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut entries = Vec::new();
        let numbers = stream::iter(from..=MOST_ENTRIES);
        let got = numbers
            .map(|number| self.entry(run, number))
            .buffered(AT_ONCE);
        let mut there = got
            .try_take_while(|entry| std::future::ready(Ok(entry.is_some())))
            .boxed();
        while let Some(entry) = there.try_next().await? {
            entries.extend(entry);
        }
        Ok(entries)
    }

    async fn entry(&self, run: RunName, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let name = names::run_entry(run, number);
        match self.vault.objects.get(&name).await {
            Ok(bytes) => {
                let entry = self
                    .keys
                    .decode(&self.vault.config.control, run, number, &bytes);
                Ok(Some(entry.map_err(StoreError::format(&name))?))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
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
        match self.vault.objects.create(&name, bytes.clone()).await? {
            Created::New => Ok(Appended::Done),
            Created::Exists => match self.vault.objects.get(&name).await? == bytes {
                true => Ok(Appended::Done),
                false => Ok(Appended::Taken),
            },
        }
    }
}
