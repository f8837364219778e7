//! The gateway's promises, one by one: what a cycle costs, what is a patch, who may write.

use crate::site::*;
use vault_format::{PointId, names};
use vault_store::StoreError;
use vault_store::read::{PointSelector, VerifyOptions, verify};

#[tokio::test(flavor = "multi_thread")]
async fn a_cycle_without_changes_costs_one_get_and_one_put_a_vm() {
    let site = Site::new().await;
    let disks: Vec<Vec<u8>> = (0..3).map(|seed| disk(6, seed)).collect();
    for (vm, disk) in ["a", "b", "c"].iter().zip(&disks) {
        site.sync(vm, disk).await.unwrap();
    }
    let before = site.meter.snapshot();
    let mut gateway = site.gateway();
    gateway.begin_cycle(&|_| {}).await.unwrap();
    for (vm, disk) in ["a", "b", "c"].iter().zip(&disks) {
        let report = gateway
            .sync_vm(capture(vm, disk), &|_| {}, crash)
            .await
            .unwrap();
        assert_eq!((report.changed_bytes, report.stored_bytes), (0, 0));
    }
    let used = site.meter.snapshot() - before;
    assert_eq!((used.put, used.get, used.head, used.list), (3, 1, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cycle_with_changes_costs_one_put_and_its_packs() {
    let site = Site::new().await;
    let mut disk = disk(12, 1);
    site.sync("vm", &disk).await.unwrap();
    let before = site.meter.snapshot();
    Dice(5).fill(&mut disk[CHUNK + 10..CHUNK + 50]);
    let report = site.sync("vm", &disk).await.unwrap();
    let used = site.meter.snapshot() - before;
    assert_eq!(
        (used.put, used.get, used.head, used.list),
        (2, 1, 0, 0),
        "{report:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_change_is_sent_as_the_blocks_that_changed() {
    let site = Site::new().await;
    let mut disk = vec![0; 8 * CHUNK];
    Dice(1).fill(&mut disk);
    site.sync("vm", &disk).await.unwrap();
    Dice(2).fill(&mut disk[3 * CHUNK + BLOCK..3 * CHUNK + 3 * BLOCK]);
    let before = site.meter.snapshot();
    let report = site.sync("vm", &disk).await.unwrap();
    assert_eq!((report.chunks_patched, report.chunks_full), (1, 0));
    assert_eq!(report.changed_bytes, 2 * BLOCK as u64);
    let sent = (site.meter.snapshot() - before).bytes_sent;
    assert!(
        sent < 2 * BLOCK as u64 + 2500,
        "{sent} bytes for two blocks"
    );
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_chains_are_bounded_and_every_point_of_them_restores() {
    let site = Site::new().await;
    let mut disk = vec![0; 2 * CHUNK];
    Dice(1).fill(&mut disk);
    let mut versions = Vec::new();
    for round in 0..80 {
        let block = Dice(round).roll(16);
        Dice(round + 1000).fill(&mut disk[block * BLOCK..block * BLOCK + 100]);
        site.sync("vm", &disk).await.unwrap();
        versions.push(disk.clone());
    }
    for (at, version) in versions.iter().enumerate().step_by(7) {
        let restored = site
            .restore("vm", PointSelector::Sequence(at as u64 + 1))
            .await
            .unwrap();
        assert!(restored == *version, "point {}", at + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_state_costs_no_chunk_twice() {
    let site = Site::new().await;
    let mut disk = disk(20, 3);
    site.sync("vm", &disk).await.unwrap();
    std::fs::remove_dir_all(site.state_folder()).unwrap();
    let report = site.sync("vm", &disk).await.unwrap();
    assert_eq!(
        (report.chunks_full, report.chunks_patched),
        (0, 0),
        "all of it was in the vault"
    );
    assert_eq!(report.point.unwrap().sequence, 2, "the numbers go on");
    std::fs::remove_dir_all(site.state_folder()).unwrap();
    Dice(9).fill(&mut disk[..BLOCK]);
    let report = site.sync("vm", &disk).await.unwrap();
    assert_eq!(
        (report.chunks_full, report.chunks_patched),
        (1, 0),
        "without block values, full"
    );
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_set_back_to_an_older_copy_of_its_disk_is_told_and_goes_on_rightly() {
    let site = Site::new().await;
    let mut disk = disk(10, 4);
    site.sync("vm", &disk).await.unwrap();
    let old = site.folder.join("old");
    copy_folder(&site.state_folder(), &old);
    Dice(1).fill(&mut disk[..BLOCK]);
    site.sync("vm", &disk).await.unwrap();
    std::fs::remove_dir_all(site.state_folder()).unwrap();
    copy_folder(&old, &site.state_folder());
    Dice(2).fill(&mut disk[5 * CHUNK..5 * CHUNK + BLOCK]);
    let error = site.sync("vm", &disk).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    let report = site.sync("vm", &disk).await.unwrap();
    assert_eq!(report.point.unwrap().sequence, 3);
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_clones_one_is_refused_loudly() {
    let site = Site::new().await;
    let mut disk = disk(10, 4);
    site.sync("vm", &disk).await.unwrap();
    let clone = site.folder.join("clone");
    copy_folder(&site.state_folder(), &clone);
    Dice(1).fill(&mut disk[..BLOCK]);
    site.sync("vm", &disk).await.unwrap();
    let mut other = disk.clone();
    Dice(2).fill(&mut other[..BLOCK]);
    {
        let mut cloned = site.gateway_at(&clone, site.objects.clone());
        let error = cycle(&mut cloned, "vm", &other).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
        cycle(&mut cloned, "vm", &other).await.unwrap();
    }
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == other);
    let error = site.sync("vm", &disk).await.unwrap_err();
    assert!(matches!(error, StoreError::TakenOver { .. }), "{error}");
    assert!(
        site.restore("vm", PointSelector::Latest).await.unwrap() == other,
        "nothing was added"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_gateway_with_an_issued_key_takes_a_vm_over_and_sends_only_changes() {
    let site = Site::new().await;
    let mut disk = disk(20, 5);
    site.sync("vm", &disk).await.unwrap();
    let mut second = site.second_gateway().await;
    Dice(6).fill(&mut disk[2 * CHUNK..2 * CHUNK + BLOCK]);
    let (start, report) = cycle(&mut second, "vm", &disk).await.unwrap();
    assert!(start.rebuilt.is_some());
    assert_eq!(report.chunks_full, 1);
    assert_eq!(report.point.unwrap().sequence, 2);
    assert!(
        matches!(report.findings.as_slice(), [taken] if taken.contains("gateway first (writer")),
        "{report:?}"
    );
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == disk);

    // The first one is not gone: it stops, and only for this VM, and says who has it.
    let error = site.sync("vm", &disk).await.unwrap_err();
    assert!(matches!(error, StoreError::TakenVm { .. }), "{error}");
    assert!(
        error.to_string().contains("gateway second (writer"),
        "{error}"
    );
    site.sync("other", &disk).await.unwrap();
    let (_, report) = cycle(&mut second, "vm", &disk).await.unwrap();
    assert_eq!(
        (report.point.unwrap().sequence, report.findings.len()),
        (3, 0)
    );

    // Told so by a person, it takes the VM back; and now the second one stops.
    {
        let mut first = site.gateway();
        first.rebuild(&|_| {}).await.unwrap();
    }
    Dice(7).fill(&mut disk[..BLOCK]);
    let report = site.sync("vm", &disk).await.unwrap();
    assert_eq!(
        (report.point.unwrap().sequence, report.findings.len()),
        (4, 1)
    );
    let error = cycle(&mut second, "vm", &disk).await.unwrap_err();
    assert!(matches!(error, StoreError::TakenVm { .. }), "{error}");
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_comes_back_to_its_gateway_when_the_taker_is_revoked() {
    let site = Site::new().await;
    let mut disk = disk(6, 9);
    site.sync("vm", &disk).await.unwrap();
    let mut second = site.second_gateway().await;
    let (writer, vm_id) = (second.key().writer.id, second.key().id_key.vm_id("vm"));
    let (_, report) = cycle(&mut second, "vm", &disk).await.unwrap();
    let trusted = std::collections::BTreeMap::from([(vm_id, report.point.unwrap())]);
    let mut vault = site.vault().await;
    vault_store::setup::revoke_key(&mut vault, writer, trusted, jiff::Timestamp::now())
        .await
        .unwrap();
    Dice(1).fill(&mut disk[..BLOCK]);
    site.sync("vm", &disk).await.unwrap();
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_gateway_is_refused_and_its_later_points_are_not_trusted() {
    let site = Site::new().await;
    let first = disk(6, 6);
    site.sync("vm", &first).await.unwrap();
    let mut vault = site.vault().await;
    let point = vault
        .find_point("vm", &PointSelector::Latest)
        .await
        .unwrap();
    let trusted = std::collections::BTreeMap::from([(
        point.manifest.facts.vm_id,
        point.manifest.facts.point,
    )]);
    // A thief's gateway is at work while the key is revoked.
    let mut thief = site.gateway();
    thief.begin_cycle(&|_| {}).await.unwrap();
    vault_store::setup::revoke_key(&mut vault, point.writer, trusted, jiff::Timestamp::now())
        .await
        .unwrap();
    thief
        .sync_vm(capture("vm", &disk(6, 7)), &|_| {}, crash)
        .await
        .unwrap();
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == first);
    drop(thief);
    let error = site.sync("vm", &first).await.unwrap_err();
    assert!(matches!(error, StoreError::Revoked { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_grows_shrinks_comes_and_goes_is_right_in_every_point() {
    let site = Site::new().await;
    let mut versions = Vec::new();
    for (round, length) in [
        7 * CHUNK + 5000,
        9 * CHUNK + 100,
        3 * CHUNK + 512,
        3 * CHUNK + 4096,
        12 * CHUNK,
    ]
    .iter()
    .enumerate()
    {
        let mut disk = disk(13, round as u64);
        disk.truncate(*length);
        site.sync("vm", &disk).await.unwrap();
        versions.push(disk);
    }
    for (at, version) in versions.iter().enumerate() {
        assert!(
            site.restore("vm", PointSelector::Sequence(at as u64 + 1))
                .await
                .unwrap()
                == *version,
            "point {}",
            at + 1
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_was_excluded_for_a_while_comes_back_whole() {
    let site = Site::new().await;
    let mut disk = disk(10, 8);
    let mut excluded = capture("vm", &disk);
    excluded.disks[0].source = None;
    site.sync("vm", &disk).await.unwrap();
    let mut gateway = site.gateway();
    gateway.begin_cycle(&|_| {}).await.unwrap();
    gateway.sync_vm(excluded, &|_| {}, crash).await.unwrap();
    drop(gateway);
    let empty = site.restore("vm", PointSelector::Latest).await.unwrap();
    assert!(empty.iter().all(|byte| *byte == 0));
    Dice(1).fill(&mut disk[..BLOCK]);
    site.sync("vm", &disk).await.unwrap();
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == disk);
    assert!(
        site.restore("vm", PointSelector::Sequence(2))
            .await
            .unwrap()
            == empty
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_layer_of_an_unchanged_disk_heals_under_another_name() {
    let site = Site::new().await;
    let disk = vec![7; 2200 * CHUNK];
    site.sync("vm", &disk).await.unwrap();
    let writer = std::fs::read_dir(site.vault_folder().join("maps"))
        .unwrap()
        .next()
        .unwrap();
    let layer = std::fs::read_dir(writer.unwrap().path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let bytes = std::fs::read(&layer).unwrap();
    std::fs::write(&layer, &bytes[..bytes.len() / 2]).unwrap();
    let mut vault = site.vault().await;
    let options = vault_store::read::VerifyOptions { read_data: false };
    let report = vault_store::read::verify(&vault, &options, &|_| {})
        .await
        .unwrap();
    let now = jiff::Timestamp::now();
    assert_eq!(
        vault_store::read::log_damage(&mut vault, &report, now)
            .await
            .unwrap(),
        1
    );
    site.sync("vm", &disk).await.unwrap();
    assert!(site.restore("vm", PointSelector::Latest).await.unwrap() == disk);
}

#[tokio::test(flavor = "multi_thread")]
async fn hiding_a_vms_newest_points_shows_in_what_the_other_vms_say() {
    let site = Site::new().await;
    for (vm, seed) in [("a", 1), ("b", 2), ("b", 3), ("a", 4)] {
        site.sync(vm, &disk(3, seed)).await.unwrap();
    }
    let newest = names::point(
        &site.key().id_key.vm_id("b"),
        PointId {
            epoch: 2,
            sequence: 2,
        },
    );
    let named = async || {
        let vault = site.vault().await;
        let points = vault.points().await.unwrap();
        let report = verify(&vault, &VerifyOptions::default(), &|_| {})
            .await
            .unwrap();
        let by_verify = report.damaged.into_iter().map(|d| (d.object, d.why));
        [points.damaged, by_verify.collect()]
    };
    assert_eq!(named().await, [vec![], vec![]], "nothing is hidden yet");
    let path = site.vault_folder().join(&newest);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    for found in named().await {
        let [(object, why)] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!(*object, newest);
        assert!(why.starts_with("it is missing"), "{why}");
    }
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(named().await, [vec![], vec![]]);
}
