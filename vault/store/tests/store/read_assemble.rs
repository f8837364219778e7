//! Assembling disks: layers, holes, chains, several records of an id, every place where entries may be, damage.

use crate::read_fixture::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vault_format::layer::{Run, Slot};
use vault_format::manifest::{LayerRef, Unindexed};
use vault_format::record::Kind;
use vault_format::{ChunkId, names};
use vault_store::StoreError;
use vault_store::extents::{Extents, MemoryDisk};
use vault_store::read::{Assembly, DiskImage, PointSelector};

const LATEST: PointSelector = PointSelector::Latest;

/// Publishes a point of VM `web` whose disk `sda` is these chunks, and which adds these packs.
async fn publish(
    fixture: &Fixture,
    sequence: u64,
    ids: &[ChunkId],
    packs: &[&vault_format::pack::FinishedPack],
) {
    let layer = LayerRef::Inline(vec![chunks_at(0, ids)]);
    let manifest = with_packs(fixture.manifest("web", sequence), packs);
    let manifest = with_disk(manifest, "sda", (ids.len() * CHUNK) as u64, vec![layer]);
    fixture.publish(&manifest).await;
}

async fn latest(fixture: &Fixture) -> Result<Vec<u8>, StoreError> {
    let vault = fixture.vault().await;
    let point = vault.find_point("web", &LATEST).await?;
    Ok(assembled(&vault, &point, "sda").await?.0)
}

