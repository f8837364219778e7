//! The process dies after each store operation of a sync in turn; the next sync goes on: nothing that arrived is sent
//! again, and the point is right.

use crate::site::*;
use std::sync::Arc;
use vault_store::objects::Objects;
use vault_store::objects::faulty::{Fault, FaultPlan, Faulty};
use vault_store::read::PointSelector;

async fn dying_sync(applied: bool) {
    let (mut last, mut at) = (false, 0);
    while !last {
        let site = Site::new().await;
        let mut disk = disk(14, 11);
        site.sync("vm", &disk).await.unwrap();
        for position in [1, 2, 4, 5, 7, 9, 11, 13] {
            Dice(at + position)
                .fill(&mut disk[position as usize * CHUNK..(position as usize + 1) * CHUNK]);
        }
        let plan = FaultPlan::seeded(at).dies_at(at, applied);
        let faulty: Arc<dyn Objects> = Arc::new(Faulty::new(site.objects.clone(), plan));
        last = {
            let mut gateway = site.gateway_at(&site.state_folder(), faulty);
            cycle(&mut gateway, "vm", &disk).await.is_ok()
        };
        let report = site
            .sync("vm", &disk)
            .await
            .unwrap_or_else(|e| panic!("died at {at}: {e}"));
        assert!(
            site.restore("vm", PointSelector::Latest).await.unwrap() == disk,
            "died at {at}"
        );
        let twice: Vec<_> = full_records(&site)
            .await
            .into_iter()
            .filter(|(_, n)| *n > 1)
            .collect();
        assert!(
            twice.is_empty(),
            "died at {at}: {} chunks were sent twice; {report:?}",
            twice.len()
        );
        at += 1;
        assert!(at < 60, "a sync has not so many operations");
    }
    assert!(at > 4, "a sync has more than {at} operations");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_dies_after_an_operation_is_continued() {
    dying_sync(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_dies_before_an_operation_is_continued() {
    dying_sync(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_sync_that_dies_and_loses_its_state_sends_nothing_twice() {
    for at in 2..14 {
        let site = Site::new().await;
        let disk = disk(14, 12);
        let plan = FaultPlan::seeded(at).dies_at(at, at % 2 == 0);
        let faulty: Arc<dyn Objects> = Arc::new(Faulty::new(site.objects.clone(), plan));
        let died = cycle(
            &mut site.gateway_at(&site.state_folder(), faulty),
            "vm",
            &disk,
        )
        .await
        .is_err();
        if died {
            std::fs::remove_dir_all(site.state_folder()).unwrap();
        }
        site.sync("vm", &disk).await.unwrap();
        assert!(
            site.restore("vm", PointSelector::Latest).await.unwrap() == disk,
            "died at {at}"
        );
        assert!(
            full_records(&site).await.values().all(|n| *n < 2),
            "died at {at}"
        );
    }
}

/// Whatever the store does, a sync ends in a right point or in an error that loses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_weak_store_leads_to_a_right_point_or_a_plain_error() {
    let faults = [
        Fault::FailBefore,
        Fault::FailAfter,
        Fault::Timeout,
        Fault::Throttled,
        Fault::Truncated,
        Fault::ShortBody,
        Fault::FlippedBit,
        Fault::Swapped,
        Fault::StaleList,
    ];
    for (seed, fault) in (0..).zip(faults) {
        let site = Site::new().await;
        let mut disk = disk(8, seed);
        let mut failed = 0;
        for round in 0..12 {
            Dice(100 * seed + round).fill(&mut disk[(round as usize % 8) * CHUNK..][..BLOCK]);
            let plan = FaultPlan::seeded(1000 * seed + round).with(fault, 250);
            let faulty: Arc<dyn Objects> = Arc::new(Faulty::new(site.objects.clone(), plan));
            let mut gateway = site.gateway_at(&site.state_folder(), faulty);
            match cycle(&mut gateway, "vm", &disk).await {
                Ok(_) => {
                    drop(gateway);
                    assert!(
                        site.restore("vm", PointSelector::Latest).await.unwrap() == disk,
                        "{fault:?} {round}"
                    );
                }
                Err(e) => {
                    assert!(!e.to_string().is_empty());
                    failed += 1;
                }
            }
        }
        site.sync("vm", &disk)
            .await
            .unwrap_or_else(|e| panic!("{fault:?}, after {failed} failures: {e}"));
        assert!(
            site.restore("vm", PointSelector::Latest).await.unwrap() == disk,
            "{fault:?}"
        );
    }
}
