//! A disk of the recovery point becomes the cloud's snapshot.

use std::sync::Arc;
use std::time::Duration;

use recovery_cloud::aws::{FillError, Mark, SNAPSHOT_FAILED, SnapshotRequest};
use recovery_cloud::{CloudError, Kind};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use vault_store::read::DiskImage;

use super::{Context, StepError, Words, write_down};
use crate::failover::blocks::VaultBlocks;
use crate::failover::world::DISK_TAG;
use crate::failure::attempting;
use crate::served::VaultSource;

/// How much is sent twice after a kill: of 500 MiB/s, 7 GiB.
const NOTED_EVERY: Duration = Duration::from_secs(15);
/// For one of which it is not known whether it was completed.
const COMPLETING: Duration = Duration::from_secs(120);
/// EBS puts a completed snapshot together within minutes.
const COMPLETED: Duration = Duration::from_secs(3600);
/// Noted when every block is there and the cloud was told so: what the checksum over all came to.
const COMPLETE: &str = "complete";

pub async fn fill(mut context: Context, vm: &str, disk: &str) -> Result<Words, StepError> {
    let world = context.world.clone();
    let point = world.point(vm)?;
    let shown = format!("disk {disk} of {}", world.shown(vm));
    let image = DiskImage::open(&world.open.vault, point, disk)
        .await
        .map_err(attempting(format!("cannot open {shown}")))?;
    let blocks = Arc::new(VaultBlocks::new(VaultSource(image)));
    let mut generation = generation(&context);
    let mut resumed = Mark::from_words(&context.notes);
    let bar = world.bar(vm);
    let mark = loop {
        if let Some(mark) = resumed
            .as_ref()
            .filter(|_| context.notes.contains_key(COMPLETE))
        {
            break mark.clone();
        }
        let is_resumed = resumed.is_some();
        let mark = match resumed.take() {
            Some(mark) => mark,
            None => {
                let request = request(&context, vm, disk, &shown, generation)?;
                world.aws.start_snapshot(&request).await?
            }
        };
        note_mark(&mut context, &mark, generation).await?;
        let begun_at = mark.next;
        let (marks, seen) = watch::channel(mark);
        let filling = world
            .aws
            .fill_snapshot(blocks.clone(), &marks, |bytes| bar.add(bytes));
        let noting = note_now_and_then(&context, seen, generation);
        let filled = tokio::select! {
            filled = filling => filled,
            failed = noting => return Err(failed),
        };
        let mark = marks.borrow().clone();
        match filled {
            Ok(()) => {
                // So that nobody sends blocks to a snapshot that was completed.
                note_mark(&mut context, &mark, generation).await?;
                let sum = complete(&context, &mark).await?;
                context.note([(COMPLETE, sum.to_owned())]).await?;
                break mark;
            }
            // The cloud gave up a snapshot of which it heard nothing for long.
            Err(FillError::Cloud(error))
                if is_resumed && is_gone(&error) && mark.next == begun_at =>
            {
                generation += 1;
                context.notes.clear();
                context
                    .note([("generation", generation.to_string())])
                    .await?;
            }
            Err(error) => return Err(error.into()),
        }
    };
    let snapshot = std::slice::from_ref(&mark.snapshot);
    if let Err(error) = world.aws.wait_for_snapshots(snapshot, COMPLETED).await {
        // Only where this one never will be: the next attempt makes another.
        if error.code == SNAPSHOT_FAILED || error.kind == Kind::NotFound {
            context.notes.clear();
            context
                .note([("generation", (generation + 1).to_string())])
                .await?;
        }
        return Err(error.into());
    }
    let sum = context.notes.get(COMPLETE).cloned().unwrap_or_default();
    Ok(Words::from([
        ("snapshot".to_owned(), mark.snapshot.clone()),
        ("blocks".to_owned(), mark.put.to_string()),
        ("checksum".to_owned(), sum),
    ]))
}

/// Finds out which snapshot was begun.
pub async fn settle(context: Context, vm: &str, disk: &str) -> Result<Words, StepError> {
    let snapshot = match Mark::from_words(&context.notes) {
        Some(mark) => mark.snapshot,
        None => {
            let shown = format!("disk {disk} of {}", context.world.shown(vm));
            let request = request(&context, vm, disk, &shown, generation(&context))?;
            context.world.aws.start_snapshot(&request).await?.snapshot
        }
    };
    Ok(Words::from([("snapshot".to_owned(), snapshot)]))
}

fn generation(context: &Context) -> u32 {
    let noted = context.notes.get("generation");
    noted.and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn is_gone(error: &CloudError) -> bool {
    matches!(error.kind, Kind::NotFound | Kind::Refused | Kind::Exists)
}

fn request(
    context: &Context,
    vm: &str,
    disk: &str,
    shown: &str,
    generation: u32,
) -> Result<SnapshotRequest, StepError> {
    let world = &context.world;
    let mut tags = world.tags(world.vm(vm)?);
    tags.push((DISK_TAG.to_owned(), disk.to_owned()));
    let disks = &world.point(vm)?.manifest.disks;
    let size = disks
        .iter()
        .find(|one| one.name == disk)
        .map_or(0, |one| one.size_bytes);
    Ok(SnapshotRequest {
        token: world.token(&["snapshot", vm, disk, &generation.to_string()]),
        size_bytes: size,
        description: format!("{shown} (Sparesite run {})", world.run),
        tags,
        volume_key: world.plan.volume_key.clone(),
    })
}

/// What the checksum over all blocks came to.
async fn complete(context: &Context, mark: &Mark) -> Result<&'static str, FillError> {
    match context.world.aws.complete_snapshot(mark).await {
        Ok(true) => Ok("of each block, and over all"),
        Ok(false) => Ok("of each block; the cloud took none over all"),
        // An attempt before this one completed it, and its answer was lost.
        Err(error) if is_gone(&error) => {
            let snapshot = std::slice::from_ref(&mark.snapshot);
            match context
                .world
                .aws
                .wait_for_snapshots(snapshot, COMPLETING)
                .await
            {
                Ok(()) => Ok("of each block, and over all"),
                Err(_) => Err(error.into()),
            }
        }
        Err(error) => Err(error.into()),
    }
}

async fn note_mark(context: &mut Context, mark: &Mark, generation: u32) -> Result<(), StepError> {
    context.notes = words(mark, generation);
    write_down(&context.noting, context.step, context.notes.clone()).await
}

fn words(mark: &Mark, generation: u32) -> Words {
    let mut words = mark.to_words();
    words.insert("generation".into(), generation.to_string());
    words
}

/// Ends only when it cannot be written down.
async fn note_now_and_then(
    context: &Context,
    mut seen: watch::Receiver<Mark>,
    generation: u32,
) -> StepError {
    let mut ticks = interval(NOTED_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        if !seen.has_changed().unwrap_or(false) {
            continue;
        }
        let mark = seen.borrow_and_update().clone();
        if let Err(error) =
            write_down(&context.noting, context.step, words(&mark, generation)).await
        {
            return error;
        }
    }
}
