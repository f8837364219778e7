//! A disk of the recovery point becomes the cloud's snapshot.

use std::sync::Arc;
use std::time::Duration;

use recovery_cloud::aws::{FillError, Mark, SNAPSHOT_FAILED, SnapshotRequest};
use recovery_cloud::{CloudError, Kind};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use vault_store::read::DiskImage;

use super::convert::{CONVERSION, source};
use super::{Context, StepError, Words, write_down};
use crate::failover::blocks::VaultBlocks;
use crate::failover::world::DISK_TAG;
use crate::failure::attempting;

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
    let source = source(&context, vm, disk, image).await?;
    let conversion = source.conversion;
    let blocks = Arc::new(VaultBlocks::new(source.disk));
    let mut attempt = Attempt::of(&context);
    // Blocks of two conversions do not make one file system.
    if attempt.conversion != conversion {
        attempt = Attempt {
            generation: attempt.generation + u32::from(!context.notes.is_empty()),
            conversion,
        };
        attempt.begin(&mut context).await?;
    }
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
                let request = request(&context, vm, disk, &shown, attempt.generation)?;
                world.aws.start_snapshot(&request).await?
            }
        };
        note_mark(&mut context, &mark, &attempt).await?;
        let begun_at = mark.next;
        let (marks, seen) = watch::channel(mark);
        let filling = world
            .aws
            .fill_snapshot(blocks.clone(), &marks, |bytes| bar.add(bytes));
        let noting = note_now_and_then(&context, seen, &attempt);
        let filled = tokio::select! {
            filled = filling => filled,
            failed = noting => return Err(failed),
        };
        let mark = marks.borrow().clone();
        match filled {
            Ok(()) => {
                // So that nobody sends blocks to a snapshot that was completed.
                note_mark(&mut context, &mark, &attempt).await?;
                let sum = complete(&context, &mark).await?;
                context.note([(COMPLETE, sum.to_owned())]).await?;
                break mark;
            }
            // The cloud gave up a snapshot of which it heard nothing for long.
            Err(FillError::Cloud(error))
                if is_resumed && is_gone(&error) && mark.next == begun_at =>
            {
                attempt.again(&mut context).await?;
            }
            Err(error) => return Err(error.into()),
        }
    };
    let snapshot = std::slice::from_ref(&mark.snapshot);
    if let Err(error) = world.aws.wait_for_snapshots(snapshot, COMPLETED).await {
        // Only where this one never will be: the next attempt makes another.
        if error.code == SNAPSHOT_FAILED || error.kind == Kind::NotFound {
            attempt.again(&mut context).await?;
        }
        return Err(error.into());
    }
    let sum = context.notes.get(COMPLETE).cloned().unwrap_or_default();
    let mut made = attempt.words();
    made.extend([
        ("snapshot".to_owned(), mark.snapshot.clone()),
        ("blocks".to_owned(), mark.put.to_string()),
        ("checksum".to_owned(), sum),
    ]);
    Ok(made)
}

/// Finds out which snapshot was begun.
pub async fn settle(context: Context, vm: &str, disk: &str) -> Result<Words, StepError> {
    let snapshot = match Mark::from_words(&context.notes) {
        Some(mark) => mark.snapshot,
        None => {
            let shown = format!("disk {disk} of {}", context.world.shown(vm));
            let request = request(&context, vm, disk, &shown, Attempt::of(&context).generation)?;
            context.world.aws.start_snapshot(&request).await?.snapshot
        }
    };
    Ok(Words::from([("snapshot".to_owned(), snapshot)]))
}

/// What a snapshot is made of, and the how manieth it is: each has a token of its own.
struct Attempt {
    generation: u32,
    conversion: Option<String>,
}

impl Attempt {
    fn of(context: &Context) -> Self {
        let noted = context.notes.get("generation");
        Attempt {
            generation: noted.and_then(|word| word.parse().ok()).unwrap_or(0),
            conversion: context.notes.get(CONVERSION).cloned(),
        }
    }

    fn words(&self) -> Words {
        let mut words = Words::from([("generation".to_owned(), self.generation.to_string())]);
        words.extend(
            self.conversion
                .clone()
                .map(|id| (CONVERSION.to_owned(), id)),
        );
        words
    }

    /// Nothing of it is there yet.
    async fn begin(&self, context: &mut Context) -> Result<(), StepError> {
        context.notes = self.words();
        write_down(&context.noting, context.step, context.notes.clone()).await
    }

    /// Another snapshot from the beginning.
    async fn again(&mut self, context: &mut Context) -> Result<(), StepError> {
        self.generation += 1;
        self.begin(context).await
    }
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

async fn note_mark(context: &mut Context, mark: &Mark, attempt: &Attempt) -> Result<(), StepError> {
    context.notes = words(mark, attempt);
    write_down(&context.noting, context.step, context.notes.clone()).await
}

fn words(mark: &Mark, attempt: &Attempt) -> Words {
    let mut words = mark.to_words();
    words.extend(attempt.words());
    words
}

/// Ends only when it cannot be written down.
async fn note_now_and_then(
    context: &Context,
    mut seen: watch::Receiver<Mark>,
    attempt: &Attempt,
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
        if let Err(error) = write_down(&context.noting, context.step, words(&mark, attempt)).await {
            return error;
        }
    }
}
