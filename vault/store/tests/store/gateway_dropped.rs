//! Whoever runs a sync gives it up: its future is dropped wherever it can wait. The next sync of the same state goes on,
//! whether in the same process or in a new one.

use crate::site::*;
use bytes::Bytes;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::task::Poll;
use vault_format::ChunkId;
use vault_store::error::DiskFailure;
use vault_store::extents::MemoryDisk;
use vault_store::gateway::Gateway;
use vault_store::objects::{Created, Listed, ObjectError, Objects};
use vault_store::read::PointSelector;
use vault_store::{Extents, StoreError};

#[derive(Clone, Copy, Debug)]
enum Moment {
    /// What it waits for is still under way.
    AtOnce,
    /// What it waited for has come, and is never looked at.
    WhenWoken,
}

/// Polls `work` as often as `polls` says and drops it then; `None` if it had not ended.
async fn dropped<F: Future>(work: F, polls: usize, moment: Moment) -> Option<F::Output> {
    let mut work = std::pin::pin!(work);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match (work.as_mut().poll(context), moment) {
            (Poll::Ready(output), _) => Poll::Ready(Some(output)),
            (Poll::Pending, Moment::AtOnce) if left == 0 => Poll::Ready(None),
            (Poll::Pending, _) => Poll::Pending,
        }
    })
    .await
}

/// A store that is waited for before each operation and after it, however fast it is.
#[derive(Debug)]
struct Unhurried(Arc<dyn Objects>);

impl Unhurried {
    async fn run<T>(&self, operation: impl Future<Output = T>) -> T {
        tokio::task::yield_now().await;
        let done = operation.await;
        tokio::task::yield_now().await;
        done
    }
}

#[async_trait::async_trait]
impl Objects for Unhurried {
    async fn create(&self, name: &str, bytes: Bytes) -> Result<Created, ObjectError> {
        self.run(self.0.create(name, bytes)).await
    }

    async fn get(&self, name: &str) -> Result<Bytes, ObjectError> {
        self.run(self.0.get(name)).await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, ObjectError> {
        self.run(self.0.get_range(name, range)).await
    }

    async fn size(&self, name: &str) -> Result<Option<u64>, ObjectError> {
        self.run(self.0.size(name)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError> {
        self.run(self.0.list(prefix)).await
    }

    fn store_time(&self) -> Option<jiff::Timestamp> {
        self.0.store_time()
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}

/// A disk that is still being read when the sync is given up.
struct Slow(MemoryDisk);

impl Extents for Slow {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskFailure> {
        std::thread::sleep(std::time::Duration::from_millis(2));
        self.0.read_at(offset, buf)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskFailure> {
        self.0.next_data(offset)
    }
}

async fn slow_cycle(gateway: &mut Gateway, source: Arc<dyn Extents>) -> Result<(), StoreError> {
    let mut vm = capture("vm", &[]);
    vm.disks[0].size_bytes = source.size_bytes();
    vm.disks[0].source = Some(source);
    gateway.begin_cycle(&|_| {}).await?;
    gateway.sync_vm(vm, &|_| {}, crash).await.map(drop)
}

/// A site whose "vm" has been `older`, and is `disk` now. "other" has a point too.
struct Case {
    base: Site,
    other: Vec<u8>,
    older: Vec<Vec<u8>>,
    disk: Vec<u8>,
}

impl Case {
    async fn first_sync() -> Self {
        let (base, other) = (Site::new().await, disk(9, 31));
        base.sync("other", &other).await.unwrap();
        let mut disk = disk(14, 32);
        disk[3 * CHUNK..6 * CHUNK].copy_from_slice(&other[3 * CHUNK..6 * CHUNK]);
        Case {
            base,
            other,
            older: Vec::new(),
            disk,
        }
    }

    async fn changes() -> Self {
        let mut case = Case::first_sync().await;
        for round in 0..2 {
            case.base.sync("vm", &case.disk).await.unwrap();
            case.older.push(case.disk.clone());
            for position in [1, 2, 5, 7, 8, 11, 13] {
                // Patches, and full records between them.
                let length = [BLOCK, CHUNK][position % 2];
                Dice((100 * round + position) as u64)
                    .fill(&mut case.disk[position * CHUNK..][..length]);
            }
            case.disk[9 * CHUNK..10 * CHUNK].fill(0);
        }
        case
    }

    async fn give_up_everywhere(&self) {
        for moment in [Moment::AtOnce, Moment::WhenWoken] {
            let polls = self.give_up_after_each_poll(moment).await;
            assert!(polls > 8, "it waited {polls} times only");
        }
    }

    /// Returns how many polls the whole sync had.
    async fn give_up_after_each_poll(&self, moment: Moment) -> usize {
        let mut polls = 0;
        loop {
            let (site, _folder) = self.base.copy().await;
            let mut gateway = site.lone_packs(Arc::new(Unhurried(site.objects.clone())));
            let source: Arc<dyn Extents> = Arc::new(Slow(MemoryDisk::new(self.disk.clone())));
            let open = Arc::downgrade(&source);
            let ended = dropped(slow_cycle(&mut gateway, source), polls, moment).await;
            let ended = ended.map(|ended| ended.unwrap()).is_some();
            let what = format!("dropped after {polls} polls, {moment:?}");
            assert!(open.upgrade().is_none(), "{what}: the disk is still open");
            let arrived: HashSet<ChunkId> =
                records(&whole_packs(&site).await).into_keys().collect();
            if let Moment::WhenWoken = moment {
                drop(gateway);
                gateway = site.lone_packs(site.objects.clone());
            }
            cycle(&mut gateway, "vm", &self.disk)
                .await
                .unwrap_or_else(|e| panic!("{what}: {e}"));
            let now = records(&whole_packs(&site).await);
            let twice = arrived.iter().filter(|id| now[*id] > 1).count();
            assert_eq!(twice, 0, "{what}: chunks that were sent again");
            self.check(&site, &what).await;
            if ended {
                return polls;
            }
            polls += 1;
            assert!(polls < 500, "a sync does not wait so often");
        }
    }

    async fn check(&self, site: &Site, what: &str) {
        let restored = site.restore("vm", PointSelector::Latest).await;
        let restored = restored.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(restored == self.disk, "{what}: the newest point");
        for (sequence, older) in (1..).zip(&self.older) {
            let restored = site.restore("vm", PointSelector::Sequence(sequence)).await;
            assert!(
                restored.unwrap() == *older,
                "{what}: point {sequence} before"
            );
        }
        let restored = site.restore("other", PointSelector::Latest).await;
        assert!(restored.unwrap() == self.other, "{what}: the other VM");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_sync_that_is_given_up_anywhere_is_continued() {
    let case = Case::first_sync().await;
    case.give_up_everywhere().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_with_changes_that_is_given_up_anywhere_is_continued() {
    let case = Case::changes().await;
    case.give_up_everywhere().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_is_given_up_while_it_learns_the_vault_anew_is_continued() {
    let case = Case::first_sync().await;
    std::fs::remove_dir_all(case.base.state_folder()).unwrap();
    case.give_up_everywhere().await;
}
