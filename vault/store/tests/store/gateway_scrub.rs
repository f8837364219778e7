//! The slow reading of tracked disks while a guest is frozen: what it takes of that time, and that nothing is left out.

use crate::site::*;
use crate::tracked::*;
use std::sync::Arc;
use std::time::Duration;
use vault_store::gateway::{Gateway, Hold, PassEnd, PointReport};

const DAY: i64 = 86_400;
const NOW: i64 = 1_700_000_000;
/// Chunks of 4 MiB. A disk that takes 6 ms for a read needs more than the 300 ms for them.
const STEP: u64 = 64;
const CHUNKS: u64 = 400;
const EACH: Duration = Duration::from_millis(6);

struct Case {
    gateway: Gateway,
    disk: TrackedDisk,
    now: i64,
    site: Site,
}

/// A disk of data, all of it tracked since its point.
async fn case() -> Case {
    let site = Site::new().await;
    let mut gateway = site.gateway();
    gateway.begin_cycle(&|_| {}).await.unwrap();
    let mut case = Case {
        gateway,
        disk: TrackedDisk::new(data(CHUNKS as usize)),
        now: NOW,
        site,
    };
    let (first, _) = case.capture(Hold::Checkpoint, Duration::ZERO).await;
    assert_eq!(first.compared.len(), 1);
    case
}

fn data(chunks: usize) -> Vec<u8> {
    let mut disk = vec![1; chunks * CHUNK];
    for (position, chunk) in disk.chunks_exact_mut(CHUNK).enumerate() {
        Dice(position as u64).fill(&mut chunk[..40]);
    }
    disk
}

impl Case {
    /// Captures and sends. Returns what came of it, and which chunks were read.
    async fn capture(&mut self, hold: Hold, each: Duration) -> (PointReport, Vec<u64>) {
        let checkpoint = checkpoint(&self.gateway, "vm", &mut self.disk);
        let slow = Arc::new(Slow::new(checkpoint.frozen.clone(), each));
        let mut vm = checkpoint.capture("vm", self.now);
        vm.disks[0].source = Some(slow.clone());
        let captured = self.gateway.capture(vm, hold, &|_| {}, crash);
        let report = captured.await.unwrap();
        self.gateway.uploader().send_all().await.unwrap();
        (report, slow.chunks(CHUNK))
    }

    async fn capture_frozen(&mut self) -> (PointReport, Vec<u64>) {
        self.capture(Hold::Checkpoint, EACH).await
    }
}

