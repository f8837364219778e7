//! Whoever runs a sync gives it up: its future is dropped wherever it can wait. The next sync of the same state goes on,
//! whether in the same process or in a new one.

mod site;

use site::*;
use std::collections::HashSet;
use std::task::Poll;
use vault_format::ChunkId;
use vault_store::read::PointSelector;

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

    /// Returns how many polls the whole sync had.
    async fn give_up_everywhere(&self, moment: Moment) -> usize {
        let mut polls = 0;
        loop {
            let (site, _folder) = self.base.copy().await;
            let mut gateway = site.lone_packs(site.objects.clone());
            let ended = dropped(cycle(&mut gateway, "vm", &self.disk), polls, moment).await;
            let ended = ended.map(|ended| ended.unwrap()).is_some();
            let what = format!("dropped after {polls} polls, {moment:?}");
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
    for moment in [Moment::AtOnce, Moment::WhenWoken] {
        let polls = case.give_up_everywhere(moment).await;
        assert!(polls > 5, "it waited {polls} times only");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_with_changes_that_is_given_up_anywhere_is_continued() {
    let case = Case::changes().await;
    for moment in [Moment::AtOnce, Moment::WhenWoken] {
        let polls = case.give_up_everywhere(moment).await;
        assert!(polls > 5, "it waited {polls} times only");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_is_given_up_while_it_learns_the_vault_anew_is_continued() {
    let case = Case::changes().await;
    std::fs::remove_dir_all(case.base.state_folder()).unwrap();
    for moment in [Moment::AtOnce, Moment::WhenWoken] {
        let polls = case.give_up_everywhere(moment).await;
        assert!(polls > 8, "it waited {polls} times only");
    }
}
