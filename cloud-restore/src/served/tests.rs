//! A served disk against a model, over a source that is slow, fails, and counts.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;
use virtual_disk::nbd::server::{Export, Piece};
use virtual_disk::nbd::wire::STATE_ZERO;

use super::cache::Cache;
use super::overlay::{KeptOverlay, Over, Overlay};
use super::source::{Chunk, ChunkSource};
use super::*;

const CHUNK: u32 = 65536;
/// An odd size: the last chunk and the last block are cut off.
const SIZE: u64 = 40 * CHUNK as u64 - 1000;

fn byte(at: u64) -> u8 {
    (at / 512 % 251) as u8 + (at % 3) as u8
}

/// Every third chunk is a hole.
fn truth() -> Vec<u8> {
    let hole = |at: u64| (at / u64::from(CHUNK)).is_multiple_of(3);
    (0..SIZE)
        .map(|at| if hole(at) { 0 } else { byte(at) })
        .collect()
}

#[derive(Default)]
struct Source {
    asked: Mutex<Vec<u64>>,
    requests: AtomicU64,
    fails: AtomicBool,
    slow: bool,
}

#[async_trait]
impl ChunkSource for Source {
    fn size_bytes(&self) -> u64 {
        SIZE
    }

    fn chunk_bytes(&self) -> u32 {
        CHUNK
    }

    async fn fetch(&self, positions: &[u64]) -> Vec<Result<Chunk, String>> {
        self.asked.lock().unwrap().extend(positions);
        self.requests.fetch_add(1, Relaxed);
        if self.slow {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if self.fails.load(Relaxed) {
            return vec![Err("the store is away".into()); positions.len()];
        }
        let chunk = |position: &u64| {
            let start = position * u64::from(CHUNK);
            let hole = position.is_multiple_of(3);
            let bytes =
                (start..start + u64::from(CHUNK)).map(|at| if at < SIZE { byte(at) } else { 0 });
            Ok((!hole).then(|| bytes.collect::<Bytes>()))
        };
        positions.iter().map(chunk).collect()
    }

    async fn holes(&self, positions: Range<u64>) -> Result<Vec<bool>, String> {
        Ok(positions
            .map(|position| position.is_multiple_of(3))
            .collect())
    }
}

fn serve(
    source: Arc<Source>,
    folder: &Path,
    in_memory: usize,
    overlay: Option<Overlay>,
) -> ServedDisk {
    let cache = Cache::create(folder, CHUNK, in_memory, 12).unwrap();
    ServedDisk::new("vm@1 sda".into(), source, cache, overlay)
}

fn bytes_of(pieces: Vec<Piece>) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Data(bytes) => out.extend_from_slice(&bytes),
            Piece::Zeroes(length) => out.resize(out.len() + length as usize, 0),
        }
    }
    out
}

