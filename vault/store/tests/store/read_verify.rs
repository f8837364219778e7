//! Verifying: every kind of object, damaged in every way, is found, and each verdict is what assembling then proves.

use crate::read_fixture::*;
use ring::digest::{SHA256, digest};
use std::collections::BTreeMap;
use vault_format::control_log::LogEntry;
use vault_format::layer::Run;
use vault_format::manifest::{LayerRef, Unindexed};
use vault_format::names::{self, Name};
use vault_store::objects::Objects;
use vault_store::read::{VerifyOptions, VerifyReport, log_damage, verify};

const STRUCTURE: VerifyOptions = VerifyOptions { read_data: false };
const DATA: VerifyOptions = VerifyOptions { read_data: true };
const SIZE: u64 = 6 * CHUNK as u64;

/// Three points of `web`: a base, a chain over it in a pack without a segment, and a full record besides.
async fn history() -> Fixture {
    let mut fixture = Fixture::new().await;
    let tool = b"a program";
    let sum: String = digest(&SHA256, tool)
        .as_ref()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    fixture
        .objects
        .create("tools/0.1.0/sparesite-restore", tool[..].into())
        .await
        .unwrap();
    let sums = format!("{sum}  sparesite-restore\n");
    fixture
        .objects
        .create("tools/0.1.0/SHA256SUMS", sums.into())
        .await
        .unwrap();
    fixture
        .command(LogEntry::Fence {
            vms: vec![],
            run: None,
            last: Default::default(),
        })
        .await;

    let (mut one, mut two, mut three) = (fixture.pack(), fixture.pack(), fixture.pack());
    let ids: Vec<_> = (0..4)
        .map(|n| fixture.add_full(&mut one, &chunk(n)))
        .collect();
    let (v1, v2) = (changed(&chunk(0), &[3], 7), changed(&chunk(0), &[3, 4], 8));
    let id1 = fixture.add_patch(&mut two, &chunk(0), 1, &v1);
    let id2 = fixture.add_patch(&mut three, &v1, 2, &v2);
    let again = fixture.add_full(&mut three, &chunk(3));
    let (one, two, three) = (
        fixture.put_pack(one).await,
        fixture.put_pack(two).await,
        fixture.put_pack(three).await,
    );
    fixture.put_segment(0, &[&one]).await;
    let base = fixture.put_layer(&[chunks_at(0, &ids)]).await;
    let newer = fixture
        .put_layer(&[chunks_at(0, &[id1]), Run::Holes { first: 1, count: 1 }])
        .await;

    let manifest = with_disk(
        with_packs(fixture.manifest("web", 1), &[&one]),
        "sda",
        SIZE,
        vec![base.clone()],
    );
    let first = fixture.publish(&manifest).await;
    let layers = vec![newer.clone(), base.clone()];
    let mut manifest = with_disk(
        with_packs(fixture.manifest("web", 2), &[&two]),
        "sda",
        SIZE,
        layers,
    );
    manifest.facts.previous = previous(&fixture, &first).await;
    let second = fixture.publish(&manifest).await;
    let layers = vec![
        LayerRef::Inline(vec![chunks_at(0, &[id2]), chunks_at(5, &[again])]),
        newer,
        base,
    ];
    let mut manifest = with_disk(
        with_packs(fixture.manifest("web", 3), &[&three]),
        "sda",
        SIZE,
        layers,
    );
    manifest.facts.previous = previous(&fixture, &second).await;
    manifest.facts.unindexed.push(Unindexed {
        object: second,
        packs: vec![two.name],
    });
    fixture.publish(&manifest).await;
    fixture
}

async fn run(fixture: &Fixture, options: VerifyOptions) -> VerifyReport {
    verify(&fixture.vault().await, &options, &|_| {})
        .await
        .unwrap()
}

/// Whether each point can in fact be assembled, and to the bytes it had.
async fn truth(fixture: &Fixture, right: &BTreeMap<u64, Vec<u8>>) -> BTreeMap<u64, bool> {
    let vault = fixture.vault().await;
    let list = vault.points_of("web").await.unwrap();
    let mut out: BTreeMap<u64, bool> = right.keys().map(|n| (*n, false)).collect();
    for point in &list.points {
        let sequence = point.manifest.facts.point.sequence;
        if let Ok((bytes, _)) = assembled(&vault, point, "sda").await {
            assert!(
                bytes == right[&sequence],
                "point {sequence} came back wrong"
            );
            out.insert(sequence, true);
        }
    }
    out
}

