//! What is made of snapshots and taken away again: images, deadlines; and what a run left, by its tags.

use std::time::Duration;

use tokio::time::sleep;

use console::show;
use recovery_cloud::Kind;
use recovery_cloud::aws::{
    BootMode, ImageRequest, Inventory, MappedVolume, ScheduleRequest, Tagged,
};
use recovery_plan::{Licence, PlannedVm};
use serde_json::json;

use super::convert::DISKS;
use super::{Context, StepError, Words, donor};
use crate::failover::world::{DISK_TAG, RUN_TAG, VM_TAG, World};
use crate::guest;
use crate::hardware::Hardware;
use crate::served::{Writes, open_disks};
use guest_inspection::judge::Target;

pub async fn set_deadline(mut context: Context) -> Result<Words, StepError> {
    let world = context.world.clone();
    let Some(deadline) = &world.plan.deadline else {
        return Ok(Words::from([("schedule".into(), "none".into())]));
    };
    // Said once: who takes the run over keeps it.
    let noted = context.notes.get("at").and_then(|at| at.parse().ok());
    let Some(at) = noted.or(world.settings.deadline) else {
        return Ok(Words::from([("schedule".into(), "none".into())]));
    };
    let shown = show::time_utc(at);
    context
        .note([("at", shown.clone()), ("group", deadline.group.clone())])
        .await?;
    let name = schedule_name(&world);
    let request = ScheduleRequest {
        name: name.clone(),
        group: deadline.group.clone(),
        at,
        target: deadline.sweep.clone(),
        role: deadline.role.clone(),
        input: json!({"run": world.run}),
    };
    world.aws.schedule(&request).await?;
    Ok(Words::from([
        ("schedule".into(), name),
        ("at".into(), shown),
    ]))
}

pub async fn remove_deadline(context: Context) -> Result<(), StepError> {
    let world = &context.world;
    // The plan may have another one by now.
    let written = world.plan.deadline.as_ref().map(|deadline| &deadline.group);
    if let Some(group) = context.notes.get("group").or(written) {
        world
            .aws
            .remove_schedule(group, &schedule_name(world))
            .await?;
    }
    Ok(())
}

fn schedule_name(world: &World) -> String {
    format!("sparesite-{}", world.run)
}

/// Registers what an instance of the VM is started from; where the licence is the cloud's, finds it. How it boots, and from which disk, its disks tell.
pub async fn register(context: Context, vm: &str) -> Result<Words, StepError> {
    let world = &context.world;
    let planned = world.vm(vm)?;
    let mut found = look(world, planned).await?;
    let converted = context.made.get(&format!("convert {vm}"));
    let changed = |words: &&Words| words.get(DISKS).is_some_and(|disks| !disks.is_empty());
    let converted = converted
        .filter(changed)
        .and_then(|words| words.get("preflight"));
    if let Some(preflight) = converted {
        found.preflight = preflight.clone();
    }
    let names = in_order(world, vm, &found.root)?;
    let boot_mode = match found.uefi {
        true => BootMode::Uefi,
        false => BootMode::LegacyBios,
    };
    let told = |what: &str, image: String| -> Words {
        let words = [
            (what, image),
            ("boot_mode", boot_mode.word().to_owned()),
            ("root", names.join(",")),
            ("preflight", found.preflight.clone()),
        ];
        let unproven = unproven(found.windows, planned.licence);
        let unproven = unproven.map(|why| ("unproven", why.to_owned()));
        let words = words.into_iter().chain(unproven);
        words.map(|(name, word)| (name.to_owned(), word)).collect()
    };
    if planned.licence == Some(Licence::Included) {
        world.end_bar(vm);
        let donor = donor::choose(world, planned, boot_mode).await?;
        return Ok(told("donor", donor.image));
    }
    let mut volumes = Vec::with_capacity(names.len());
    for disk in &names {
        let snapshot = context.made(&format!("snapshot {vm} {disk}"), "snapshot")?;
        volumes.push(mapped(planned, disk, snapshot));
    }
    world.end_bar(vm);
    let request = ImageRequest {
        name: format!("sparesite-{}-{vm}", world.run),
        description: format!("{} (Sparesite run {})", world.shown(vm), world.run),
        boot_mode,
        tpm: found.tpm && found.uefi,
        volumes,
        tags: world.tags(planned),
    };
    let image = world.aws.register_image(&request).await?;
    world.aws.wait_for_image(&image).await?;
    Ok(told("image", image))
}

/// What a VM's disks tell of how it starts.
struct Found {
    uefi: bool,
    tpm: bool,
    windows: bool,
    /// Empty where nothing boots.
    root: String,
    preflight: String,
}

async fn look(world: &World, planned: &PlannedVm) -> Result<Found, StepError> {
    let vm = planned.name.as_str();
    let point = world.point(vm)?;
    let hardware = Hardware::of(&point.manifest);
    let kept = hardware.disks.iter().filter(|disk| !disk.excluded);
    let names: Vec<&str> = kept.map(|disk| disk.name.as_str()).collect();
    let cache = &world.settings.cache;
    let disks = open_disks(&world.open.vault, point, &names, cache, &Writes::Refused).await?;
    let facts = guest::inspect(guest::machine(vm, &hardware), &disks).await?;
    let judged = guest_inspection::judge(&facts, Target::Aws);
    Ok(Found {
        uefi: facts.boots_by_uefi(),
        tpm: hardware.tpm.is_some(),
        windows: !facts.windows.is_empty(),
        root: facts
            .boot_disk()
            .map(str::to_owned)
            .or_else(|| hardware.boot_disk().map(|disk| disk.name.clone()))
            .unwrap_or_default(),
        preflight: guest::told(&judged),
    })
}

