//! Opening a vault and finding its recovery points.

use crate::read_fixture::*;
use std::collections::BTreeMap;
use vault_format::control_log::LogEntry;
use vault_format::{PointId, VmId, names};
use vault_store::StoreError;
use vault_store::read::PointSelector;

async fn three_points() -> (Fixture, Vec<String>) {
    let fixture = Fixture::new().await;
    let mut names = Vec::new();
    for sequence in 1..=3 {
        names.push(fixture.publish(&fixture.manifest("web", sequence)).await);
    }
    fixture.publish(&fixture.manifest("db", 1)).await;
    (fixture, names)
}

fn fence(vm: VmId) -> LogEntry {
    LogEntry::Fence {
        vms: vec![vm],
        run: None,
        last: BTreeMap::new(),
    }
}

fn select(text: &str) -> PointSelector {
    text.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn points_are_listed_by_vm_and_order() {
    let (fixture, _) = three_points().await;
    let vault = fixture.vault().await;
    assert_eq!(vault.findings, Vec::<String>::new());
    let list = vault.points().await.unwrap();
    let seen: Vec<_> = list
        .points
        .iter()
        .map(|p| {
            (
                p.manifest.facts.vm.as_str(),
                p.manifest.facts.point.sequence,
            )
        })
        .collect();
    assert_eq!(seen, [("db", 1), ("web", 1), ("web", 2), ("web", 3)]);
    assert!(list.damaged.is_empty() && list.untrusted.is_empty());
    assert_eq!(vault.points_of("web").await.unwrap().points.len(), 3);
    assert_eq!(vault.points_of("none").await.unwrap().points.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_is_found_by_selector() {
    let (fixture, _) = three_points().await;
    let vault = fixture.vault().await;
    for (text, sequence) in [
        ("latest", 3),
        ("2", 2),
        ("2026-01-02T12:00:00Z", 2),
        ("2026-01-02T11:59:59Z", 1),
        ("2026-01-02", 2),
        ("2027-01-01", 3),
    ] {
        let point = vault.find_point("web", &select(text)).await.unwrap();
        assert_eq!(point.manifest.facts.point.sequence, sequence, "{text}");
        assert!(point.findings.is_empty());
    }
    for text in ["4", "2025-12-31"] {
        let error = vault.find_point("web", &select(text)).await.unwrap_err();
        assert!(matches!(error, StoreError::NoSuchPoint { .. }));
        assert!(
            error.to_string().contains("3 recovery points, 1 to 3"),
            "{error}"
        );
    }
    let error = vault
        .find_point("mail", &PointSelector::Latest)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("db, web"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_epoch_comes_before_the_sequence() {
    let (fixture, _) = three_points().await;
    let mut manifest = fixture.manifest("web", 2);
    manifest.facts.point = PointId {
        epoch: 5,
        sequence: 2,
    };
    fixture.publish(&manifest).await;
    let vault = fixture.vault().await;
    let point = vault
        .find_point("web", &PointSelector::Latest)
        .await
        .unwrap();
    assert_eq!(point.manifest.facts.point, manifest.facts.point);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_newest_point_is_passed_over_and_says_so() {
    let (fixture, names) = three_points().await;
    fixture.flip(&names[2], 150).await;
    let vault = fixture.vault().await;
    let point = vault
        .find_point("web", &PointSelector::Latest)
        .await
        .unwrap();
    assert_eq!(point.manifest.facts.point.sequence, 2);
    assert!(
        point.findings[0].contains(&names[2]),
        "{:?}",
        point.findings
    );
    let list = vault.points_of("web").await.unwrap();
    assert_eq!(
        (list.points.len(), list.damaged[0].0.as_str()),
        (2, names[2].as_str())
    );
    assert!(
        vault
            .find_point("web", &select("3"))
            .await
            .unwrap_err()
            .to_string()
            .contains("damaged")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_under_another_name_is_damage() {
    let (fixture, names) = three_points().await;
    fixture
        .objects
        .put(&names[2], fixture.bytes(&names[1]).await);
    let list = fixture.vault().await.points().await.unwrap();
    assert_eq!(list.damaged[0].0, names[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_whose_vm_name_is_not_that_of_its_object_is_damage() {
    let (fixture, _) = three_points().await;
    let mut manifest = fixture.manifest("web", 4);
    manifest.facts.vm = "db".into();
    let name = fixture.publish(&manifest).await;
    assert_eq!(
        fixture.vault().await.points().await.unwrap().damaged[0].0,
        name
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn later_points_of_a_revoked_writer_are_not_trusted() {
    let (mut fixture, names) = three_points().await;
    let last = PointId {
        epoch: 1,
        sequence: 2,
    };
    let trusted = BTreeMap::from([(fixture.id_key.vm_id("web"), last.to_string())]);
    fixture
        .command(LogEntry::Revoke {
            writer: fixture.writer.id,
            trusted,
        })
        .await;
    let vault = fixture.vault().await;
    let list = vault.points().await.unwrap();
    assert_eq!((list.points.len(), list.untrusted.len()), (2, 2));
    let point = vault
        .find_point("web", &PointSelector::Latest)
        .await
        .unwrap();
    assert_eq!(point.manifest.facts.point, last);
    assert!(point.findings[0].contains(&names[2]) && point.findings[0].contains("not trusted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_without_a_certificate_writes_nothing_that_counts() {
    let (fixture, _) = three_points().await;
    let mut stranger = writer(&fixture.config, 77);
    stranger.certificate.signature[3] ^= 1;
    let name = fixture
        .publish_as(&fixture.manifest("web", 4), &stranger)
        .await;
    let list = fixture.vault().await.points().await.unwrap();
    assert_eq!((list.points.len(), list.damaged[0].0.clone()), (4, name));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_log_entry_is_passed_over_and_what_follows_holds() {
    let (mut fixture, _) = three_points().await;
    let vm = fixture.id_key.vm_id("web");
    fixture
        .command(LogEntry::Damage {
            objects: vec!["packs/x".into()],
        })
        .await;
    fixture.command(fence(vm)).await;
    fixture.objects.delete(&names::log(2));
    let vault = fixture.vault().await;
    assert_eq!(vault.log.number, 3);
    assert!(vault.log.fence(&vm).is_some() && vault.log.damaged.is_empty());
    assert!(
        vault.findings[0].contains(&names::log(2)),
        "{:?}",
        vault.findings
    );
    fixture.objects.restore_all();
    fixture.flip(&names::log(2), 40).await;
    let vault = fixture.vault().await;
    assert_eq!((vault.log.number, vault.findings.len()), (3, 1));
    assert!(vault.log.fence(&vm).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kit_stands_in_for_a_lost_configuration() {
    let (fixture, _) = three_points().await;
    fixture.objects.delete(&names::vault(1));
    let vault = fixture.vault().await;
    assert!(vault.findings[0].contains("recovery kit"));
    assert_eq!(vault.points().await.unwrap().points.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_point_by_a_gateway_that_knew_of_the_fence_is_meant_by_its_number_only() {
    let (mut fixture, _) = three_points().await;
    let vm = fixture.id_key.vm_id("web");
    let before = fixture.log.number;
    fixture.command(fence(vm)).await;
    let number = fixture.log.number;
    // The fence says nothing of the newest point: what does not say that it knew counts as before it.
    for (sequence, log) in [(4, before), (5, number)] {
        let mut manifest = fixture.manifest("web", sequence);
        manifest.facts.log = log;
        fixture.publish(&manifest).await;
    }
    let vault = fixture.vault().await;
    for text in ["latest", "2026-01-09"] {
        let point = vault.find_point("web", &select(text)).await.unwrap();
        assert_eq!(
            (point.manifest.facts.point.sequence, point.diverged),
            (4, None)
        );
    }
    let point = vault.find_point("web", &select("5")).await.unwrap();
    assert_eq!((point.diverged, point.findings.len()), (Some(number), 0));
}