async fn contents(fixture: &Fixture) -> BTreeMap<u64, Vec<u8>> {
    let vault = fixture.vault().await;
    let mut out = BTreeMap::new();
    for point in vault.points_of("web").await.unwrap().points {
        let bytes = assembled(&vault, &point, "sda").await.unwrap().0;
        out.insert(point.manifest.facts.point.sequence, bytes);
    }
    out
}

fn verdicts(report: &VerifyReport) -> BTreeMap<u64, bool> {
    report
        .points
        .iter()
        .map(|p| (p.point.sequence, p.restorable))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_vault_is_whole() {
    let fixture = history().await;
    for options in [STRUCTURE, DATA] {
        let report = run(&fixture, options).await;
        assert_eq!(report.damaged, []);
        assert_eq!(report.findings, Vec::<String>::new());
        assert_eq!(report.points.len(), 3);
        assert!(
            report
                .points
                .iter()
                .all(|p| p.restorable && p.trusted && p.vm == "web")
        );
        assert_eq!((report.objects, report.unreferenced_packs), (14, 0));
        assert!(report.bytes_read > 1000);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Deleted,
    Truncated,
    Flipped(usize),
    Swapped,
}

/// What is done to `name`; `None` where there is nothing to swap it with.
async fn strike(fixture: &Fixture, name: &str, damage: Damage) -> Option<()> {
    let bytes = fixture.bytes(name).await;
    match damage {
        Damage::Deleted => fixture.objects.delete(name),
        Damage::Truncated => fixture.objects.put(name, bytes[..bytes.len() - 5].to_vec()),
        Damage::Flipped(thousandth) => fixture.flip(name, bytes.len() * thousandth / 1000).await,
        Damage::Swapped => {
            let folder = name.split('/').next()?;
            let all = fixture.objects.list(folder).await.unwrap();
            let other = all.into_iter().find(|o| o.name != name)?;
            fixture.objects.put(name, fixture.bytes(&other.name).await);
        }
    }
    Some(())
}

async fn every_damage_is_found(options: VerifyOptions) {
    let fixture = history().await;
    let right = contents(&fixture).await;
    let newest = fixture
        .objects
        .list("points")
        .await
        .unwrap()
        .pop()
        .unwrap()
        .name;
    let flips = [1, 150, 500, 700, 850, 999].map(Damage::Flipped);
    for object in fixture.objects.list("").await.unwrap() {
        for damage in [Damage::Deleted, Damage::Truncated, Damage::Swapped]
            .into_iter()
            .chain(flips)
        {
            fixture.objects.restore_all();
            if strike(&fixture, &object.name, damage).await.is_none() {
                continue;
            }
            let case = format!("{damage:?} {}", object.name);
            let report = run(&fixture, options).await;
            let found = report.damaged.iter().any(|d| d.object == object.name);
            let is_pack = matches!(names::parse(&object.name), Some(Name::Pack(_)));
            let is_segment = matches!(names::parse(&object.name), Some(Name::Segment(..)));
            let unseen = match damage {
                // Nothing follows on the newest manifest yet.
                Damage::Deleted if object.name == newest => true,
                // What it was called is known by its writer alone.
                Damage::Deleted if is_segment => report
                    .damaged
                    .iter()
                    .any(|d| d.object.starts_with("index/")),
                Damage::Flipped(_) if is_pack => !options.read_data,
                // A list of checksums has none of its own: its damage looks like that of what it lists.
                _ if object.name.ends_with("SUMS") => report
                    .damaged
                    .iter()
                    .any(|d| d.object.starts_with(names::TOOLS)),
                _ => false,
            };
            assert!(
                found || unseen,
                "{case} was not found: {:?}",
                report.damaged
            );
            let is_tool = object.name.starts_with(names::TOOLS);
            assert!(
                !found || report.damaged.len() == 1 || is_tool,
                "{case}: {:?}",
                report.damaged
            );
            if is_pack && !options.read_data {
                continue;
            }
            let mut truth = truth(&fixture, &right).await;
            truth.retain(|n, _| verdicts(&report).contains_key(n));
            assert_eq!(verdicts(&report), truth, "{case}: {:?}", report.points);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn structure_finds_every_damage_of_metadata_and_every_missing_pack() {
    every_damage_is_found(STRUCTURE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_the_data_finds_every_damage() {
    every_damage_is_found(DATA).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_that_does_not_give_its_chunk_is_found_with_the_data() {
    let fixture = Fixture::new().await;
    let (base, other) = (chunk(1), changed(&chunk(1), &[2], 9));
    let mut pack = fixture.pack();
    fixture.add_full(&mut pack, &base);
    let kind = vault_format::record::Kind::Patch {
        parent: fixture.id(&base),
        depth: 1,
    };
    let id = fixture.id(&chunk(5));
    let mut payload = vec![0; 4];
    payload[0] = 1;
    payload.extend_from_slice(&other[..4096]);
    fixture.add(&mut pack, id, kind, &payload);
    let pack = fixture.put_pack(pack).await;
    let layer = LayerRef::Inline(vec![chunks_at(0, &[id])]);
    fixture
        .publish(&with_disk(
            with_packs(fixture.manifest("web", 1), &[&pack]),
            "sda",
            SIZE,
            vec![layer],
        ))
        .await;
    assert!(run(&fixture, STRUCTURE).await.points[0].restorable);
    let report = run(&fixture, DATA).await;
    assert!(!report.points[0].restorable);
    assert!(
        report.points[0]
            .why
            .as_ref()
            .unwrap()
            .contains("does not have the chunk id"),
        "{:?}",
        report.points
    );
    assert_eq!(report.damaged[0].object, names::pack(&pack.name));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_chunk_that_a_newer_layer_covers_costs_nothing() {
    let fixture = history().await;
    let mut lone = fixture.pack();
    let id = fixture.add_full(&mut lone, &chunk(50));
    let lone = fixture.put_pack(lone).await;
    let under = fixture.put_layer(&[chunks_at(0, &[id])]).await;
    let over = LayerRef::Inline(vec![chunks_at(0, &[fixture.id(&chunk(1))])]);
    let manifest = with_packs(fixture.manifest("web", 4), &[&lone]);
    fixture
        .publish(&with_disk(manifest, "sda", SIZE, vec![over, under.clone()]))
        .await;
    fixture
        .publish(&with_disk(
            fixture.manifest("web", 5),
            "sda",
            SIZE,
            vec![under],
        ))
        .await;
    fixture.objects.delete(&names::pack(&lone.name));
    let report = run(&fixture, STRUCTURE).await;
    assert_eq!(
        verdicts(&report),
        BTreeMap::from([(1, true), (2, true), (3, true), (4, true), (5, false)])
    );
    let why = report.points[4].why.clone().unwrap();
    assert!(
        why.contains("disk sda, position 0") && why.contains(&id.to_string()),
        "{why}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_noted_once_in_the_control_log() {
    let fixture = history().await;
    let pack = fixture.objects.list("packs").await.unwrap().remove(0).name;
    fixture.objects.delete(&pack);
    let mut vault = fixture.vault().await;
    let report = verify(&vault, &STRUCTURE, &|_| {}).await.unwrap();
    let now = TIME.parse().unwrap();
    assert_eq!(log_damage(&mut vault, &report, now).await.unwrap(), 1);
    assert_eq!(vault.log.damaged.keys().collect::<Vec<_>>(), [&pack]);
    assert_eq!(log_damage(&mut vault, &report, now).await.unwrap(), 0);
    assert_eq!(fixture.vault().await.log, vault.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_nothing_names_and_a_stray_object_are_mentioned() {
    let fixture = history().await;
    let mut pack = fixture.pack();
    fixture.add_full(&mut pack, &chunk(80));
    fixture.put_pack(pack).await;
    fixture
        .objects
        .create("something/else", b"x"[..].into())
        .await
        .unwrap();
    let report = run(&fixture, DATA).await;
    assert_eq!((report.unreferenced_packs, report.damaged.len()), (1, 0));
    assert!(report.findings[0].contains("something/else"));
}