/// What nobody has shown of how such a guest is licensed there. Licences of Windows Server that somebody brings run on Dedicated
/// Hosts (Microsoft Product Terms, as "Microsoft Licensing on AWS" tells them), and instances here have no tenancy of their own.
fn unproven(windows: bool, licence: Option<Licence>) -> Option<&'static str> {
    match (windows, licence) {
        (_, Some(Licence::Included)) => Some(donor::UNPROVEN),
        (false, _) => None,
        (true, Some(Licence::Byol)) => Some(
            "its Windows runs by a licence of yours, which AWS takes on Dedicated Hosts only, and it is started on shared \
             hardware: unproven; write `licence = \"included\"`",
        ),
        (true, None) => Some(
            "its Windows runs without a licence of the cloud, which asks for one: unproven; write `licence = \"included\"`",
        ),
    }
}

/// The run's disks of a VM, the one that boots first.
fn in_order(world: &World, vm: &str, root: &str) -> Result<Vec<String>, StepError> {
    let disks = &world.point(vm)?.manifest.disks;
    let mut names: Vec<String> = disks.iter().map(|disk| disk.name.clone()).collect();
    names.sort_by_key(|name| name != root);
    Ok(names)
}

pub(super) fn mapped(vm: &PlannedVm, disk: &str, snapshot: &str) -> MappedVolume {
    let volume = vm.volume_of(disk);
    MappedVolume {
        snapshot: snapshot.to_owned(),
        kind: volume.kind.word().to_owned(),
        iops: volume.iops,
        throughput: volume.throughput,
    }
}

/// Whatever has the tags, and what is noted: a thing that was just made may not be found by its tags yet.
async fn found(
    context: &Context,
    kind: Tagged,
    tags: &[(&str, &str)],
    noted: &str,
) -> Result<Vec<String>, StepError> {
    let run = [(RUN_TAG, context.world.run.as_str())];
    let mut all = context
        .world
        .aws
        .tagged_of(kind, &[&run, tags].concat())
        .await?;
    let noted = context.notes.get(noted).cloned();
    all.extend(noted.filter(|one| !all.contains(one)));
    Ok(all)
}

pub async fn remove_snapshots(context: Context, vm: &str, disk: &str) -> Result<(), StepError> {
    let tags = [(VM_TAG, vm), (DISK_TAG, disk)];
    for snapshot in found(&context, Tagged::Snapshots, &tags, "snapshot").await? {
        context.world.aws.remove_snapshot(&snapshot).await?;
    }
    Ok(())
}

pub async fn remove_images(context: Context, vm: &str) -> Result<(), StepError> {
    for image in found(&context, Tagged::Images, &[(VM_TAG, vm)], "image").await? {
        context.world.aws.remove_image(&image).await?;
    }
    Ok(())
}

/// Their volumes and interfaces go with them; what stays of a launch that failed, the sweep at the end of the undo finds.
pub async fn remove_instances(context: Context, vm: &str) -> Result<(), StepError> {
    for instance in found(&context, Tagged::Instances, &[(VM_TAG, vm)], "instance").await? {
        context.world.aws.remove_instance(&instance).await?;
    }
    Ok(())
}

/// How long after a run was taken from a process a call that it made may still arrive: it stops within ten seconds.
const ON_ITS_WAY: Duration = Duration::from_secs(25);

/// Looks for what a call may have made, until nothing can arrive any more.
pub async fn settle(context: Context, kind: Tagged, vm: &str) -> Result<Words, StepError> {
    let name = if kind == Tagged::Images {
        "image"
    } else {
        "instance"
    };
    loop {
        let over = context.world.since.elapsed() > ON_ITS_WAY;
        // Volumes of it may be on their way, and nothing tells of them but their tags.
        let waits = context.notes.contains_key(donor::VOLUMES_ASKED) && !over;
        let found = found(&context, kind, &[(VM_TAG, vm)], name).await?.pop();
        if let Some(found) = found.filter(|_| !waits) {
            return Ok(Words::from([(name.to_owned(), found)]));
        }
        if over {
            return Err(StepError::new("the run was undone, and it was not made"));
        }
        sleep(Duration::from_secs(1)).await;
    }
}

/// In the order in which they hold on to each other.
pub async fn remove_left(
    aws: &recovery_cloud::aws::Aws,
    left: &Inventory,
) -> Result<(), StepError> {
    for instance in &left.instances {
        aws.remove_instance(instance).await?;
    }
    for volume in &left.volumes {
        // It goes with its instance, and may be on its way.
        match aws.remove_volume(volume).await {
            Err(error) if error.kind == Kind::Refused && error.code == "VolumeInUse" => {}
            other => other?,
        }
    }
    for interface in &left.interfaces {
        match aws.remove_interface(interface).await {
            Err(error)
                if error.code == "InvalidParameterValue"
                    || error.code == "InvalidNetworkInterface.InUse" => {}
            other => other?,
        }
    }
    for image in &left.images {
        aws.remove_image(image).await?;
    }
    for snapshot in &left.snapshots {
        aws.remove_snapshot(snapshot).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_brings_a_licence_of_windows_is_not_told_that_there_is_none() {
        let told = |licence| unproven(true, licence).unwrap();
        assert_eq!(told(Some(Licence::Included)), donor::UNPROVEN);
        let own = told(Some(Licence::Byol));
        assert!(own.contains("Dedicated Hosts only") && !own.contains("asks for one"));
        assert!(told(None).contains("without a licence of the cloud, which asks for one"));
        // A guest that is no Windows needs none, whatever the plan says that the owner has.
        assert_eq!(
            (unproven(false, None), unproven(false, Some(Licence::Byol))),
            (None, None)
        );
    }
}
