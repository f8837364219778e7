//! Captures of disks whose changes are known: what is read, what is not trusted, what heals.

use crate::site::*;
use crate::tracked::*;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vault_store::gateway::{Gateway, Hold, PassEnd, PointReport};
use vault_store::objects::{Meter, in_memory};
use vault_store::read::PointSelector;

const DAY: i64 = 86_400;
const NOW: i64 = 1_700_000_000;

struct Case {
    site: Site,
    gateway: Gateway,
    disk: TrackedDisk,
    now: i64,
}

impl Case {
    /// A tracked disk with one point.
    async fn new() -> Self {
        let site = Site::new().await;
        let mut gateway = site.gateway();
        gateway.begin_cycle(&|_| {}).await.unwrap();
        let mut case = Case {
            disk: TrackedDisk::new(disk(24, 5)),
            site,
            gateway,
            now: NOW,
        };
        let (first, _) = case.capture().await;
        assert_eq!(first.compared.len(), 1, "{first:?}");
        case
    }

    /// Captures, sends, restores and compares.
    async fn capture(&mut self) -> (PointReport, Checkpoint) {
        let checkpoint = checkpoint(&self.gateway, "vm", &mut self.disk);
        let vm = checkpoint.capture("vm", self.now);
        let captured = self.gateway.capture(vm, Hold::Checkpoint, &|_| {}, crash);
        let report = captured.await.unwrap();
        self.gateway.uploader().send_all().await.unwrap();
        let restored = self.site.restore("vm", PointSelector::Latest).await;
        assert!(restored.unwrap() == checkpoint.frozen.bytes, "{report:?}");
        (report, checkpoint)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_reads_the_changed_blocks_and_no_others() {
    let mut case = Case::new().await;
    let mut dice = Dice(6);
    for round in 0..6 {
        // Few in a chunk each, so that all are patches.
        for block in 0..12 {
            let at = (block * 2 * CHUNK) / BLOCK + dice.roll(6);
            let data: Vec<u8> = (0..BLOCK).map(|i| (i + block + round) as u8 | 1).collect();
            case.disk.write(at * BLOCK, &data);
        }
        let (report, checkpoint) = case.capture().await;
        assert_eq!(report.compared, [""; 0]);
        assert_eq!(report.read_bytes, checkpoint.frozen.read_bytes());
        let (read, dirty) = (
            checkpoint.frozen.read_bytes(),
            checkpoint.frozen.dirty_bytes(),
        );
        assert_eq!(read, dirty, "round {round}: {report:?}");
        // Those that were holes.
        assert!(round == 0 || report.chunks_full == 0, "{report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_where_nothing_changed() {
    let mut case = Case::new().await;
    let (report, checkpoint) = case.capture().await;
    assert_eq!(checkpoint.frozen.read_bytes(), 0);
    assert_eq!((report.chunks_read, report.stored_bytes), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_that_come_and_go_are_tracked_without_reading_them() {
    let mut case = Case::new().await;
    // Whole chunks, and parts of them, in both directions.
    case.disk.write(2 * CHUNK, &vec![0; 3 * CHUNK]);
    case.disk.write(8 * CHUNK + BLOCK, &vec![0; 2 * BLOCK]);
    let (_, gone) = case.capture().await;
    assert_eq!(gone.frozen.read_bytes(), 0, "zeros are not read");
    case.disk.write(3 * CHUNK + 5 * BLOCK, &[9; BLOCK]);
    let (_, back) = case.capture().await;
    assert_eq!(
        back.frozen.read_bytes(),
        BLOCK as u64,
        "what was zero need not be read"
    );
    case.disk.write(3 * CHUNK, &vec![0; CHUNK]);
    let (report, _) = case.capture().await;
    assert_eq!(
        report.stored_bytes, 0,
        "a chunk that became zero is a hole: {report:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_trusted_is_compared_and_costs_what_differs() {
    let mut case = Case::new().await;
    case.disk.write(7 * CHUNK, &[3; BLOCK]);
    let foreign = new_id();
    let mut checkpoint = checkpoint(&case.gateway, "vm", &mut case.disk);
    checkpoint.since = Some(foreign);
    let vm = checkpoint.capture("vm", NOW);
    let report = case
        .gateway
        .capture(vm, Hold::Checkpoint, &|_| {}, crash)
        .await
        .unwrap();
    assert!(
        report.compared[0].contains(&foreign.to_string()),
        "{report:?}"
    );
    assert_eq!(
        (report.chunks_patched, report.chunks_full),
        (1, 0),
        "{report:?}"
    );
    // The bitmaps are gone: the VM was stopped.
    case.disk.forget_bitmaps();
    case.disk.write(9 * CHUNK, &[4; BLOCK]);
    let (report, _) = case.capture().await;
    assert_eq!(report.compared.len(), 1);
    assert_eq!(
        (report.chunks_patched, report.chunks_full),
        (1, 0),
        "{report:?}"
    );
    // The disk grew.
    case.disk.bytes.resize(30 * CHUNK + 512 * 8, 7);
    case.disk.forget_bitmaps();
    case.capture().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_of_scrubbing_finds_what_tracking_missed() {
    scrub_for_a_month(Hold::Checkpoint).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_holds_is_scrubbed_too() {
    scrub_for_a_month(Hold::Nothing).await;
}

async fn scrub_for_a_month(hold: Hold) {
    let mut case = Case::new().await;
    case.disk.is_lying = true;
    case.disk.write(4 * CHUNK, &[8; BLOCK]);
    case.disk.write(23 * CHUNK, &[8; BLOCK]);
    case.disk.is_lying = false;
    let (mut found, mut read) = (Vec::new(), 0);
    for _ in 0..30 {
        case.now += DAY;
        let checkpoint = checkpoint(&case.gateway, "vm", &mut case.disk);
        let vm = checkpoint.capture("vm", case.now);
        let captured = case.gateway.capture(vm, hold, &|_| {}, crash);
        found.extend(captured.await.unwrap().findings);
        case.gateway.uploader().send_all().await.unwrap();
        read += checkpoint.frozen.read_bytes();
    }
    let restored = case.site.restore("vm", PointSelector::Latest).await;
    assert!(restored.unwrap() == case.disk.bytes, "it is healed");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("missed changes (1 chunks"), "{found:?}");
    assert!(read <= 2 * case.disk.bytes.len() as u64, "{read}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_that_comes_to_light_while_a_chunk_is_stored_is_healed_at_once() {
    let mut case = Case::new().await;
    let start = 6 * CHUNK;
    case.disk.write(start, &[1; BLOCK]);
    case.capture().await;
    case.disk.is_lying = true;
    case.disk.write(start + 9 * BLOCK, &[8; BLOCK]);
    case.disk.is_lying = false;
    // So much that the chunk is stored in full, and the rest of it is read.
    case.disk.write(start, &[2; CHUNK - 3 * BLOCK]);
    case.disk.is_lying = true;
    case.disk.write(start + CHUNK - BLOCK, &[8; BLOCK]);
    case.disk.is_lying = false;
    let (report, _) = case.capture().await;
    assert_eq!(report.findings.len(), 1, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_chunk_of_a_tracked_disk_is_sent_again() {
    let mut case = Case::new().await;
    let packs = case.site.objects.list("packs/").await.unwrap();
    std::fs::remove_file(case.site.vault_folder().join(&packs[1].name)).unwrap();
    log_what_is_damaged(&case.site).await;
    assert!(
        case.site
            .restore("vm", PointSelector::Latest)
            .await
            .is_err()
    );
    case.gateway.begin_cycle(&|_| {}).await.unwrap();
    let (report, _) = case.capture().await;
    assert!(
        report.chunks_full > 0 && report.compared.is_empty(),
        "{report:?}"
    );
}

/// Slice after slice of a disk goes into the outbox, until it is read: what was read of each chunk, and the reports' sum.
async fn in_slices(gateway: &mut Gateway, frozen: &Checkpoint) -> (Vec<u64>, PointReport) {
    let (mut seen, mut sum) = (Vec::new(), PointReport::default());
    for _ in 0..20 {
        // A batch takes longer than a slice.
        let slow = Arc::new(Slow::new(frozen.frozen.clone(), Duration::from_micros(200)));
        let mut vm = frozen.capture("vm", NOW);
        vm.disks[0].source = Some(slow.clone());
        let until = Instant::now() + Duration::from_millis(10);
        let pass = gateway.pass(vm, (Hold::Checkpoint, until), &|_| {});
        let (part, end) = pass.await.unwrap();
        sum.add(&part);
        seen.extend(slow.chunks(CHUNK));
        if end == PassEnd::Whole {
            return (seen, sum);
        }
    }
    panic!("it comes to no end: {seen:?}");
}

/// A disk that stays as it is for long, beside others that are captured meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_read_in_slices_waits_in_the_outbox_and_is_one_point() {
    let site = Site::new().await;
    let mut gateway = site.gateway();
    gateway.begin_cycle(&|_| {}).await.unwrap();
    gateway.prepare_vm("vm").await.unwrap();
    let mut disk = TrackedDisk::new(disk(600, 7));
    let frozen = disk.checkpoint(&[]);
    let (seen, sum) = in_slices(&mut gateway, &frozen).await;
    let data = disk.bytes.chunks(CHUNK).enumerate();
    let data = data.filter(|(_, chunk)| chunk.iter().any(|byte| *byte != 0));
    let data: Vec<u64> = data.map(|(at, _)| at as u64).collect();
    assert!(seen == data, "each once, and in order: {seen:?}");
    assert!(gateway.outbox_use().unwrap().used_bytes >= sum.stored_bytes);
    let last = frozen.after_pass();
    let captured = gateway.capture(last.capture("vm", NOW), Hold::Checkpoint, &|_| {}, crash);
    assert_eq!(captured.await.unwrap(), PointReport::default());
    gateway.uploader().send_all().await.unwrap();
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == disk.bytes);
    let vault = site.vault().await;
    let point = vault.find_point("vm", &PointSelector::Latest);
    let bytes = point.await.unwrap().manifest.facts.bytes;
    assert_eq!((bytes.read, bytes.sent), (sum.read_bytes, sum.stored_bytes));
    assert!(bytes.sent > 0);
}

/// What an earlier process has read is not in the outbox any more, and whether it arrived cannot be asked.
#[tokio::test(flavor = "multi_thread")]
async fn slices_come_to_an_end_while_packs_are_in_doubt() {
    let site = Site::new().await;
    let mut gateway = site.gateway();
    gateway.begin_cycle(&|_| {}).await.unwrap();
    gateway.prepare_vm("vm").await.unwrap();
    let mut disk = TrackedDisk::new(disk(600, 7));
    in_slices(&mut gateway, &disk.checkpoint(&[])).await;
    drop(gateway);
    for file in std::fs::read_dir(site.state_folder().join("outbox")).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    let mut gateway = site.gateway_at(&site.state_folder(), in_memory(Meter::new()));
    let frozen = disk.checkpoint(&[]);
    in_slices(&mut gateway, &frozen).await;
    let last = frozen.after_pass().capture("vm", NOW);
    let captured = gateway.capture(last, Hold::Checkpoint, &|_| {}, crash);
    captured.await.unwrap();
    drop(gateway);
    let mut gateway = site.gateway();
    gateway.begin_cycle(&|_| {}).await.unwrap();
    assert_eq!(
        gateway.prepare_vm("vm").await.unwrap(),
        Vec::<String>::new()
    );
    gateway.uploader().send_all().await.unwrap();
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == disk.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_over_the_running_disk_come_before_the_first_point() {
    let site = Site::new().await;
    let mut gateway = site.gateway();
    gateway.begin_cycle(&|_| {}).await.unwrap();
    let (mut disk, mut dice) = (TrackedDisk::new(disk(100, 7)), Dice(8));
    let soon = Instant::now();
    let far = soon + Duration::from_secs(3600);
    // The first pass is cut off after each batch, and by a new process.
    let first = disk.checkpoint(&[]);
    let (mut ended, mut slices) = (false, 0);
    while !ended {
        drop(gateway);
        gateway = site.gateway();
        gateway.begin_cycle(&|_| {}).await.unwrap();
        gateway.prepare_vm("vm").await.unwrap();
        let until = [far, soon][usize::from(slices < 1)];
        let vm = first.capture("vm", NOW);
        let pass = gateway.pass(vm, (Hold::Nothing, until), &|_| {});
        ended = pass.await.unwrap().1 == PassEnd::Whole;
        let draft = gateway.draft("vm").unwrap().unwrap();
        assert_eq!(draft.pass.is_some(), ended);
        slices += 1;
    }
    assert!(slices > 1);
    assert!(
        site.vault()
            .await
            .find_point("vm", &PointSelector::Latest)
            .await
            .is_err()
    );
    for _ in 0..3 {
        disk.write_random(&mut dice, 40);
        let pass = checkpoint(&gateway, "vm", &mut disk);
        assert!(pass.since.is_some());
        let read = gateway
            .pass(pass.capture("vm", NOW), (Hold::Nothing, far), &|_| {})
            .await
            .unwrap();
        assert!(read.1 == PassEnd::Whole && read.0.compared.is_empty());
        // What is read besides the changed blocks is what full records need.
        assert!(pass.frozen.read_bytes() < 40 * CHUNK as u64);
    }
    disk.write_random(&mut dice, 3);
    let last = checkpoint(&gateway, "vm", &mut disk);
    let captured = gateway.capture(last.capture("vm", NOW), Hold::Checkpoint, &|_| {}, crash);
    let report = captured.await.unwrap();
    assert!(report.read_bytes <= 3 * CHUNK as u64, "{report:?}");
    gateway.uploader().send_all().await.unwrap();
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == disk.bytes);
    assert_eq!(gateway.draft("vm").unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rebuild_with_a_lost_layer_tracking_is_not_trusted() {
    let mut case = Case::new().await;
    // A layer object: a disk of so many chunks that its map is not inline.
    let mut large = vec![0; 2100 * CHUNK];
    for position in 0..2100 {
        large[position * CHUNK..][..8].copy_from_slice(&(position as u64 + 1).to_le_bytes());
    }
    case.disk = TrackedDisk::new(large);
    case.capture().await;
    let layers = case.site.objects.list("maps/").await.unwrap();
    assert!(!layers.is_empty());
    for layer in layers {
        std::fs::remove_file(case.site.vault_folder().join(&layer.name)).unwrap();
    }
    std::fs::remove_dir_all(case.site.state_folder().join("layers")).unwrap();
    case.gateway.rebuild(&|_| {}).await.unwrap();
    case.disk.write(5 * CHUNK, &[1; BLOCK]);
    let (report, _) = case.capture().await;
    assert_eq!(report.compared.len(), 1, "{report:?}");
}

/// A tracked disk of many chunks, of every second of which a block has changed since its point: two batches of them.
async fn two_batches() -> Case {
    let mut case = Case::new().await;
    let mut large = vec![0; 400 * CHUNK];
    for (position, chunk) in large.chunks_exact_mut(CHUNK).enumerate() {
        Dice(position as u64).fill(&mut chunk[..40]);
    }
    case.disk = TrackedDisk::new(large);
    case.capture().await;
    for position in (0..400).step_by(2) {
        let mut block = [0; BLOCK];
        Dice(1000 + position as u64).fill(&mut block);
        case.disk.write(position * CHUNK + 5 * BLOCK, &block);
    }
    case
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_before_the_disk_failed_is_not_read_and_stored_again() {
    let mut case = two_batches().await;
    let failing = checkpoint(&case.gateway, "vm", &mut case.disk);
    let mut vm = failing.capture("vm", NOW);
    vm.disks[0].source = Some(Arc::new(Failing::new(failing.frozen.clone(), 150)));
    let captured = case.gateway.capture(vm, Hold::Checkpoint, &|_| {}, crash);
    captured.await.unwrap_err();
    let (report, next) = case.capture().await;
    assert_eq!(next.frozen.read_bytes(), next.frozen.dirty_bytes());
    assert_eq!(
        (report.chunks_full, report.chunks_read),
        (0, 200),
        "{report:?}"
    );
    // The first batch's are patches that wait.
    assert!(report.chunks_patched <= 100, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_capture_that_died_had_not_noted_is_a_patch_the_next_time() {
    for commits in (0..40).step_by(3) {
        let mut case = two_batches().await;
        let dying = checkpoint(&case.gateway, "vm", &mut case.disk);
        case.gateway.dies_after_commits(commits);
        let vm = dying.capture("vm", NOW);
        let captured = case.gateway.capture(vm, Hold::Checkpoint, &|_| {}, crash);
        let died = captured.await.is_err();
        drop(case.gateway);
        case.gateway = case.site.gateway();
        let (report, next) = case.capture().await;
        let what = format!("died before commit {commits}: {report:?}");
        assert_eq!(report.chunks_full, 0, "{what}");
        assert!(
            next.frozen.read_bytes() <= next.frozen.dirty_bytes(),
            "{what}"
        );
        if !died {
            assert!(commits > 4, "{what}");
            return;
        }
    }
    panic!("a capture has not so many commits");
}
