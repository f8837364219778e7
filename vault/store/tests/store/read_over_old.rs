//! Assembling over what is there already, and several disks side by side.

use crate::read_fixture::*;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use vault_format::ChunkId;
use vault_format::layer::Run;
use vault_format::manifest::LayerRef;
use vault_store::error::DiskFailure;
use vault_store::extents::{Extents, MemoryDisk, Sink};
use vault_store::read::{AssembleReport, Assembly, PointSelector, Survey};

const LATEST: PointSelector = PointSelector::Latest;

#[track_caller]
fn assert_foretold(survey: &Survey, report: &AssembleReport) {
    let said = (survey.chunks, survey.chunks_to_fetch, survey.chunks_kept);
    let done = (report.chunks, report.chunks_fetched, report.chunks_kept);
    assert_eq!(said, done);
    assert_eq!(survey.bytes_to_fetch, report.record_bytes);
    assert_eq!(survey.bytes_to_zero, report.zeroed_bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_place_only_what_differs_is_fetched_and_old_data_in_holes_is_zeroed() {
    let fixture = Fixture::new().await;
    let mut pack = fixture.pack();
    let ids: Vec<ChunkId> = (0..4)
        .map(|n| fixture.add_full(&mut pack, &chunk(n)))
        .collect();
    let pack = fixture.put_pack(pack).await;
    let runs = vec![
        chunks_at(0, &ids[..2]),
        Run::Holes { first: 2, count: 3 },
        chunks_at(5, &ids[2..]),
    ];
    let manifest = with_packs(fixture.manifest("web", 1), &[&pack]);
    let size = 7 * CHUNK as u64;
    fixture
        .publish(&with_disk(
            manifest,
            "sda",
            size,
            vec![LayerRef::Inline(runs)],
        ))
        .await;
    let vault = fixture.vault().await;
    let point = vault.find_point("web", &LATEST).await.unwrap();
    let (expected, _) = assembled(&vault, &point, "sda").await.unwrap();
    let zero = vec![0; CHUNK];
    let old = [
        &chunk(0)[..],
        &chunk(7),
        &chunk(7),
        &chunk(7),
        &zero,
        &chunk(2),
        &zero,
    ]
    .concat();
    let disk = Arc::new(MemoryDisk::new(old));
    let (survey, report) = over(&vault, &point, "sda", &disk).await.unwrap();
    assert!(disk.bytes() == expected);
    assert_eq!(
        (report.chunks, report.chunks_kept, report.chunks_fetched),
        (4, 2, 2)
    );
    assert_eq!(
        (report.bytes_written, report.zeroed_bytes),
        (2 * CHUNK as u64, 2 * CHUNK as u64)
    );
    assert_foretold(&survey, &report);
    assert!(survey.bytes_to_fetch > 0);
    let (survey, again) = over(&vault, &point, "sda", &disk).await.unwrap();
    assert_eq!(
        (again.chunks_kept, again.bytes_written, again.zeroed_bytes),
        (4, 0, 0)
    );
    assert_eq!(survey.bytes_to_fetch, 0);
}

/// An old disk with data in every second chunk; counts what is read of it and what of it is zeroed.
#[derive(Default)]
struct Striped {
    chunks: u64,
    read: AtomicU64,
    zeroed: AtomicU64,
    written: AtomicU64,
}

impl Extents for Striped {
    fn size_bytes(&self) -> u64 {
        self.chunks * CHUNK as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskFailure> {
        assert_eq!(offset / CHUNK as u64 % 2, 1, "a hole is not read");
        buf.fill(7);
        self.read.fetch_add(1, Relaxed);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskFailure> {
        let chunk = (offset / CHUNK as u64) | 1;
        let data = chunk * CHUNK as u64..(chunk + 1) * CHUNK as u64;
        Ok((chunk < self.chunks).then_some(data))
    }
}

impl Sink for Striped {
    fn write_at(&self, _: u64, bytes: &[u8]) -> Result<(), DiskFailure> {
        self.written.fetch_add(bytes.len() as u64, Relaxed);
        Ok(())
    }

    fn write_zeroes(&self, _: u64, length: u64) -> Result<(), DiskFailure> {
        self.zeroed.fetch_add(length, Relaxed);
        Ok(())
    }
}

/// More is planned than is kept from the survey to the writing: the index is asked again, the old copy is not.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_is_read_once_however_much_differs() {
    let fixture = Fixture::new().await;
    let mut pack = fixture.pack();
    let seven = fixture.add_full(&mut pack, &vec![7; CHUNK]);
    let one = fixture.add_full(&mut pack, &chunk(1));
    let pack = fixture.put_pack(pack).await;
    let chunks = 2 * 40_000;
    // Two chunks at its end: one is missing in the old copy, one is there.
    let layer = LayerRef::Inline(vec![chunks_at(chunks - 2, &[one, seven])]);
    let manifest = with_packs(fixture.manifest("web", 1), &[&pack]);
    let size = chunks * CHUNK as u64;
    let manifest = with_disk(manifest, "sda", size, vec![layer]);
    fixture.publish(&manifest).await;
    let vault = fixture.vault().await;
    let point = vault.find_point("web", &LATEST).await.unwrap();
    let disk = Arc::new(Striped {
        chunks,
        ..Striped::default()
    });
    let (survey, report) = over(&vault, &point, "sda", &disk).await.unwrap();
    assert_foretold(&survey, &report);
    assert_eq!((survey.chunks_to_fetch, survey.chunks_kept), (1, 1));
    assert_eq!(survey.bytes_to_zero, (chunks / 2 - 1) * CHUNK as u64);
    assert_eq!(disk.zeroed.load(Relaxed), survey.bytes_to_zero);
    assert_eq!(disk.written.load(Relaxed), CHUNK as u64);
    assert_eq!(disk.read.load(Relaxed), chunks / 2, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_of_several_copies_lacks_is_written() {
    let fixture = Fixture::new().await;
    let mut pack = fixture.pack();
    let ids: Vec<ChunkId> = (0..3)
        .map(|n| fixture.add_full(&mut pack, &chunk(n)))
        .collect();
    let pack = fixture.put_pack(pack).await;
    let manifest = with_packs(fixture.manifest("web", 1), &[&pack]);
    let layer = LayerRef::Inline(vec![chunks_at(0, &ids)]);
    let size = 4 * CHUNK as u64;
    fixture
        .publish(&with_disk(manifest, "sda", size, vec![layer]))
        .await;
    let vault = fixture.vault().await;
    let point = vault.find_point("web", &LATEST).await.unwrap();
    let assembly = Assembly::open(&vault, &point).await.unwrap();
    let zero = vec![0; CHUNK];
    let copies = [
        [&chunk(0)[..], &chunk(1), &zero, &zero].concat(),
        [&chunk(0)[..], &zero, &chunk(2), &chunk(9)].concat(),
    ];
    let copies = copies.map(|bytes| Arc::new(MemoryDisk::new(bytes)) as Arc<dyn Extents>);
    let mut disk = assembly.disk("sda").await.unwrap();
    let survey = disk.survey(copies.into(), Arc::new(|_| {})).await.unwrap();
    assert_eq!((survey.chunks_kept, survey.chunks_to_fetch), (1, 2));
    assert_eq!(survey.bytes_to_zero, CHUNK as u64);
}

/// Twelve disks of several batches each, at once, share the places of four batches.
#[tokio::test(flavor = "multi_thread")]
async fn many_disks_side_by_side_do_not_wait_for_each_other() {
    let fixture = Fixture::new().await;
    let mut pack = fixture.pack();
    let ids: Vec<ChunkId> = (0..4)
        .map(|n| fixture.add_full(&mut pack, &chunk(n)))
        .collect();
    let pack = fixture.put_pack(pack).await;
    let mut manifest = with_packs(fixture.manifest("web", 1), &[&pack]);
    // A window has 8192 positions first, and each is cut into batches of its own.
    let window = 8192;
    let runs = |disk: u64| {
        let at = |part: u64| part * window + disk;
        let run = |part: u64| chunks_at(at(part), &ids[(part as usize % 3)..][..2]);
        (0..9).map(run).collect::<Vec<Run>>()
    };
    let names: Vec<String> = (0..12).map(|n| format!("d{n}")).collect();
    let size = 9 * window * CHUNK as u64;
    for (n, name) in names.iter().enumerate() {
        manifest = with_disk(manifest, name, size, vec![LayerRef::Inline(runs(n as u64))]);
    }
    fixture.publish(&manifest).await;
    let vault = fixture.vault().await;
    let point = vault.find_point("web", &LATEST).await.unwrap();
    let assembly = Assembly::open(&vault, &point).await.unwrap();
    let mut tasks = Vec::new();
    for name in &names {
        let disk = assembly.disk(name).await.unwrap();
        tasks.push(tokio::spawn(async move {
            let sink = Arc::new(Striped::default());
            let report = disk.write(sink.clone(), Arc::new(|_| {})).await.unwrap();
            (report, sink.written.load(Relaxed))
        }));
    }
    for task in tasks {
        let ended = tokio::time::timeout(std::time::Duration::from_secs(60), task).await;
        let (report, written) = ended.expect("they end").unwrap();
        assert_eq!((report.chunks, report.chunks_fetched), (18, 18));
        assert_eq!(written, 18 * CHUNK as u64);
    }
}