fn range(chunks: std::ops::Range<u64>) -> Vec<u64> {
    chunks.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_guest_waits_for_a_bounded_share_and_the_next_captures_go_on_there() {
    let mut case = case().await;
    case.disk.is_lying = true;
    case.disk.write(399 * CHUNK, &[8; BLOCK]);
    case.disk.is_lying = false;
    // All of it is due.
    case.now += 40 * DAY;
    let mut found = Vec::new();
    for begin in (0..CHUNKS).step_by(STEP as usize) {
        case.now += 60;
        let (report, read) = case.capture_frozen().await;
        assert_eq!(read, range(begin..(begin + STEP).min(CHUNKS)));
        found.extend(report.findings);
    }
    assert!(found[0].contains("within 28 days"), "{found:?}");
    assert!(found[1].contains("missed changes (1 chunks"), "{found:?}");
    assert_eq!(found.len(), 2, "{found:?}");
    let restored = case
        .site
        .restore("vm", vault_store::read::PointSelector::Latest);
    assert!(restored.await.unwrap() == case.disk.bytes);
    case.now += 60;
    assert_eq!(case.capture_frozen().await.1, range(0..0), "it is done");
}

#[tokio::test(flavor = "multi_thread")]
async fn captures_that_fail_leave_no_more_to_the_next_one() {
    let mut case = case().await;
    for _ in 0..3 {
        case.now += 20 * DAY;
        let failing = checkpoint(&case.gateway, "vm", &mut case.disk);
        let mut vm = failing.capture("vm", case.now);
        vm.disks[0].source = Some(Arc::new(Failing::new(failing.frozen.clone(), 70)));
        let captured = case.gateway.capture(vm, Hold::Checkpoint, &|_| {}, crash);
        captured.await.unwrap_err();
    }
    assert_eq!(case.capture_frozen().await.1, range(0..STEP));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_fast_enough_is_caught_up_with_at_once() {
    let mut case = case().await;
    case.now += 14 * DAY;
    let (_, read) = case.capture(Hold::Checkpoint, Duration::ZERO).await;
    assert_eq!(read, range(0..CHUNKS / 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_held_two_days_share_is_read_however_long_it_takes() {
    let mut case = case().await;
    case.now += 28 * DAY;
    let two_days = CHUNKS.div_ceil(14);
    let slow = Duration::from_millis(20);
    let (_, read) = case.capture(Hold::Nothing, slow).await;
    assert_eq!(read, range(0..two_days));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_that_is_not_enough_is_told_once_and_comparing_all_begins_anew() {
    let mut case = case().await;
    let mut told = Vec::new();
    for _ in 0..5 {
        case.now += 10 * DAY;
        told.push(case.capture_frozen().await.0.findings.len());
    }
    assert_eq!(told, [0, 0, 0, 1, 0]);
    case.disk.forget_bitmaps();
    let (compared, _) = case.capture(Hold::Checkpoint, Duration::ZERO).await;
    assert_eq!(compared.compared.len(), 1);
    case.now += 10 * DAY;
    let (report, read) = case.capture_frozen().await;
    assert_eq!((report.findings.len(), read), (0, range(0..STEP)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pass_compares_is_read_too() {
    let mut case = case().await;
    case.now += 29 * DAY;
    case.disk.forget_bitmaps();
    let pass = checkpoint(&case.gateway, "vm", &mut case.disk);
    let until = std::time::Instant::now() + Duration::from_secs(3600);
    let vm = pass.capture("vm", case.now);
    let (report, end) = case
        .gateway
        .pass(vm, (Hold::Nothing, until), &|_| {})
        .await
        .unwrap();
    assert!(end == PassEnd::Whole && report.compared.len() == 1);
    case.now += 2 * DAY;
    let (report, read) = case.capture_frozen().await;
    assert_eq!(report.findings, [""; 0]);
    assert_eq!(read, range(0..CHUNKS / 14));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disks_of_a_vm_take_turns() {
    let site = Site::new().await;
    let mut gateway = site.gateway();
    gateway.begin_cycle(&|_| {}).await.unwrap();
    let mut disks = [200, 300].map(|chunks| TrackedDisk::new(data(chunks)));
    let (mut now, mut reads) = (NOW, Vec::new());
    for _ in 0..5 {
        let (id, since) = (new_id(), trusted(&gateway, "vm").first().copied());
        let [one, two] = &mut disks;
        let one = one.checkpoint_as(id, since);
        let two = two.checkpoint_as(id, since);
        let (mut vm, mut more) = (one.capture("vm", now), two.capture("vm", now));
        more.disks[0].name = "more".into();
        vm.disks.append(&mut more.disks);
        let slow = [one, two].map(|its| Arc::new(Slow::new(its.frozen, EACH)));
        for (disk, slow) in vm.disks.iter_mut().zip(&slow) {
            disk.source = Some(slow.clone());
        }
        let captured = gateway.capture(vm, Hold::Checkpoint, &|_| {}, crash);
        captured.await.unwrap();
        gateway.uploader().send_all().await.unwrap();
        reads.push(slow.map(|slow| slow.chunks(CHUNK)));
        now += 28 * DAY;
    }
    let step = |nth: u64| range(nth * STEP..(nth + 1) * STEP);
    // The share that was read is a larger part of the smaller disk.
    assert_eq!(reads[1], [step(0), vec![]]);
    assert_eq!(reads[2], [vec![], step(0)]);
    assert!(
        reads[3..]
            .iter()
            .all(|[one, two]| one.is_empty() != two.is_empty())
    );
    let of = |disk: usize| {
        reads[1..]
            .iter()
            .filter(|its| !its[disk].is_empty())
            .count()
    };
    assert_eq!((of(0), of(1)), (2, 2), "{reads:?}");
}
