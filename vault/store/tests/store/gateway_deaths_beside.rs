//! The process dies in what a sync seldom does: learning the vault anew, healing damage, taking over a VM. The next try
//! ends with right points, and nothing is stored twice.

use crate::site::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vault_format::gateway_key::GatewayKey;
use vault_format::names;
use vault_store::StoreError;
use vault_store::gateway::{Gateway, PointReport};
use vault_store::objects::Objects;
use vault_store::objects::faulty::{FaultPlan, Faulty};
use vault_store::read::PointSelector;
use vault_store::setup::issue_key;

/// In copies of `base`, `work` dies at each of its operations in turn, before it is done and after; then `next` goes on.
/// Returns how many operations it had.
async fn dying(
    base: &Site,
    work: impl AsyncFn(&Site, Arc<dyn Objects>) -> Result<(), StoreError>,
    next: impl AsyncFn(&Site, &str),
) -> u64 {
    let mut at = 0;
    loop {
        let mut died = false;
        for applied in [false, true] {
            let (site, _folder) = base.copy().await;
            let plan = FaultPlan::seeded(at).dies_at(at, applied);
            let faulty: Arc<dyn Objects> = Arc::new(Faulty::new(site.objects.clone(), plan));
            died |= work(&site, faulty).await.is_err();
            next(&site, &format!("died at {at}, done: {applied}")).await;
        }
        if !died {
            return at;
        }
        at += 1;
        assert!(at < 200, "it has not so many operations");
    }
}

async fn assert_points(site: &Site, vm: &str, versions: &[&[u8]], what: &str) {
    for (sequence, version) in (1..).zip(versions) {
        let restored = site.restore(vm, PointSelector::Sequence(sequence)).await;
        let restored = restored.unwrap_or_else(|e| panic!("{what}: {vm}, point {sequence}: {e}"));
        assert!(restored == *version, "{what}: {vm}, point {sequence}");
    }
}

async fn assert_newest(site: &Site, vm: &str, disk: &[u8], what: &str) {
    let restored = site.restore(vm, PointSelector::Latest).await;
    let restored = restored.unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(restored == disk, "{what}: the newest point of {vm}");
}

async fn assert_nothing_twice(site: &Site, what: &str) {
    let records = records(&whole_packs(site).await);
    let twice = records.values().filter(|n| **n > 1).count();
    assert_eq!(twice, 0, "{what}: chunks stored twice");
}

