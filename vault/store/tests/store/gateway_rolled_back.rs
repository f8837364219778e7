//! A disk that its owner puts back to what it was, bitmaps included, while captures made since are not published: its
//! tracking tells the truth since the older capture, and nothing of what the later ones took from it.

use crate::site::*;
use crate::tracked::*;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vault_store::gateway::{Gateway, Hold, PassEnd};
use vault_store::read::PointSelector;

const NOW: i64 = 1_700_000_000;
const CHUNKS: usize = 400;

/// A site, and a tracked disk of two batches with a published point.
async fn published() -> (Site, Gateway, TrackedDisk) {
    let site = Site::new().await;
    let mut gateway = site.gateway();
    gateway.begin_cycle(&|_| {}).await.unwrap();
    let mut large = vec![0; CHUNKS * CHUNK];
    // Every eighth chunk is a hole.
    for (position, chunk) in large.chunks_exact_mut(CHUNK).enumerate() {
        if position % 8 > 0 {
            Dice(position as u64).fill(&mut chunk[..40]);
        }
    }
    let mut disk = TrackedDisk::new(large);
    capture(&mut gateway, &mut disk, Hold::Checkpoint).await;
    gateway.uploader().send_all().await.unwrap();
    (site, gateway, disk)
}

/// A block in every second chunk: holes are filled by it, and one chunk becomes a hole.
fn write_much(disk: &mut TrackedDisk, seed: u64) {
    for position in (0..CHUNKS).step_by(2) {
        let mut block = [0; BLOCK];
        Dice(seed + position as u64).fill(&mut block);
        disk.write(position * CHUNK + 5 * BLOCK, &block);
    }
    disk.write(3 * CHUNK, &vec![0; CHUNK]);
}

async fn capture(gateway: &mut Gateway, disk: &mut TrackedDisk, hold: Hold) -> Checkpoint {
    let checkpoint = checkpoint(gateway, "vm", disk);
    let vm = checkpoint.capture("vm", NOW);
    let captured = gateway.capture(vm, hold, &|_| {}, crash);
    let compared = captured.await.unwrap().compared;
    assert_eq!(compared.is_empty(), checkpoint.since.is_some());
    checkpoint
}

/// It leaves a draft that has what the first batch changed.
async fn failed_capture(gateway: &mut Gateway, disk: &mut TrackedDisk) {
    let failing = checkpoint(gateway, "vm", disk);
    let mut vm = failing.capture("vm", NOW);
    vm.disks[0].source = Some(Arc::new(Failing::new(failing.frozen.clone(), 150)));
    let captured = gateway.capture(vm, Hold::Checkpoint, &|_| {}, crash);
    captured.await.unwrap_err();
    assert!(gateway.draft("vm").unwrap().is_some());
}

async fn pass(gateway: &mut Gateway, disk: &mut TrackedDisk) -> Checkpoint {
    let pass = checkpoint(gateway, "vm", disk);
    let until = Instant::now() + Duration::from_secs(3600);
    let read = gateway.pass(pass.capture("vm", NOW), (Hold::Nothing, until), &|_| {});
    assert_eq!(read.await.unwrap().1, PassEnd::Whole);
    pass
}

