//! What a gateway merges: index segments (one for every 64 packs, and a wider one for every eight of those) and map layers.

use crate::site::*;
use bytes::Bytes;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;
use vault_format::names::{self, Name, Span};
use vault_format::segment::Segment;
use vault_store::objects::{Created, Listed, ObjectError, Objects};
use vault_store::read::{PointSelector, VerifyOptions, verify};

async fn spans(site: &Site) -> Vec<(Span, String)> {
    let listed = site.objects.list(names::INDEX).await.unwrap();
    let span = |name: String| match names::parse(&name) {
        Some(Name::Segment(span, _)) => (span, name),
        other => panic!("{name}: {other:?}"),
    };
    listed.into_iter().map(|listed| span(listed.name)).collect()
}

/// A disk of chunks that differ, and are quickly made.
fn chunks(count: usize, seed: usize) -> Vec<u8> {
    let mut disk = vec![0; count * CHUNK];
    for (position, chunk) in disk.chunks_exact_mut(CHUNK).enumerate() {
        Dice((seed + position) as u64).fill(&mut chunk[..40]);
    }
    disk
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_segments_become_one_which_holds_all_that_they_held() {
    let site = Site::new().await;
    let disk = chunks(520, 0);
    {
        let mut gateway = site.lone_packs(site.objects.clone());
        cycle(&mut gateway, "vm", &disk).await.unwrap();
    }
    let spans = spans(&site).await;
    let packs = |span: &Span| span.last - span.first + 1;
    let wide: Vec<&Span> = spans
        .iter()
        .map(|(span, _)| span)
        .filter(|span| packs(span) == 512)
        .collect();
    assert_eq!((wide.len(), spans.len()), (1, 9), "{spans:?}");
    let narrow = spans.iter().filter(|(span, _)| packs(span) == 64);
    for (span, name) in narrow {
        assert!(wide[0].supersedes(span), "{span:?}");
        std::fs::remove_file(site.vault_folder().join(name)).unwrap();
    }

    let vault = site.vault().await;
    let report = verify(&vault, &VerifyOptions::default(), &|_| {})
        .await
        .unwrap();
    assert_eq!((report.damaged, report.findings), (vec![], vec![]));
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == disk);
    // A state that is lost is learned from it: one GET for 512 packs, the trailers of the other eight.
    std::fs::remove_dir_all(site.state_folder()).unwrap();
    let before = site.meter.snapshot();
    let report = site.sync("vm", &disk).await.unwrap();
    assert_eq!((report.chunks_full, report.chunks_patched), (0, 0));
    let used = site.meter.snapshot() - before;
    assert!(used.get < 30, "{used:?}");
}

