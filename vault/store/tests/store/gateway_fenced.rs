//! A site that comes back after its VM was failed over: what it adds is kept, and nobody goes on from it.

use crate::site::*;
use jiff::Timestamp;
use vault_format::PointId;
use vault_format::control_log::LogEntry;
use vault_store::StoreError;
use vault_store::gateway::{Gateway, Hold, Kept, OnFenced};
use vault_store::read::PointSelector::{At, Latest, Sequence};
use vault_store::setup::append_to_log;

async fn command(site: &Site, entry: &LogEntry) -> u64 {
    let mut vault = site.vault().await;
    let (objects, control) = (vault.objects.clone(), &vault.keys.control);
    append_to_log(&*objects, &mut vault.log, control, entry, Timestamp::now())
        .await
        .unwrap()
}

/// As a failover does it.
async fn fence(site: &Site) -> u64 {
    let vault = site.vault().await;
    let newest = vault.find_point("vm", &Latest).await.unwrap();
    let facts = newest.manifest.facts;
    let last = [(facts.vm_id, facts.point.to_string())].into();
    let (vms, run) = (vec![facts.vm_id], Some("4f2a".to_owned()));
    command(site, &LogEntry::Fence { vms, run, last }).await
}

async fn unfence(site: &Site) -> u64 {
    let vms = vec![site.key().id_key.vm_id("vm")];
    command(site, &LogEntry::Unfence { vms }).await
}

async fn begin(gateway: &mut Gateway) {
    gateway.begin_cycle(&|_| {}).await.unwrap();
}

async fn wait(gateway: &mut Gateway, disk: &[u8], hold: Hold) -> Result<(), StoreError> {
    let captured = gateway.capture(capture("vm", disk), hold, &|_| {}, crash);
    captured.await.map(drop)
}

async fn send(gateway: &Gateway) -> Vec<PointId> {
    let sent = gateway.uploader().send_all().await.unwrap();
    sent.points.into_iter().map(|(_, point)| point).collect()
}

fn is_fenced(captured: Result<(), StoreError>) -> bool {
    match captured {
        Err(StoreError::Fenced { vm, by }) => {
            assert!(vm == "vm" && by.starts_with("run 4f2a at "), "{by}");
            true
        }
        _ => false,
    }
}