/// The disk as it was then, and a little more: the next point is what it holds.
async fn is_captured_as_it_is(
    site: &Site,
    gateway: &mut Gateway,
    mut rolled_back: TrackedDisk,
    hold: Hold,
) -> Checkpoint {
    rolled_back.write(10 * CHUNK + 9 * BLOCK, &[7; BLOCK]);
    let next = capture(gateway, &mut rolled_back, hold).await;
    gateway.uploader().send_all().await.unwrap();
    let restored = site.restore("vm", PointSelector::Latest).await.unwrap();
    let differ = |(a, b): (&[u8], &[u8])| a != b;
    let differing = restored
        .chunks(CHUNK)
        .zip(rolled_back.bytes.chunks(CHUNK))
        .filter(|(a, b)| differ((a, b)));
    assert_eq!(
        differing.count(),
        0,
        "chunks of {CHUNKS} that are not those of the disk"
    );
    next
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_capture_that_failed_had_noted_is_looked_at_again() {
    for hold in [Hold::Checkpoint, Hold::Nothing] {
        let (site, mut gateway, mut disk) = published().await;
        let before = disk.clone();
        write_much(&mut disk, 1000);
        failed_capture(&mut gateway, &mut disk).await;
        let next = is_captured_as_it_is(&site, &mut gateway, before, hold).await;
        assert!(next.since.is_some(), "its tracking is believed");
        assert!(next.frozen.read_bytes() < (CHUNKS / 2 * CHUNK) as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pass_had_noted_is_looked_at_again() {
    let (site, mut gateway, mut disk) = published().await;
    let before = disk.clone();
    write_much(&mut disk, 1000);
    pass(&mut gateway, &mut disk).await;
    is_captured_as_it_is(&site, &mut gateway, before, Hold::Checkpoint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_points_that_wait_had_changed_is_looked_at_again() {
    for hold in [Hold::Checkpoint, Hold::Superseding] {
        let (site, mut gateway, mut disk) = published().await;
        let before = disk.clone();
        write_much(&mut disk, 1000);
        capture(&mut gateway, &mut disk, Hold::Checkpoint).await;
        is_captured_as_it_is(&site, &mut gateway, before, hold).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_noted_after_a_pass_is_looked_at_again_if_the_disk_is_what_the_pass_saw() {
    let (site, mut gateway, mut disk) = published().await;
    write_much(&mut disk, 1000);
    let passed = pass(&mut gateway, &mut disk).await;
    let before = disk.clone();
    write_much(&mut disk, 3000);
    failed_capture(&mut gateway, &mut disk).await;
    let next = is_captured_as_it_is(&site, &mut gateway, before, Hold::Checkpoint).await;
    assert_eq!(next.since, Some(passed.id));
    // What the pass itself had noted is not read again.
    let most = (CHUNKS / 2 * BLOCK) as u64;
    assert!(
        next.frozen.read_bytes() < most,
        "{}",
        next.frozen.read_bytes()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_counts_from_a_point_once_the_next_one_is_half_in_the_map() {
    let mut compared = 0;
    for commits in 0..9 {
        let (site, mut gateway, mut disk) = published().await;
        let mut before = disk.clone();
        write_much(&mut disk, 1000);
        capture(&mut gateway, &mut disk, Hold::Checkpoint).await;
        gateway.dies_after_commits(commits);
        let died = gateway.uploader().send_all().await.is_err();
        drop(gateway);
        let mut gateway = site.gateway();
        let next = checkpoint(&gateway, "vm", &mut before);
        let vm = next.capture("vm", NOW);
        let captured = gateway.capture(vm, Hold::Checkpoint, &|_| {}, crash);
        let is_delta = captured.await.unwrap().compared.is_empty();
        // The point is on its way into the map.
        compared += usize::from(next.since.is_some() && !is_delta);
        gateway.begin_cycle(&|_| {}).await.unwrap();
        gateway.prepare_vm("vm").await.unwrap();
        gateway.uploader().send_all().await.unwrap();
        let restored = site.restore("vm", PointSelector::Latest).await.unwrap();
        assert!(restored == before.bytes, "died before commit {commits}");
        assert!(died || commits > 3, "it has not so few commits");
    }
    assert!(compared > 0);
}

/// Writes, passes, captures that fail or are sent late, and a disk that is put back to what it was: any order.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_order_the_point_is_what_the_disk_was() {
    let mut put_back = 0;
    for seed in 0..6 {
        let site = Site::new().await;
        let mut gateway = site.gateway();
        gateway.begin_cycle(&|_| {}).await.unwrap();
        let (mut dice, mut disk) = (Dice(seed), TrackedDisk::new(disk(60, seed)));
        let mut kept = disk.clone();
        for step in 0..40 {
            disk.write_random(&mut dice, 4);
            match dice.roll(9) {
                0 => kept = disk.clone(),
                1 | 2 => (disk, put_back) = (kept.clone(), put_back + 1),
                3 => drop(pass(&mut gateway, &mut disk).await),
                4 => {
                    let failing = checkpoint(&gateway, "vm", &mut disk);
                    let mut vm = failing.capture("vm", NOW);
                    let source = Failing::new(failing.frozen.clone(), dice.roll(30) as u64);
                    vm.disks[0].source = Some(Arc::new(source));
                    let captured = gateway.capture(vm, Hold::Checkpoint, &|_| {}, crash);
                    drop(captured.await);
                }
                5 => gateway.uploader().send_all().await.map(drop).unwrap(),
                _ => {
                    let hold = [Hold::Checkpoint, Hold::Superseding, Hold::Nothing][dice.roll(3)];
                    let captured = capture(&mut gateway, &mut disk, hold).await;
                    if dice.roll(2) == 0 {
                        gateway.uploader().send_all().await.unwrap();
                        let restored = site.restore("vm", PointSelector::Latest).await.unwrap();
                        assert!(
                            restored == captured.frozen.bytes,
                            "seed {seed}, step {step}"
                        );
                    }
                }
            }
        }
    }
    assert!(put_back > 25, "{put_back}");
}