async fn read(disk: &ServedDisk, offset: u64, length: u32) -> Vec<u8> {
    match disk.read_now(offset, length) {
        Some(pieces) => bytes_of(pieces.unwrap()),
        None => bytes_of(disk.read(offset, length).await.unwrap()),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Read(Range<u64>),
    Write(Range<u64>, u8),
    Zero(Range<u64>),
    Flush,
    Prefetch(Range<u64>),
}

/// Ranges that begin and end anywhere, most of them near block boundaries.
fn range() -> impl Strategy<Value = Range<u64>> {
    (0..SIZE / 512, 0u64..600, 1u64..200, 0u64..600).prop_map(|(sector, skip, sectors, more)| {
        let start = (sector * 512 + skip.saturating_sub(300)).min(SIZE - 1);
        let end = (start + sectors * 512 + more.saturating_sub(300)).min(SIZE);
        start..end.max(start + 1)
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => range().prop_map(Step::Read),
        4 => (range(), any::<u8>()).prop_map(|(range, byte)| Step::Write(range, byte)),
        2 => range().prop_map(Step::Zero),
        1 => Just(Step::Flush),
        1 => range().prop_map(Step::Prefetch),
    ]
}

async fn play(disk: &ServedDisk, steps: &[Step], model: &mut [u8]) {
    for step in steps {
        match step.clone() {
            Step::Read(range) => {
                let length = (range.end - range.start) as u32;
                let found = read(disk, range.start, length).await;
                assert!(
                    found == model[range.start as usize..range.end as usize],
                    "{step:?}"
                );
            }
            Step::Write(range, byte) => {
                let data = vec![byte; (range.end - range.start) as usize];
                disk.write(range.start, data.into()).await.unwrap();
                model[range.start as usize..range.end as usize].fill(byte);
            }
            Step::Zero(range) => {
                disk.write_zeroes(range.start, range.end - range.start)
                    .await
                    .unwrap();
                model[range.start as usize..range.end as usize].fill(0);
            }
            Step::Flush => disk.flush().await.unwrap(),
            Step::Prefetch(range) => disk.prefetch(range.start, range.end - range.start).await,
        }
    }
    let all = read(disk, 0, SIZE as u32).await;
    assert!(all == model, "at the end");
    check_extents(disk, model).await;
}

/// What is called zero must be; and the map must be whole.
async fn check_extents(disk: &ServedDisk, model: &[u8]) {
    let mut at = 0;
    while at < SIZE {
        for extent in disk.extents(at, SIZE - at).await.unwrap() {
            let part = &model[at as usize..(at + extent.length) as usize];
            assert!(extent.flags & STATE_ZERO == 0 || part.iter().all(|byte| *byte == 0));
            at += extent.length;
        }
    }
    assert_eq!(at, SIZE);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn a_served_disk_is_what_was_captured_and_what_was_written_since(
        steps in proptest::collection::vec(step(), 1..60), in_memory in 1usize..20, keep in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        runtime().block_on(async {
            let mut model = truth();
            let over = Over { vault: "v".into(), point: "p".into(), disk: "sda".into(), size_bytes: SIZE };
            let path = folder.path().join("sda.overlay");
            let overlay = || match keep {
                true => Overlay::kept(KeptOverlay::open(&path, &over).unwrap()).unwrap(),
                false => Overlay::thrown_away(folder.path()).unwrap(),
            };
            let disk = serve(Arc::default(), folder.path(), in_memory, Some(overlay()));
            play(&disk, &steps, &mut model).await;
            disk.flush().await.unwrap();
            drop(disk);
            // What is kept is there again; what is not, is not.
            if !keep { model = truth() }
            let disk = serve(Arc::default(), folder.path(), in_memory, Some(overlay()));
            play(&disk, &[], &mut model).await;
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_many_ask_for_is_fetched_once() {
    let folder = tempfile::tempdir().unwrap();
    let source = Arc::new(Source {
        slow: true,
        ..Source::default()
    });
    let disk = Arc::new(serve(source.clone(), folder.path(), 40, None));
    let asks = (0..50u64).map(|n| {
        let disk = disk.clone();
        tokio::spawn(async move {
            let at = 4 * u64::from(CHUNK) + n * 1000;
            assert_eq!(read(&disk, at, 1).await, [byte(at)]);
        })
    });
    for ask in asks.collect::<Vec<_>>() {
        ask.await.unwrap();
    }
    assert_eq!(*source.asked.lock().unwrap(), [4]);
    assert!(disk.is_read_only());
    assert!(disk.write(0, Bytes::from_static(b"x")).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_named_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let source = Arc::new(Source::default());
    source.fails.store(true, Relaxed);
    let overlay = Overlay::thrown_away(folder.path()).unwrap();
    let disk = serve(source.clone(), folder.path(), 40, Some(overlay));
    let at = u64::from(CHUNK) + 5;
    let error = disk.read(at, 10).await.unwrap_err().to_string();
    assert!(
        error.contains("vm@1 sda") && error.contains("the store is away"),
        "{error}"
    );
    // A write that needs what stands around it fails too, and changes nothing.
    assert!(disk.write(at, Bytes::from_static(b"abc")).await.is_err());
    // One of whole blocks needs nothing of the vault.
    disk.write(2 * u64::from(CHUNK), vec![9; 4096].into())
        .await
        .unwrap();
    assert_eq!(read(&disk, 2 * u64::from(CHUNK) + 7, 2).await, [9, 9]);
    source.fails.store(false, Relaxed);
    assert_eq!(read(&disk, at, 1).await, [byte(at)]);
}

/// Whoever was told of a failure asks again at once, and gets what the store has by then, not the failure once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_was_told_of_a_failure_is_not_told_of_it_twice() {
    for _ in 0..50 {
        let folder = tempfile::tempdir().unwrap();
        let source = Arc::new(Source::default());
        let disk = serve(source.clone(), folder.path(), 40, None);
        for position in (0..40u64).filter(|position| !position.is_multiple_of(3)) {
            let at = position * u64::from(CHUNK);
            source.fails.store(true, Relaxed);
            assert!(disk.read(at, 1).await.is_err());
            source.fails.store(false, Relaxed);
            assert_eq!(read(&disk, at, 1).await, [byte(at)]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_reads_finds_what_it_wants_next_at_hand() {
    let folder = tempfile::tempdir().unwrap();
    let source = Arc::new(Source::default());
    let disk = serve(source.clone(), folder.path(), 40, None);
    for number in 0..10 {
        read(&disk, number * 32 * 1024, 32 * 1024).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let asked: BTreeSet<u64> = source.asked.lock().unwrap().iter().copied().collect();
    assert!(
        asked.contains(&6),
        "five chunks were read, and it is ahead: {asked:?}"
    );
    let usage = disk.usage();
    assert!(
        usage.chunks_fetched_ahead > 0 && usage.read_bytes == 10 * 32 * 1024,
        "{usage:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_while_others_wait_goes_together() {
    let folder = tempfile::tempdir().unwrap();
    let source = Arc::new(Source {
        slow: true,
        ..Source::default()
    });
    let disk = serve(source.clone(), folder.path(), 40, None);
    let asks = (0..40u64).map(|position| {
        let at = position * u64::from(CHUNK);
        read(&disk, at, 1)
    });
    futures::future::join_all(asks).await;
    let mut asked = source.asked.lock().unwrap().clone();
    asked.sort_unstable();
    assert_eq!(asked, (0..40).collect::<Vec<u64>>(), "each once");
    // Eight go at once, and alone; the others lie side by side.
    let requests = source.requests.load(Relaxed);
    assert!(requests <= 16, "{requests} requests");
}

/// A large disk of holes, each of which is fetched when twenty are asked for at once.
struct Wide(tokio::sync::Barrier);

#[async_trait]
impl ChunkSource for Wide {
    fn size_bytes(&self) -> u64 {
        10_000 * u64::from(CHUNK)
    }

    fn chunk_bytes(&self) -> u32 {
        CHUNK
    }

    async fn fetch(&self, positions: &[u64]) -> Vec<Result<Chunk, String>> {
        self.0.wait().await;
        vec![Ok(None); positions.len()]
    }

    async fn holes(&self, positions: Range<u64>) -> Result<Vec<bool>, String> {
        Ok(vec![true; positions.count()])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_here_and_there_does_not_wait_in_a_row() {
    let folder = tempfile::tempdir().unwrap();
    let source = Arc::new(Wide(tokio::sync::Barrier::new(20)));
    let cache = Cache::create(folder.path(), CHUNK, 4, 4).unwrap();
    let disk = ServedDisk::new("vm@1 sda".into(), source, cache, None);
    let asks = (0..20u64).map(|number| read(&disk, number * 500 * u64::from(CHUNK), 1));
    let all = tokio::time::timeout(Duration::from_secs(20), futures::future::join_all(asks));
    assert!(all.await.is_ok(), "fewer than twenty are fetched at once");
}