/// By sequence, what each point is diverged for.
async fn diverged(site: &Site) -> Vec<Option<u64>> {
    let list = site.vault().await.points().await.unwrap();
    assert!(list.damaged.is_empty() && list.untrusted.is_empty());
    list.points.iter().map(|point| point.diverged).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_site_adds_after_it_was_failed_over_is_kept_and_is_nobodys_latest() {
    let site = Site::new().await;
    let disks: Vec<Vec<u8>> = (0..6).map(|seed| disk(6, seed)).collect();
    let mut gateway = site.gateway();
    cycle(&mut gateway, "vm", &disks[0]).await.unwrap();
    let number = fence(&site).await;
    // It has not heard of it: one point is sent, one waits.
    wait(&mut gateway, &disks[1], Hold::Checkpoint)
        .await
        .unwrap();
    send(&gateway).await;
    assert_eq!(diverged(&site).await, [None, Some(number)]);
    wait(&mut gateway, &disks[2], Hold::Checkpoint)
        .await
        .unwrap();
    // It hears of it.
    begin(&mut gateway).await;
    let known = gateway.fence("vm").unwrap().unwrap();
    assert_eq!(
        (known.number, known.on_fenced, known.kept),
        (number, None, Kept::No)
    );
    assert!(is_fenced(
        wait(&mut gateway, &disks[3], Hold::Checkpoint).await
    ));
    let failed = OnFenced::Failed("no".into());
    gateway.note_on_fenced("vm", number, failed).unwrap();
    assert!(is_fenced(
        wait(&mut gateway, &disks[3], Hold::Checkpoint).await
    ));
    gateway
        .note_on_fenced("vm", number, OnFenced::Done)
        .unwrap();
    wait(&mut gateway, &disks[3], Hold::Checkpoint)
        .await
        .unwrap();
    assert_eq!(gateway.fence("vm").unwrap().unwrap().kept, Kept::Waits);
    assert!(
        is_fenced(wait(&mut gateway, &disks[4], Hold::Checkpoint).await),
        "once"
    );
    let sent = send(&gateway).await;
    assert_eq!(sent.len(), 2);
    let kept = Kept::Point(sent[1]);
    // Over a restart, and over a rebuild.
    drop(gateway);
    let mut gateway = site.gateway();
    for is_rebuilt in [false, true] {
        if is_rebuilt {
            gateway.rebuild(&|_| {}).await.unwrap();
        }
        let known = gateway.fence("vm").unwrap().unwrap();
        assert_eq!((known.on_fenced, known.kept), (Some(OnFenced::Done), kept));
        assert!(is_fenced(
            wait(&mut gateway, &disks[4], Hold::Checkpoint).await
        ));
        assert_eq!(gateway.status().unwrap()[0].point.sequence, 2);
    }
    let set_aside = Some(number);
    assert_eq!(
        diverged(&site).await,
        [None, set_aside, set_aside, set_aside]
    );
    for meant in [Latest, At(Timestamp::now())] {
        assert!(site.restore("vm", meant).await.unwrap() == disks[0]);
    }
    for (sequence, disk) in (1..).zip(&disks[..4]) {
        assert!(site.restore("vm", Sequence(sequence)).await.unwrap() == *disk);
    }
    // The failover is undone: the site is what goes on.
    unfence(&site).await;
    begin(&mut gateway).await;
    assert_eq!(gateway.fence("vm").unwrap(), None);
    assert!(site.restore("vm", Latest).await.unwrap() == disks[1]);
    cycle(&mut gateway, "vm", &disks[5]).await.unwrap();
    assert!(site.restore("vm", Latest).await.unwrap() == disks[5]);
    assert_eq!(
        diverged(&site).await,
        [None, None, set_aside, set_aside, None]
    );
    assert_eq!(gateway.status().unwrap()[0].point.sequence, 5);
    // Another fencing is another one.
    let again = fence(&site).await;
    begin(&mut gateway).await;
    let known = gateway.fence("vm").unwrap().unwrap();
    assert_eq!(
        (known.number, known.on_fenced, known.kept),
        (again, None, Kept::No)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_lost_finds_in_the_vault_what_was_kept() {
    let site = Site::new().await;
    let (before, after) = (disk(3, 1), disk(3, 2));
    let mut gateway = site.gateway();
    cycle(&mut gateway, "vm", &before).await.unwrap();
    let number = fence(&site).await;
    begin(&mut gateway).await;
    gateway
        .note_on_fenced("vm", number, OnFenced::Nothing)
        .unwrap();
    wait(&mut gateway, &after, Hold::Checkpoint).await.unwrap();
    let kept = send(&gateway).await;
    let status = gateway.status().unwrap();
    assert_eq!(
        status[0].point.sequence, 1,
        "what people are told is restored"
    );
    drop(gateway);
    std::fs::remove_dir_all(site.state_folder()).unwrap();
    let mut gateway = site.gateway();
    begin(&mut gateway).await;
    let known = gateway.fence("vm").unwrap().unwrap();
    assert_eq!((known.on_fenced, known.kept), (None, Kept::Point(kept[0])));
    gateway
        .note_on_fenced("vm", number, OnFenced::Done)
        .unwrap();
    assert!(is_fenced(
        wait(&mut gateway, &before, Hold::Checkpoint).await
    ));
    assert_eq!(gateway.status().unwrap(), status);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_sent_also_after_the_fence_is_gone_and_replaced_by_nothing() {
    let site = Site::new().await;
    let disks: Vec<Vec<u8>> = (0..3).map(|seed| disk(4, seed)).collect();
    let mut gateway = site.gateway();
    cycle(&mut gateway, "vm", &disks[0]).await.unwrap();
    let number = fence(&site).await;
    begin(&mut gateway).await;
    gateway
        .note_on_fenced("vm", number, OnFenced::Done)
        .unwrap();
    wait(&mut gateway, &disks[1], Hold::Checkpoint)
        .await
        .unwrap();
    unfence(&site).await;
    begin(&mut gateway).await;
    // A full outbox: this one would replace what waits.
    wait(&mut gateway, &disks[2], Hold::Superseding)
        .await
        .unwrap();
    assert_eq!(send(&gateway).await.len(), 2);
    assert_eq!(diverged(&site).await, [None, Some(number), None]);
    assert!(site.restore("vm", Sequence(2)).await.unwrap() == disks[1]);
    assert!(site.restore("vm", Latest).await.unwrap() == disks[2]);
}
