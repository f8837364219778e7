//! Metadata objects too large to be read whole: roots and parts by ranges, and damage of single parts.

use crate::read_fixture::*;
use vault_format::entry::Entry;
use vault_format::layer::Slot;
use vault_format::manifest::LayerRef;
use vault_format::names::{self, Span};
use vault_format::record::Kind;
use vault_format::segment::encode_segment;
use vault_format::{ChunkId, names::Name};
use vault_store::objects::Objects;
use vault_store::read::{DiskImage, PointSelector, VerifyOptions, verify};

const COUNT: u64 = 20_000;

fn fake(n: u64) -> ChunkId {
    ChunkId(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

/// A point whose layer and segment name many chunks, of which only the one at position 15,000 exists.
async fn large() -> (Fixture, ChunkId, String, String) {
    let fixture = Fixture::new().await;
    let mut pack = fixture.pack();
    let real = fixture.add_full(&mut pack, &chunk(1));
    let pack = fixture.put_pack(pack).await;
    let entry = |id| Entry {
        id,
        kind: Kind::Full,
        pack: 0,
        offset: 96,
        length: 1000,
    };
    let mut entries: Vec<Entry> = (0..COUNT).map(|n| entry(fake(n))).collect();
    entries.extend(pack.entries.iter().copied());
    let span = Span {
        writer: fixture.writer.id,
        epoch: 1,
        first: 0,
        last: 0,
    };
    let (segment, bytes) = encode_segment(
        &fixture.writer,
        &fixture.key,
        &span,
        &[listed(&pack)],
        entries,
    );
    fixture
        .objects
        .create(&segment, bytes.into())
        .await
        .unwrap();
    let ids: Vec<ChunkId> = (0..COUNT)
        .map(|n| if n == 15_000 { real } else { fake(n) })
        .collect();
    let runs: Vec<_> = ids
        .chunks(1000)
        .enumerate()
        .map(|(i, ids)| chunks_at(i as u64 * 1000, ids))
        .collect();
    let layer = fixture.put_layer(&runs).await;
    let LayerRef::Object { name, size } = &layer else {
        panic!("an object")
    };
    assert!(*size > 512 * 1024, "large enough to be read by ranges");
    let name = name.clone();
    let manifest = with_disk(
        fixture.manifest("web", 1),
        "sda",
        COUNT * CHUNK as u64,
        vec![layer],
    );
    fixture.publish(&manifest).await;
    (fixture, real, segment, name)
}

async fn image(fixture: &Fixture) -> DiskImage {
    let vault = fixture.vault().await;
    let point = vault
        .find_point("web", &PointSelector::Latest)
        .await
        .unwrap();
    DiskImage::open(&vault, &point, "sda").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn little_is_read_to_open_a_large_map_and_everything_is_found() {
    let (fixture, real, ..) = large().await;
    let before = fixture.meter.snapshot();
    let image = image(&fixture).await;
    let opened = (fixture.meter.snapshot() - before).bytes_received;
    assert!(opened < 300_000, "{opened} bytes to open");
    let slots = image.slots(14_999..15_002).await.unwrap();
    assert_eq!(
        slots,
        [
            Slot::Chunk(fake(14_999)),
            Slot::Chunk(real),
            Slot::Chunk(fake(15_001))
        ]
    );
    assert_eq!(image.slots(0..1).await.unwrap(), [Slot::Chunk(fake(0))]);
    assert_eq!(image.slots(0..COUNT).await.unwrap().len() as u64, COUNT);
    let chunks = image.chunks(&[real]).await.unwrap();
    assert!(chunks[&real].as_ref().unwrap()[..] == chunk(1));
    let chunks = image.chunks(&[fake(3)]).await.unwrap();
    assert!(chunks[&fake(3)].as_ref().unwrap_err().is_damage());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_part_of_a_segment_is_replaced_by_trailers() {
    let (fixture, real, segment, _) = large().await;
    let bytes = fixture.bytes(&segment).await;
    // Every part of it, its root left whole.
    let mut bad = bytes.clone();
    (200..bytes.len() - 100_000)
        .step_by(5000)
        .for_each(|at| bad[at] ^= 1);
    fixture.objects.put(&segment, bad);
    let image = image(&fixture).await;
    let chunks = image.chunks(&[real]).await.unwrap();
    assert!(chunks[&real].as_ref().unwrap()[..] == chunk(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_part_of_a_layer_is_an_error_where_it_is_needed() {
    let (fixture, _, _, layer) = large().await;
    fixture.flip(&layer, 200).await;
    let image = image(&fixture).await;
    let error = image.slots(0..10).await.unwrap_err();
    assert!(
        error.is_damage() && error.to_string().contains(&layer),
        "{error}"
    );
    assert_eq!(
        image.slots(19_000..19_001).await.unwrap(),
        [Slot::Chunk(fake(19_000))]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_a_flipped_bit_in_any_part() {
    let (fixture, ..) = large().await;
    // A layer that no point uses yet is read too.
    let ids: Vec<ChunkId> = (0..COUNT).map(|n| fake(n + COUNT)).collect();
    fixture.put_layer(&[chunks_at(0, &ids)]).await;
    for object in fixture.objects.list("").await.unwrap() {
        if !matches!(
            names::parse(&object.name),
            Some(Name::Layer(..) | Name::Segment(..))
        ) {
            continue;
        }
        for at in [200, 100_000, 300_000, 500_000] {
            fixture.objects.restore_all();
            fixture.flip(&object.name, at).await;
            let vault = fixture.vault().await;
            let report = verify(&vault, &VerifyOptions::default(), &|_| {})
                .await
                .unwrap();
            assert!(
                report.damaged.iter().any(|d| d.object == object.name),
                "{at} in {}",
                object.name
            );
        }
    }
}
