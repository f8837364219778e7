//! A capture: batches judged side by side, a guest that waits for the reading only, disks that fail.

use crate::site::*;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use vault_format::layer::Slot;
use vault_format::manifest::{Consistency, LayerRef};
use vault_format::names;
use vault_store::error::DiskFailure;
use vault_store::extents::MemoryDisk;
use vault_store::gateway::{Gateway, Hold, PointReport, VmCapture};
use vault_store::read::PointSelector;
use vault_store::{Extents, StoreError};

async fn begun(site: &Site) -> Gateway {
    let mut gateway = site.gateway();
    gateway.begin_cycle(&|_| {}).await.unwrap();
    gateway
}

/// A capture of one disk, and a sight of whether it is still open.
fn watched(source: Arc<dyn Extents>) -> (VmCapture, Weak<dyn Extents>) {
    let mut vm = capture("vm", &[]);
    vm.disks[0].size_bytes = source.size_bytes();
    let open = Arc::downgrade(&source);
    vm.disks[0].source = Some(source);
    (vm, open)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guest_goes_on_when_its_disks_are_read_and_the_point_says_what_it_was_told_then() {
    let site = Site::new().await;
    let disk = disk(2, 1);
    let (mut vm, open) = watched(Arc::new(MemoryDisk::new(disk.clone())));
    let hardware = serde_json::json!({ "memory_bytes": 1 << 30, "firmware": "uefi" });
    vm.hardware = Some(hardware.clone());
    let stored = async || site.objects.list("").await.unwrap().len();
    let before = stored().await;
    let mut gateway = begun(&site).await;
    let taken = stored().await;
    let after_reading = async || {
        assert_eq!(stored().await, taken, "nothing is sent yet");
        assert!(open.upgrade().is_none(), "the disk is closed");
        Consistency::FileSystem
    };
    gateway.sync_vm(vm, &|_| {}, after_reading).await.unwrap();
    assert!(stored().await > taken && taken > before);
    let vault = site.vault().await;
    let point = vault
        .find_point("vm", &PointSelector::Latest)
        .await
        .unwrap();
    assert_eq!(point.manifest.facts.consistency, Consistency::FileSystem);
    assert_eq!(point.manifest.facts.hardware, Some(hardware));
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == disk);
}

/// A disk that cannot be read from one offset on.
struct Broken {
    disk: MemoryDisk,
    from: u64,
}

impl Extents for Broken {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskFailure> {
        match offset >= self.from {
            true => Err("input/output error (os error 5)".into()),
            false => self.disk.read_at(offset, buf),
        }
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskFailure> {
        self.disk.next_data(offset)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_sector_is_named_frees_the_guest_and_loses_nothing_that_was_sent() {
    let site = Site::new().await;
    let mut bytes = vec![0; 600 * CHUNK];
    Dice(3).fill(&mut bytes[..300 * CHUNK]);
    let (vm, open) = watched(Arc::new(Broken {
        disk: MemoryDisk::new(bytes.clone()),
        from: 290 * CHUNK as u64,
    }));
    let freed = AtomicBool::new(false);
    let after_reading = async || {
        assert!(open.upgrade().is_none(), "the disk is closed");
        freed.store(true, Relaxed);
        Consistency::Crash
    };
    let mut gateway = begun(&site).await;
    let error = gateway
        .sync_vm(vm, &|_| {}, after_reading)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, StoreError::Disk { offset, .. } if *offset == 290 * CHUNK as u64),
        "{error}"
    );
    assert!(error.to_string().contains("input/output error"), "{error}");
    assert!(freed.load(Relaxed));
    drop(gateway);
    assert!(!site.objects.list(names::PACKS).await.unwrap().is_empty());
    site.sync("vm", &bytes).await.unwrap();
    assert!(full_records(&site).await.values().all(|n| *n == 1));
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == bytes);
}