/// A disk of which each chunk is another one, and nearly empty.
fn distinct(chunks: usize) -> Vec<u8> {
    let mut disk = vec![0; chunks * CHUNK];
    for (position, chunk) in disk.chunks_exact_mut(CHUNK).enumerate() {
        Dice(position as u64).fill(&mut chunk[..40]);
    }
    disk
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_dies_is_begun_again_and_nothing_is_stored_twice() {
    let base = Site::new().await;
    let first = distinct(67);
    let mut second = first.clone();
    Dice(1000).fill(&mut second[2 * CHUNK..2 * CHUNK + BLOCK]);
    for disk in [&first, &second] {
        let mut gateway = base.lone_packs(base.objects.clone());
        cycle(&mut gateway, "vm", disk).await.unwrap();
    }
    base.sync("other", &disk(5, 2)).await.unwrap();
    assert_eq!(base.objects.list(names::INDEX).await.unwrap().len(), 1);
    let mut third = second.clone();
    Dice(1001).fill(&mut third[5 * CHUNK..5 * CHUNK + BLOCK]);

    let rebuild = async |site: &Site, objects: Arc<dyn Objects>| {
        let mut gateway = site.gateway_at(&site.state_folder(), objects);
        gateway.rebuild(&|_| {}).await.map(drop)
    };
    let next = async |site: &Site, what: &str| {
        site.sync("vm", &third)
            .await
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_points(site, "vm", &[&first, &second, &third], what).await;
        assert_newest(site, "other", &disk(5, 2), what).await;
        assert_nothing_twice(site, what).await;
    };
    let operations = dying(&base, rebuild, next).await;
    assert!(operations > 15, "{operations} operations");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let below = std::fs::read_dir(folder).unwrap();
    let paths = below.map(|entry| entry.unwrap().path());
    let files = paths.map(|path| match path.is_dir() {
        true => files(&path),
        false => vec![path],
    });
    files.flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healing_cycle_that_dies_is_continued_and_sends_each_lost_chunk_once() {
    let base = Site::new().await;
    let mut disk = vec![7; 2100 * CHUNK];
    disk[..66 * CHUNK].copy_from_slice(&distinct(66));
    let first = disk.clone();
    let mut gateway = base.lone_packs(base.objects.clone());
    cycle(&mut gateway, "vm", &disk).await.unwrap();
    let bases = whole_packs(&base).await;
    // Patches of what will be lost, and of what will not.
    for position in 0..4 {
        Dice(500 + position as u64).fill(&mut disk[position * CHUNK..][..100]);
    }
    let report = cycle(&mut gateway, "vm", &disk).await.unwrap().1;
    assert_eq!(report.chunks_patched, 4);
    drop(gateway);
    let ids: Vec<_> = first[..4 * CHUNK]
        .chunks_exact(CHUNK)
        .map(|chunk| chunk_id(&base, chunk))
        .collect();
    // Two of the patched chunks' bases, and three other chunks; the whole index and all layers.
    for (number, id) in ids.iter().take(2).enumerate() {
        let holds = bases.iter().find(|(_, its)| its[0].id == *id);
        let (name, _) = holds.unwrap_or_else(|| panic!("no pack has chunk {number}"));
        std::fs::remove_file(base.vault_folder().join(name)).unwrap();
    }
    let others = bases.iter().filter(|(_, its)| !ids.contains(&its[0].id));
    for (name, _) in others.take(3) {
        std::fs::remove_file(base.vault_folder().join(name)).unwrap();
    }
    // Told at once: what only a lost segment names cannot be missed.
    log_what_is_damaged(&base).await;
    for below in ["index", "maps"] {
        let files = files(&base.vault_folder().join(below));
        assert_eq!(files.len(), 1, "{below}");
        std::fs::write(&files[0], b"damaged").unwrap();
    }
    log_what_is_damaged(&base).await;
    disk[9 * CHUNK..10 * CHUNK].fill(9);

    let heal = async |site: &Site, objects: Arc<dyn Objects>| {
        cycle(&mut site.lone_packs(objects), "vm", &disk)
            .await
            .map(drop)
    };
    let next = async |site: &Site, what: &str| {
        cycle(&mut site.lone_packs(site.objects.clone()), "vm", &disk)
            .await
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_newest(site, "vm", &disk, what).await;
        let full = full_records(site).await;
        let twice = full.values().filter(|n| **n > 1).count();
        assert_eq!(twice, 0, "{what}: chunks stored twice");
        for below in ["index", "maps"] {
            let files = files(&site.vault_folder().join(below));
            assert_eq!(files.len(), 2, "{what}: {below} is written again, once");
        }
    };
    let operations = dying(&base, heal, next).await;
    assert!(operations > 8, "{operations} operations");
}

/// The gateway "second", with its key and state beside the site's own.
fn second(site: &Site, key: &str, objects: Arc<dyn Objects>) -> Gateway {
    let key = GatewayKey::parse(key.as_bytes()).unwrap();
    Gateway::open(objects, key, &site.folder.join("second"), small_packs()).unwrap()
}

/// `began_first`: the taker's epoch is below that of the gateway from which it takes.
async fn dying_takeover(knows_vault: bool, began_first: bool) {
    let base = Site::new().await;
    let now = jiff::Timestamp::now();
    let key = issue_key(&mut base.vault().await, "second", "file:///x", now).await;
    let key = key.unwrap().to_json().to_string();
    let begin = async || {
        if knows_vault {
            let mut second = second(&base, &key, base.objects.clone());
            cycle(&mut second, "own", &disk(4, 5)).await.unwrap();
        }
    };
    let first = disk(12, 6);
    let mut changed = first.clone();
    Dice(7).fill(&mut changed[3 * CHUNK..3 * CHUNK + BLOCK]);
    if began_first {
        begin().await;
    }
    base.sync("vm", &first).await.unwrap();
    base.sync("vm", &changed).await.unwrap();
    if !began_first {
        begin().await;
    }
    let mut taken = changed.clone();
    Dice(8).fill(&mut taken[6 * CHUNK..7 * CHUNK]);

    let take = async |site: &Site, objects: Arc<dyn Objects>| -> Result<PointReport, StoreError> {
        let mut second = second(site, &key, objects);
        Ok(cycle(&mut second, "vm", &taken).await?.1)
    };
    let dies = async |site: &Site, objects: Arc<dyn Objects>| take(site, objects).await.map(drop);
    let next = async |site: &Site, what: &str| {
        let objects = site.objects.clone();
        take(site, objects)
            .await
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_newest(site, "vm", &taken, what).await;
        assert_points(site, "vm", &[&first, &changed, &taken], what).await;
        assert_nothing_twice(site, what).await;
        let error = site.sync("vm", &changed).await.unwrap_err();
        assert!(
            matches!(error, StoreError::TakenVm { .. }),
            "{what}: {error}"
        );
    };
    let operations = dying(&base, dies, next).await;
    assert!(operations > 3, "{operations} operations");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_gateway_that_dies_while_it_takes_over_a_vm_takes_it_the_next_time() {
    dying_takeover(false, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_dies_while_it_meets_a_younger_ones_vm_takes_it_the_next_time() {
    dying_takeover(true, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_dies_while_it_takes_a_vm_that_it_learned_takes_it_the_next_time() {
    dying_takeover(true, false).await;
}
