//! Points that wait: the uplink is down, slow or dies; they arrive in order, each what its disk was, or are replaced.

use crate::outbox_model::*;
use crate::site::*;
use std::time::Duration;
use vault_store::StoreError;
use vault_store::gateway::{Hold, PassEnd};
use vault_store::read::PointSelector;

#[tokio::test(flavor = "multi_thread")]
async fn every_point_that_arrives_is_what_the_disk_was() {
    let (mut superseded, mut lost, mut deaths, mut published) = (0, 0, 0, 0);
    for seed in 0..12 {
        let mut model = Model::new(seed * 100).await;
        for _ in 0..60 {
            model.step().await;
        }
        model.check().await;
        superseded += model.superseded;
        lost += model.lost;
        deaths += model.deaths;
        published += model.published;
    }
    println!("{superseded} superseded, {lost} lost, {deaths} deaths, {published} published");
    assert!(superseded > 20 && lost > 3 && deaths > 10 && published > 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn capturing_and_sending_at_once_do_not_disturb_each_other() {
    for seed in 0..10 {
        let mut model = Model::new(1000 + seed).await;
        let uploader = model.gateway().uploader();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let sending = tokio::spawn(async move {
            let mut stopped = stopped;
            let mut points = 0;
            while stopped.try_recv().is_err() {
                points += uploader.send_all().await.unwrap().points.len();
                tokio::task::yield_now().await;
            }
            points
        });
        for round in 0..40 {
            let vm = model.dice.roll(2);
            model.disks[vm].write_random(&mut model.dice, 12);
            let mut checkpoint = model.checkpoint(vm);
            let hold = [Hold::Checkpoint, Hold::Superseding][round % 2];
            if round % 3 == 0 {
                model.pass(vm, &checkpoint, hold).await;
                checkpoint = checkpoint.after_pass();
            }
            let capture = checkpoint.capture(VMS[vm], NOW);
            let captured = model.gateway().capture(capture, hold, &|_| {}, crash);
            captured.await.unwrap();
            let bytes = checkpoint.frozen.bytes.clone();
            model.captured.insert(checkpoint.id, bytes);
        }
        let _ = stop.send(());
        let sent = sending.await.unwrap();
        model.gateway().uploader().send_all().await.unwrap();
        model.waiting = Default::default();
        model.check().await;
        println!("{sent} points were sent meanwhile");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superseding_point_costs_one_patch_over_the_version_that_arrived() {
    let mut model = Model::new(77).await;
    // A full table: every position has a chunk.
    let mut table = vec![0; 20 * CHUNK];
    model.dice.fill(&mut table);
    model.disks[0].write(0, &table);
    model.capture(0, Hold::Checkpoint).await;
    model.begin().await;
    model.send_all().await;
    let mut queued = 0;
    let changed = [3, 5, 9, 14, 17];
    for round in 0..10 {
        for position in changed {
            let block = [(round as u8) + 1; BLOCK];
            model.disks[0].write(position * CHUNK + (round % 3) * BLOCK, &block);
        }
        model.capture(0, Hold::Checkpoint).await;
        queued = model.gateway().outbox_use().unwrap().used_bytes;
    }
    let checkpoint = model.checkpoint(0);
    let capture = checkpoint.capture(VMS[0], NOW);
    let captured = model
        .gateway()
        .capture(capture, Hold::Superseding, &|_| {}, crash);
    let report = captured.await.unwrap();
    assert_eq!(
        (report.superseded, report.chunks_patched, report.chunks_full),
        (10, 5, 0)
    );
    assert_eq!(
        report.read_bytes,
        (changed.len() * 3 * BLOCK) as u64,
        "{report:?}"
    );
    let left = model.gateway().outbox_use().unwrap();
    assert!(left.used_bytes < queued / 3, "{left:?} of {queued}");
    assert_eq!(left.vms[VMS[0]].points, 1);
    model
        .captured
        .insert(checkpoint.id, checkpoint.frozen.bytes.clone());
    model.waiting[0] = vec![checkpoint.id];
    model.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_that_is_full_fails_the_capture_and_loses_nothing() {
    let mut model = Model::with_outbox(78, 300_000).await;
    model.fill_disk(0);
    let checkpoint = model.checkpoint(0);
    let capture = checkpoint.capture(VMS[0], NOW);
    let captured = model
        .gateway()
        .capture(capture, Hold::Checkpoint, &|_| {}, crash);
    let error = captured.await.unwrap_err().to_string();
    assert!(error.contains("outbox is full"), "{error}");
    assert!(model.used_bytes() <= 300_000);
    // What was captured of it is not captured again, and makes room.
    model.begin().await;
    model.gateway().uploader().send_all().await.unwrap();
    assert_eq!(model.used_bytes(), 0);
    model.capture(0, Hold::Checkpoint).await;
    model.check().await;
}

/// How much a pass brings is not known before: it ends where the points of others could not be replaced any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_pass_leaves_room_for_the_others() {
    let mut model = Model::with_outbox(81, 1_200_000).await;
    model.fill_disk(0);
    let checkpoint = model.checkpoint(0);
    let far = std::time::Instant::now() + Duration::from_secs(9);
    let (mut ends, mut sent) = (Vec::new(), 0);
    // It goes on over the uplink.
    for hold in [Hold::Checkpoint, Hold::Nothing] {
        let vm = checkpoint.capture(VMS[0], NOW);
        let pass = model.gateway().pass(vm, (hold, far), &|_| {});
        let (report, end) = pass.await.unwrap();
        sent += report.stored_bytes;
        ends.push(end);
        let used = model.used_bytes();
        assert!((500_000..=600_000).contains(&used), "{used}");
    }
    let most_bytes = 1_200_000;
    assert_eq!(ends, [PassEnd::NoRoom { most_bytes }, PassEnd::Whole]);
    let last = checkpoint.after_pass();
    model.capture_checkpoint(0, last, Hold::Checkpoint).await;
    model.check().await;
    let vault = model.site.vault().await;
    let point = vault.find_point(VMS[0], &PointSelector::Latest);
    let bytes = point.await.unwrap().manifest.facts.bytes;
    assert_eq!(bytes.sent, sent, "what the first pass cost too");
}

/// It uses the room that is kept for replacing points: where that is too little, it is free again.
#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_that_does_not_fit_leaves_the_outbox_as_it_was() {
    let mut model = Model::with_outbox(82, 1_200_000).await;
    model.disks[0].write(0, &[1; 2 * CHUNK]);
    model.capture(0, Hold::Checkpoint).await;
    let before = model.gateway().outbox_use().unwrap();
    model.fill_disk(0);
    for is_pass in [false, true] {
        let checkpoint = model.checkpoint(0);
        let vm = checkpoint.capture(VMS[0], NOW);
        let far = std::time::Instant::now() + Duration::from_secs(9);
        let gateway = model.gateway();
        if is_pass {
            let pass = gateway.pass(vm, (Hold::Superseding, far), &|_| {});
            let most_bytes = 1_200_000;
            assert_eq!(pass.await.unwrap().1, PassEnd::NoRoom { most_bytes });
        } else {
            let captured = gateway.capture(vm, Hold::Superseding, &|_| {}, crash);
            captured.await.unwrap_err();
        }
        assert_eq!(gateway.outbox_use().unwrap(), before);
    }
    model.begin().await;
    model.capture(0, Hold::Nothing).await;
    model.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superseding_point_of_the_same_changes_keeps_its_packs() {
    let mut model = Model::new(79).await;
    model.capture(0, Hold::Checkpoint).await;
    model.begin().await;
    model.send_all().await;
    model.disks[0].write(3 * CHUNK, &[5; BLOCK]);
    model.capture(0, Hold::Checkpoint).await;
    // The same records by the same data key: packs of the same names.
    model.capture(0, Hold::Superseding).await;
    model.send_all().await;
    model.check().await;
    assert_eq!(model.lost, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_a_waiting_point_lacks_comes_back_whole() {
    let mut model = Model::new(80).await;
    model.capture(0, Hold::Checkpoint).await;
    model.begin().await;
    model.send_all().await;
    let checkpoint = model.checkpoint(0);
    let mut without = checkpoint.capture(VMS[0], NOW);
    without.disks[0].name = "renamed".into();
    let captured = model
        .gateway()
        .capture(without, Hold::Checkpoint, &|_| {}, crash);
    captured.await.unwrap();
    let checkpoint = model.checkpoint(0);
    let with = checkpoint.capture(VMS[0], NOW);
    let captured = model
        .gateway()
        .capture(with, Hold::Checkpoint, &|_| {}, crash);
    assert_eq!(captured.await.unwrap().compared.len(), 1);
    model.gateway().uploader().send_all().await.unwrap();
    let restored = model.site.restore(VMS[0], PointSelector::Latest).await;
    assert!(restored.unwrap() == checkpoint.frozen.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_of_a_vm_that_another_gateway_has_taken_holds_up_no_other() {
    let mut model = Model::new(91).await;
    for vm in [0, 1] {
        model.capture(vm, Hold::Checkpoint).await;
    }
    model.send_all().await;
    for vm in [0, 1] {
        model.disks[vm].write(2 * CHUNK, &[7; BLOCK]);
        model.capture(vm, Hold::Checkpoint).await;
    }
    let mut second = model.site.second_gateway().await;
    second.begin_cycle(&|_| {}).await.unwrap();
    let taken = model.disks[0].bytes.clone();
    cycle(&mut second, VMS[0], &taken).await.unwrap();
    model.gateway().begin_cycle(&|_| {}).await.unwrap();
    let usage = model.gateway().outbox_use().unwrap();
    assert_eq!((usage.vms[VMS[0]].points, usage.vms[VMS[0]].held), (0, 1));
    assert_eq!((usage.vms[VMS[1]].points, usage.vms[VMS[1]].held), (1, 0));
    let uploader = model.gateway().uploader();
    let sent = uploader.send_all().await.unwrap();
    assert_eq!(sent.points.len(), 1, "{sent:?}");
    assert_eq!(sent.points[0].0, VMS[1]);
    let refused = uploader.send_vm(VMS[0]).await.unwrap_err();
    assert!(matches!(refused, StoreError::TakenVm { .. }), "{refused}");
    // Nothing is left that could be sent: a daemon has nothing to try.
    let usage = model.gateway().outbox_use().unwrap();
    assert!(usage.vms.values().all(|vm| vm.points == 0), "{usage:?}");
}