/// Batches are of 16 MiB, and each is judged before the one before it is stored.
#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_comes_again_and_again_is_stored_once() {
    let site = Site::new().await;
    let mut bytes = vec![0; 1100 * CHUNK];
    for (position, chunk) in bytes.chunks_exact_mut(CHUNK).enumerate() {
        // Every third is new; the rest come again at all distances: in a batch, in the next, and later.
        let seed = match position % 3 {
            0 => position + 1000,
            1 => position % 40,
            _ => position / 2 % 290,
        };
        Dice(seed as u64).fill(&mut chunk[..20_000]);
    }
    let first = site.sync("vm", &bytes).await.unwrap();
    let records = full_records(&site).await;
    assert!(records.values().all(|n| *n == 1));
    assert_eq!(first.chunks_full, records.len() as u64);
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == bytes);
    // Moved by half a batch: nothing new.
    bytes.rotate_right(128 * CHUNK);
    let second = site.sync("vm", &bytes).await.unwrap();
    assert_eq!((second.chunks_full, second.chunks_patched), (0, 0));
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == bytes);
}

/// A disk that says where its zeros are, as hypervisors do.
struct Sparse(MemoryDisk);

impl Extents for Sparse {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskFailure> {
        self.0.read_at(offset, buf)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskFailure> {
        let bytes = self.0.bytes();
        let data = |at: &u64| {
            let block = &bytes[*at as usize..bytes.len().min(*at as usize + BLOCK)];
            block.iter().any(|byte| *byte != 0)
        };
        let mut blocks = (offset..self.size_bytes()).step_by(BLOCK);
        let Some(begin) = blocks.find(data) else {
            return Ok(None);
        };
        let end = blocks.find(|at| !data(at)).unwrap_or(self.size_bytes());
        Ok(Some(begin..end))
    }
}

fn sparse(disk: &[u8]) -> VmCapture {
    watched(Arc::new(Sparse(MemoryDisk::new(disk.to_vec())))).0
}

async fn sync_sparse(site: &Site, disk: &[u8]) -> PointReport {
    let mut gateway = begun(site).await;
    gateway.sync_vm(sparse(disk), &|_| {}, crash).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_a_hole_is_a_hole_in_the_point_and_in_those_after_a_rebuild() {
    let site = Site::new().await;
    let mut versions = vec![disk(12, 21)];
    Dice(1).fill(&mut versions[0][5 * CHUNK..8 * CHUNK]);
    for holes in [5..8, 0..12, 0..0] {
        let mut next = match holes.is_empty() {
            true => disk(12, 22),
            false => versions[versions.len() - 1].clone(),
        };
        next[holes.start * CHUNK..holes.end * CHUNK].fill(0);
        versions.push(next);
    }
    for (number, version) in versions.iter().enumerate() {
        let report = sync_sparse(&site, version).await;
        if number == 1 {
            assert_eq!((report.chunks_full, report.changed_bytes), (0, 0));
            let mut gateway = site.gateway();
            gateway.rebuild(&|_| {}).await.unwrap();
        }
    }
    for (sequence, version) in (1..).zip(&versions) {
        let restored = site.restore("vm", PointSelector::Sequence(sequence)).await;
        assert!(restored.unwrap() == *version, "point {sequence}");
    }
}

/// The ids and holes that the newest point's layers hold, the newest at each position.
async fn slots(site: &Site) -> BTreeMap<u64, Slot> {
    let vault = site.vault().await;
    let point = vault.find_point("vm", &PointSelector::Latest).await;
    let mut slots = BTreeMap::new();
    for layer in point.unwrap().manifest.disks[0].layers.iter().rev() {
        let LayerRef::Inline(runs) = layer else {
            panic!("the layers of a small disk are inline")
        };
        for run in runs {
            slots.extend((run.first()..run.end()).map(|at| (at, run.slot(at).unwrap())));
        }
    }
    slots
}

/// Prune would keep what a point names, and a rebuild would learn it.
#[tokio::test(flavor = "multi_thread")]
async fn a_point_of_a_disk_that_shrank_names_nothing_behind_its_end() {
    let site = Site::new().await;
    let mut bytes = vec![0; 9 * CHUNK];
    Dice(1).fill(&mut bytes);
    sync_sparse(&site, &bytes).await;
    let named = async || {
        let slots = slots(&site).await.into_iter();
        let chunks = slots.filter(|(_, slot)| *slot != Slot::Hole);
        chunks.map(|(position, _)| position).collect::<Vec<_>>()
    };
    assert_eq!(named().await, (0..9).collect::<Vec<_>>());
    // Its last chunk is a part of one.
    bytes.truncate(3 * CHUNK + 512);
    sync_sparse(&site, &bytes).await;
    assert_eq!(named().await, [0, 1, 2, 3]);
    // It grows again, and nothing is there.
    bytes.resize(9 * CHUNK, 0);
    sync_sparse(&site, &bytes).await;
    assert_eq!(named().await, [0, 1, 2, 3]);
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_shrank_or_got_holes_sends_no_layer_when_it_does_not_change() {
    let site = Site::new().await;
    let mut bytes = vec![0; 9 * CHUNK];
    Dice(1).fill(&mut bytes);
    sync_sparse(&site, &bytes).await;
    let layers = async || {
        let vault = site.vault().await;
        let point = vault.find_point("vm", &PointSelector::Latest).await;
        point.unwrap().manifest.disks[0].layers.len()
    };
    assert_eq!(layers().await, 1);
    bytes.truncate(5 * CHUNK);
    bytes[CHUNK..2 * CHUNK].fill(0);
    for _ in 0..3 {
        sync_sparse(&site, &bytes).await;
        assert_eq!(layers().await, 2, "the first one, and what changed");
    }
    // What a rebuild learns is the same.
    std::fs::remove_dir_all(site.state_folder()).unwrap();
    sync_sparse(&site, &bytes).await;
    assert_eq!(layers().await, 2);
}

/// What a waiting guest's disks held is noted when it goes on: one commit before that, whatever was read.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_waits_for_no_pack_to_be_noted() {
    let site = Site::new().await;
    let disk = disk(40, 9);
    begun(&site).await;
    let folder = site.state_folder().join("outbox");
    let laid = || std::fs::read_dir(&folder).unwrap().count();
    for (commits, noted) in [(2, 0), (1, 0), (2, 0), (1, 1)] {
        let mut gateway = site.gateway();
        assert_eq!(laid(), noted, "what no row names is gone");
        gateway.dies_after_commits(commits);
        let (vm, open) = watched(Arc::new(MemoryDisk::new(disk.clone())));
        let freed = AtomicBool::new(false);
        let after_reading = async || {
            assert!(open.upgrade().is_none(), "the disk is closed");
            assert!(laid() > 2, "{} packs", laid());
            freed.store(true, Relaxed);
            Consistency::Crash
        };
        let captured = gateway.capture(vm, Hold::Checkpoint, &|_| {}, after_reading);
        assert!(captured.await.is_err() && freed.load(Relaxed));
    }
}

/// All that a point needs is on the disk before the commit that makes it one, also what an earlier process laid.
#[tokio::test(flavor = "multi_thread")]
async fn a_point_is_none_before_its_packs_are_on_the_disk() {
    let (site, disk) = (Site::new().await, disk(40, 9));
    begun(&site).await;
    let capture = async |gateway: &mut Gateway| {
        let vm = watched(Arc::new(MemoryDisk::new(disk.clone()))).0;
        let crash = async || Consistency::Crash;
        let captured = gateway.capture(vm, Hold::Checkpoint, &|_| {}, crash);
        captured.await
    };
    let points = |gateway: &Gateway| gateway.outbox_use().unwrap().vms["vm"].points;
    let mut gateway = site.gateway();
    gateway.dies_after_commits(4);
    capture(&mut gateway).await.unwrap_err();
    assert!(gateway.unsettled() > 2, "it died before");
    drop(gateway);
    // What is left of the packs is noted, and then comes the commit at which this one dies.
    let mut commits = 0;
    loop {
        let (site, _folder) = site.copy().await;
        let mut gateway = site.gateway();
        assert_eq!(gateway.unsettled(), 2, "two were noted");
        gateway.dies_after_commits(commits);
        let captured = capture(&mut gateway).await;
        let unsettled = gateway.unsettled();
        assert_eq!(points(&gateway), u64::from(captured.is_ok()));
        if captured.is_ok() {
            assert_eq!(unsettled, 0);
            break;
        }
        commits += 1;
    }
    let (site, _folder) = site.copy().await;
    let mut gateway = site.gateway();
    gateway.dies_after_commits(commits - 1);
    capture(&mut gateway).await.unwrap_err();
    assert_eq!(gateway.unsettled(), 0, "on the disk, and no point yet");
}