/// Else a gateway that takes over a VM would write the other one's whole index once more.
#[tokio::test(flavor = "multi_thread")]
async fn packs_that_another_gateways_segments_have_are_not_merged_into_ours() {
    let site = Site::new().await;
    let objects = site.objects.clone();
    let mut ours = site.lone_packs(objects.clone());
    cycle(&mut ours, "own", &chunks(1, 0)).await.unwrap();
    // A segment of 64 packs of the other one.
    let mut other = site.second_gateway().await;
    let theirs = chunks(512, 10_000);
    for vm in 0..80 {
        let part = &theirs[vm * 6 * CHUNK..(vm + 1) * 6 * CHUNK];
        cycle(&mut other, &format!("vm{vm}"), part).await.unwrap();
    }
    let before = spans(&site).await;
    assert!(!before.is_empty());
    cycle(&mut ours, "vm0", &theirs[..6 * CHUNK]).await.unwrap();
    cycle(&mut ours, "own", &chunks(520, 20_000)).await.unwrap();

    let merged = spans(&site).await.into_iter();
    let widest = merged.max_by_key(|(span, _)| span.last - span.first);
    let (_, name) = widest.unwrap();
    let bytes = objects.get(&name).await.unwrap();
    let segment = Segment::open_whole(&site.key().trust, &name, &bytes).unwrap();
    assert_eq!(segment.packs.len(), 8 * 64);
    let vault = site.vault().await;
    let report = verify(&vault, &VerifyOptions::default(), &|_| {}).await;
    assert_eq!(report.unwrap().damaged, vec![]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_layers_that_no_disk_has_any_more_no_copies_stay_in_the_state() {
    let site = Site::new().await;
    let copies = || std::fs::read_dir(site.state_folder().join("layers")).unwrap();
    // More ids than fit inline.
    let large = chunks(2200, 0);
    site.sync("vm", &large).await.unwrap();
    assert_eq!(copies().count(), 1);
    site.sync("other", &disk(10, 1)).await.unwrap();
    assert_eq!(copies().count(), 1, "that of a VM beside");
    let mut renamed = capture("vm", &disk(10, 2));
    renamed.disks[0].name = "renamed".into();
    let mut gateway = site.gateway();
    gateway.begin_cycle(&|_| {}).await.unwrap();
    gateway.sync_vm(renamed, &|_| {}, crash).await.unwrap();
    assert_eq!(copies().count(), 0);
}

/// A store to which one pack never gets: it is on its way while others arrive, and then fails.
#[derive(Debug)]
struct OnePackStuck {
    inner: Arc<dyn Objects>,
    /// Packs that others must be before the stuck one fails.
    others: usize,
    packs: AtomicUsize,
    /// Segments that were written while it was on its way.
    segments: Mutex<Vec<String>>,
    is_stuck: AtomicBool,
    enough: Notify,
}

#[async_trait::async_trait]
impl Objects for OnePackStuck {
    async fn create(&self, name: &str, bytes: Bytes) -> Result<Created, ObjectError> {
        if name.starts_with(names::INDEX) && self.is_stuck.load(SeqCst) {
            self.segments.lock().unwrap().push(name.to_owned());
        }
        if name.starts_with(names::PACKS) {
            match self.packs.fetch_add(1, SeqCst) {
                4 => {
                    self.is_stuck.store(true, SeqCst);
                    self.enough.notified().await;
                    self.is_stuck.store(false, SeqCst);
                    return Err(ObjectError::Other {
                        name: name.to_owned(),
                        store: self.describe(),
                        cause: "it was too slow".into(),
                    });
                }
                number if number == self.others => self.enough.notify_one(),
                _ => {}
            }
        }
        self.inner.create(name, bytes).await
    }

    async fn get(&self, name: &str) -> Result<Bytes, ObjectError> {
        self.inner.get(name).await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, ObjectError> {
        self.inner.get_range(name, range).await
    }

    async fn size(&self, name: &str) -> Result<Option<u64>, ObjectError> {
        self.inner.size(name).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError> {
        self.inner.list(prefix).await
    }

    fn store_time(&self) -> Option<jiff::Timestamp> {
        self.inner.store_time()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_segment_is_written_over_a_pack_that_is_still_on_its_way() {
    let site = Site::new().await;
    let disk = chunks(260, 0);
    let store = Arc::new(OnePackStuck {
        inner: site.objects.clone(),
        others: 200,
        packs: AtomicUsize::new(0),
        segments: Mutex::default(),
        is_stuck: AtomicBool::new(false),
        enough: Notify::new(),
    });
    let died = cycle(&mut site.lone_packs(store.clone()), "vm", &disk).await;
    assert!(died.is_err());
    assert!(store.packs.load(SeqCst) > 200, "others went past it");
    assert_eq!(*store.segments.lock().unwrap(), Vec::<String>::new());

    // What never arrived is nowhere, and leaves a number that nothing will ever fill.
    cycle(&mut site.lone_packs(site.objects.clone()), "vm", &disk)
        .await
        .unwrap();
    assert!(records(&whole_packs(&site).await).values().all(|n| *n == 1));
    let trust = site.key().trust;
    let mut indexed = 0;
    for (span, name) in spans(&site).await {
        let bytes = site.objects.get(&name).await.unwrap();
        let segment = Segment::open_whole(&trust, &name, &bytes).unwrap();
        let missing = (span.last - span.first + 1) as usize - segment.packs.len();
        assert!(missing <= 1, "{span:?} has {} packs", segment.packs.len());
        indexed += segment.packs.len();
    }
    assert_eq!(indexed, 4 * 64);
    let vault = site.vault().await;
    let report = verify(&vault, &VerifyOptions::default(), &|_| {})
        .await
        .unwrap();
    assert_eq!((report.damaged, report.findings), (vec![], vec![]));
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == disk);
}
