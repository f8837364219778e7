//! The guest of a recovery point is made ready for the cloud, on overlays of its disks.

use guest_inspection::judge::Target;

use super::{Context, StepError, Words};
use crate::conversion::{Converted, Patched, Work, folder_of};
use crate::failover::world::World;
use crate::served::{VaultSource, kept};
use vault_store::read::DiskImage;

/// What [`convert`] leaves: the disks that were changed, separated by commas.
pub const DISKS: &str = "disks";

pub async fn convert(context: Context, vm: &str) -> Result<Words, StepError> {
    let converted = work(&context.world, vm).await?;
    let mut words = Words::from([
        ("preflight".to_owned(), converted.after.clone()),
        (DISKS.to_owned(), converted.disks.join(",")),
    ]);
    let changed = converted.changes().join("\n");
    let left = converted.left().join("\n");
    let told = [
        ("before", converted.before.clone()),
        ("changed", changed),
        ("left", left),
    ];
    words.extend(
        told.into_iter()
            .filter(|(_, word)| !word.is_empty())
            .map(|(name, word)| (name.to_owned(), word)),
    );
    Ok(words)
}

async fn work(world: &World, vm: &str) -> Result<Converted, StepError> {
    let converting = world.converting(vm);
    let _turn = converting.lock().await;
    let work = Work {
        vault: &world.open.vault,
        point: world.point(vm)?,
        target: Target::Aws,
        cache: &world.settings.cache,
        folder: &folder_of(&world.settings.reports, &world.run, vm),
    };
    Ok(work.convert().await?)
}

/// A disk as it is sent.
pub struct Source {
    pub disk: Patched<VaultSource>,
    /// Of the overlays that lie over it; none where it is as in the vault.
    pub conversion: Option<String>,
}

/// The disk, with what the conversion changed of it. Where the run goes on elsewhere, that is done once more.
pub async fn source(
    context: &Context,
    vm: &str,
    disk: &str,
    image: DiskImage,
) -> Result<Source, StepError> {
    let world = &context.world;
    let made = context.made.get(&format!("convert {vm}"));
    let disks = made
        .and_then(|words| words.get(DISKS))
        .map_or("", String::as_str);
    let size = image.size_bytes();
    let mut source = Source {
        disk: Patched {
            source: VaultSource(image),
            overlay: None,
        },
        conversion: None,
    };
    if !disks.split(',').any(|own| own == disk) {
        return Ok(source);
    }
    let folder = folder_of(&world.settings.reports, &world.run, vm);
    let converted = work(world, vm).await?;
    if !converted.disks.iter().any(|own| own == disk) {
        let why = converted.left().join("; ");
        return Err(StepError::new(format!(
            "{vm} was converted on another machine, and cannot be on this one: {why}"
        )));
    }
    let sent = context
        .made
        .iter()
        .filter(|(step, _)| step.starts_with(&format!("snapshot {vm} ")));
    let sent = sent.filter_map(|(_, words)| words.get(CONVERSION));
    if sent.into_iter().any(|id| *id != converted.id) {
        return Err(StepError::new(format!(
            "a disk of {vm} was sent with the overlays of another machine, and these are others: go on where {} is, or undo the run",
            folder.display()
        )));
    }
    source.disk.overlay = Some(kept(
        &world.open.vault,
        world.point(vm)?,
        disk,
        size,
        &folder,
    )?);
    source.conversion = Some(converted.id);
    Ok(source)
}

/// The note of a snapshot that says by which conversion its blocks are.
pub const CONVERSION: &str = "conversion";