fn lost(result: Result<Vec<u8>, StoreError>) -> (String, String) {
    match result {
        Err(StoreError::LostChunk { id, why }) => (id, why),
        other => panic!("a lost chunk was expected, not {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_overlaid_and_the_last_chunk_is_cut() {
    let fixture = Fixture::new().await;
    let mut pack = fixture.pack();
    let chunks: Vec<Vec<u8>> = (0..6).map(chunk).collect();
    let ids: Vec<ChunkId> = chunks
        .iter()
        .map(|c| fixture.add_full(&mut pack, c))
        .collect();
    let mut last = chunk(9);
    last[1000..].fill(0);
    let last_id = fixture.add_full(&mut pack, &last);
    let pack = fixture.put_pack(pack).await;
    fixture.put_segment(0, &[&pack]).await;
    let base = fixture
        .put_layer(&[chunks_at(0, &ids[..4]), chunks_at(9, &[last_id, ids[5]])])
        .await;
    let middle = fixture
        .put_layer(&[Run::Holes { first: 1, count: 2 }, chunks_at(5, &[ids[4]])])
        .await;
    let newest = LayerRef::Inline(vec![chunks_at(2, &[ids[5]])]);
    let size = 9 * CHUNK as u64 + 1000;
    let manifest = with_disk(
        fixture.manifest("web", 1),
        "sda",
        size,
        vec![newest, middle, base],
    );
    fixture.publish(&manifest).await;

    let vault = fixture.vault().await;
    let point = vault.find_point("web", &LATEST).await.unwrap();
    let (bytes, report) = assembled(&vault, &point, "sda").await.unwrap();
    let zero = vec![0; CHUNK];
    let expected = [
        &chunks[0], &zero, &chunks[5], &chunks[3], &zero, &chunks[4], &zero, &zero, &zero,
    ]
    .map(|c| c.as_slice());
    let mut expected = expected.concat();
    expected.extend_from_slice(&last[..1000]);
    assert!(bytes == expected);
    assert_eq!(
        (report.chunks, report.chunks_fetched, report.chunks_kept),
        (5, 5, 0)
    );
    assert_eq!(
        (report.bytes_written, report.zeroed_bytes),
        (4 * CHUNK as u64 + 1000, 0)
    );

    let image = DiskImage::open(&vault, &point, "sda").await.unwrap();
    assert_eq!(
        image.slots(1..3).await.unwrap(),
        [Slot::Hole, Slot::Chunk(ids[5])]
    );
    assert_eq!(
        image.slots(9..12).await.unwrap(),
        [Slot::Chunk(last_id), Slot::Hole, Slot::Hole],
        "behind the end"
    );
    let read = image.chunks(&[ids[3], ids[0], ids[3]]).await.unwrap();
    assert_eq!(read.len(), 2);
    assert!(read[&ids[3]].as_ref().unwrap()[..] == chunks[3]);
    let error = DiskImage::open(&vault, &point, "sdb")
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("no disk sdb; it has sda"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packs_data_keys_are_asked_for_once_however_many_need_them() {
    let fixture = Fixture::new().await;
    let mut pack = fixture.pack();
    // 32 KiB each: those asked for lie apart, and none of them near the keys.
    let ids: Vec<ChunkId> = (0..40)
        .map(|n| fixture.add_full(&mut pack, &chunk(n)))
        .collect();
    let pack = fixture.put_pack(pack).await;
    let manifest = with_packs(fixture.manifest("web", 1), &[&pack]);
    let layer = LayerRef::Inline(vec![chunks_at(0, &ids)]);
    fixture
        .publish(&with_disk(manifest, "sda", 40 * CHUNK as u64, vec![layer]))
        .await;
    let requests = async |asked: &[usize]| {
        let vault = fixture.vault().await;
        let point = vault.find_point("web", &LATEST).await.unwrap();
        let image = DiskImage::open(&vault, &point, "sda").await.unwrap();
        let before = fixture.meter.snapshot();
        let reads = asked.iter().map(|n| {
            let (image, ids) = (&image, &ids);
            async move {
                let chunks = image.chunks(&[ids[*n]]).await.unwrap();
                assert!(chunks[&ids[*n]].as_ref().unwrap()[..] == chunk(*n as u64));
            }
        });
        futures::future::join_all(reads).await;
        (fixture.meter.snapshot() - before).get
    };
    assert_eq!(requests(&[8]).await, 2);
    assert_eq!(requests(&[8, 16, 24, 32, 39]).await, 6);
}

/// Who serves a disk for days meets a damaged answer now and then.
#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_was_damaged_on_its_way_is_not_lost_for_good() {
    let fixture = Fixture::new().await;
    let mut pack = fixture.pack();
    let id = fixture.add_full(&mut pack, &chunk(1));
    let pack = fixture.put_pack(pack).await;
    let manifest = with_packs(fixture.manifest("web", 1), &[&pack]);
    let layer = LayerRef::Inline(vec![chunks_at(0, &[id])]);
    let manifest = with_disk(manifest, "sda", CHUNK as u64, vec![layer]);
    fixture.publish(&manifest).await;
    let vault = fixture.vault().await;
    let point = vault.find_point("web", &LATEST).await.unwrap();
    let image = DiskImage::open(&vault, &point, "sda").await.unwrap();
    let name = names::pack(&pack.name);
    let size = fixture.bytes(&name).await.len();
    fixture.flip(&name, size / 2).await;
    for _ in 0..2 {
        let chunks = image.chunks(&[id]).await.unwrap();
        assert!(matches!(chunks[&id], Err(StoreError::LostChunk { .. })));
    }
    fixture.objects.restore_all();
    let chunks = image.chunks(&[id]).await.unwrap();
    assert!(chunks[&id].as_ref().unwrap()[..] == chunk(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_comes_to_the_size_of_the_disk() {
    let fixture = Fixture::new().await;
    let mut pack = fixture.pack();
    let id = fixture.add_full(&mut pack, &chunk(1));
    let pack = fixture.put_pack(pack).await;
    let layer = LayerRef::Inline(vec![chunks_at(3, &[id, id])]);
    let manifest = with_packs(fixture.manifest("web", 1), &[&pack]);
    let size = 40 * CHUNK as u64 + 17;
    fixture
        .publish(&with_disk(manifest, "sda", size, vec![layer]))
        .await;
    let vault = fixture.vault().await;
    let point = vault.find_point("web", &LATEST).await.unwrap();
    let sink = Arc::new(MemoryDisk::new(vec![0; size as usize]));
    let done = Arc::new(AtomicU64::new(0));
    let sum = done.clone();
    let progress = Arc::new(move |n| {
        sum.fetch_add(n, Ordering::Relaxed);
    });
    let assembly = Assembly::open(&vault, &point).await.unwrap();
    let mut disk = assembly.disk("sda").await.unwrap();
    // What is not there yet is surveyed too, and nothing is compared.
    let survey = disk.survey(Vec::new(), progress.clone()).await.unwrap();
    assert_eq!((survey.chunks_to_fetch, survey.chunks_kept), (2, 0));
    assert_eq!(done.load(Ordering::Relaxed), 0);
    let old: Arc<dyn Extents> = sink.clone();
    disk.survey(vec![old], progress.clone()).await.unwrap();
    assert_eq!(done.swap(0, Ordering::Relaxed), size);
    let report = disk.write(sink, progress).await.unwrap();
    assert_eq!(done.load(Ordering::Relaxed), size);
    assert_eq!((report.chunks, report.chunks_fetched), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_over_several_packs_is_built() {
    let fixture = Fixture::new().await;
    let versions: Vec<Vec<u8>> = (0..5)
        .scan(chunk(1), |c, n| {
            *c = changed(c, &[n, 9], n as u8);
            Some(c.clone())
        })
        .collect();
    let (mut one, mut two) = (fixture.pack(), fixture.pack());
    fixture.add_full(&mut one, &versions[0]);
    fixture.add_patch(&mut two, &versions[0], 1, &versions[1]);
    fixture.add_patch(&mut one, &versions[1], 5, &versions[2]);
    fixture.add_patch(&mut two, &versions[2], 9, &versions[3]);
    let id = fixture.add_patch(&mut one, &versions[3], 255, &versions[4]);
    let middle = fixture.id(&versions[2]);
    let (one, two) = (fixture.put_pack(one).await, fixture.put_pack(two).await);
    fixture.put_segment(0, &[&one, &two]).await;
    publish(&fixture, 1, &[id, middle], &[]).await;
    assert!(latest(&fixture).await.unwrap() == [&versions[4][..], &versions[2]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_record_is_taken_when_one_is_damaged() {
    let fixture = Fixture::new().await;
    let (base, target) = (chunk(1), changed(&chunk(1), &[3], 7));
    let (mut bad, mut good) = (fixture.pack(), fixture.pack());
    fixture.add_full(&mut bad, &chunk(5));
    let id_of_target = fixture.add_full(&mut bad, &target);
    let other = fixture.add_full(&mut bad, &chunk(6));
    fixture.add_full(&mut good, &base);
    fixture.add_patch(&mut good, &base, 1, &target);
    let (bad, good) = (fixture.put_pack(bad).await, fixture.put_pack(good).await);
    fixture.put_segment(0, &[&bad]).await;
    fixture.put_segment(1, &[&good]).await;
    publish(&fixture, 1, &[id_of_target, other], &[]).await;
    let expected = [&target[..], &chunk(6)].concat();
    fixture
        .flip(&names::pack(&bad.name), bad.entries[1].offset as usize + 60)
        .await;
    assert!(
        latest(&fixture).await.unwrap() == expected,
        "one record of the pack is damaged, its neighbour is not"
    );

    fixture.objects.put(
        &names::pack(&bad.name),
        bad.bytes[..bad.entries[1].offset as usize + 10].to_vec(),
    );
    let (id, why) = lost(latest(&fixture).await);
    assert_eq!(id, other.to_string());
    assert!(
        why.contains("disk sda, position 1") && why.contains(&bad.name.to_string()),
        "{why}"
    );
    publish(&fixture, 2, &[fixture.id(&chunk(5)), id_of_target], &[]).await;
    let expected = [&chunk(5)[..], &target].concat();
    assert!(
        latest(&fixture).await.unwrap() == expected,
        "what lies before the cut is whole"
    );
    fixture.objects.delete(&names::pack(&bad.name));
    assert_eq!(
        lost(latest(&fixture).await).0,
        fixture.id(&chunk(5)).to_string()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_gives_other_content_is_not_believed() {
    let fixture = Fixture::new().await;
    let (mut liar, mut good) = (fixture.pack(), fixture.pack());
    let target = chunk(1);
    fixture.add(&mut liar, fixture.id(&target), Kind::Full, &chunk(2));
    fixture.add_full(&mut good, &target);
    let (liar, good) = (fixture.put_pack(liar).await, fixture.put_pack(good).await);
    publish(&fixture, 1, &[fixture.id(&target)], &[&liar, &good]).await;
    assert!(latest(&fixture).await.unwrap() == target);
    publish(&fixture, 2, &[fixture.id(&target)], &[&liar]).await;
    // The good pack is in no list of this point; its trailer still tells of it.
    assert!(latest(&fixture).await.unwrap() == target);
    fixture.objects.delete(&names::pack(&good.name));
    assert!(
        lost(latest(&fixture).await)
            .1
            .contains("does not have the chunk id")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_that_stand_on_each_other_are_lost_and_not_followed_for_ever() {
    let fixture = Fixture::new().await;
    let (a, b) = (chunk(1), changed(&chunk(1), &[3], 7));
    let mut pack = fixture.pack();
    let id = fixture.add_patch(&mut pack, &b, 1, &a);
    fixture.add_patch(&mut pack, &a, 1, &b);
    let pack = fixture.put_pack(pack).await;
    publish(&fixture, 1, &[id], &[&pack]).await;
    assert!(lost(latest(&fixture).await).1.contains("parent"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wider_segment_supersedes_unless_it_is_damaged() {
    let fixture = Fixture::new().await;
    let (mut one, mut two) = (fixture.pack(), fixture.pack());
    let ids = [
        fixture.add_full(&mut one, &chunk(1)),
        fixture.add_full(&mut two, &chunk(2)),
    ];
    let (one, two) = (fixture.put_pack(one).await, fixture.put_pack(two).await);
    let narrow = [
        fixture.put_segment(0, &[&one]).await,
        fixture.put_segment(1, &[&two]).await,
    ];
    let wide = fixture.put_segment(0, &[&one, &two]).await;
    publish(&fixture, 1, &ids, &[]).await;
    let expected = [chunk(1), chunk(2)].concat();
    let vault = fixture.vault().await;
    let point = vault.find_point("web", &LATEST).await.unwrap();
    let before = fixture.meter.snapshot();
    DiskImage::open(&vault, &point, "sda").await.unwrap();
    let opened = fixture.meter.snapshot() - before;
    assert_eq!((opened.get, opened.list), (1, 1), "the wide one alone");
    narrow
        .iter()
        .for_each(|name| fixture.objects.put(name, &b"never read"[..]));
    assert!(latest(&fixture).await.unwrap() == expected);
    fixture.objects.restore_all();
    fixture.flip(&wide, 200).await;
    // Without their trailers, so that it is the narrow ones that tell.
    for pack in [&one, &two] {
        fixture
            .flip(&names::pack(&pack.name), pack.bytes.len() - 1)
            .await;
    }
    assert!(latest(&fixture).await.unwrap() == expected);
    fixture.objects.restore_all();
    fixture.flip(&wide, 200).await;
    narrow.iter().for_each(|name| fixture.objects.delete(name));
    assert!(
        latest(&fixture).await.unwrap() == expected,
        "without any index, from the packs' trailers"
    );
    fixture.objects.delete(&names::pack(&two.name));
    assert!(
        lost(latest(&fixture).await)
            .1
            .contains("no index segment, manifest or pack")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_without_a_segment_are_found_through_the_manifests_that_have_their_entries() {
    let fixture = Fixture::new().await;
    let (mut one, mut two) = (fixture.pack(), fixture.pack());
    let ids = [
        fixture.add_full(&mut one, &chunk(1)),
        fixture.add_full(&mut two, &chunk(2)),
    ];
    let (one, two) = (fixture.put_pack(one).await, fixture.put_pack(two).await);
    publish(&fixture, 1, &ids[..1], &[&one]).await;
    let first = names::point(
        &fixture.id_key.vm_id("web"),
        vault_format::PointId {
            epoch: 1,
            sequence: 1,
        },
    );
    let layer = LayerRef::Inline(vec![chunks_at(0, &ids)]);
    let mut manifest = with_disk(
        with_packs(fixture.manifest("web", 2), &[&two]),
        "sda",
        2 * CHUNK as u64,
        vec![layer],
    );
    manifest.facts.unindexed.push(Unindexed {
        object: first.clone(),
        packs: vec![one.name],
    });
    fixture.publish(&manifest).await;
    // With a damaged trailer, so that it cannot be the trailer that told.
    fixture
        .flip(&names::pack(&one.name), one.bytes.len() - 1)
        .await;
    let expected = [chunk(1), chunk(2)].concat();
    assert!(latest(&fixture).await.unwrap() == expected);
    fixture.objects.restore_all();
    fixture.objects.delete(&first);
    assert!(
        latest(&fixture).await.unwrap() == expected,
        "from the trailer"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_excluded_disk_is_empty() {
    let fixture = Fixture::new().await;
    let mut manifest = with_disk(
        fixture.manifest("web", 1),
        "sda",
        3 * CHUNK as u64,
        Vec::new(),
    );
    manifest.disks[0].excluded = true;
    fixture.publish(&manifest).await;
    let bytes = latest(&fixture).await.unwrap();
    assert!(bytes == vec![0; 3 * CHUNK]);
}
