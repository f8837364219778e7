//! A guest whose licence is the cloud's: an image of our snapshots would have none (EC2 User Guide, RegisterImage, "is for Linux
//! AMIs"), so an instance of Amazon's own Windows image is started, and gets the VM's disks in place of its own.
//!
//! Each part may be done twice: volumes have tokens and are noted, and what is attached is looked at.

use std::time::Duration;

use recovery_cloud::aws::{
    Aws, BootMode, Launched, PublicImage, Tagged, VolumeRequest, windows_device,
};
use recovery_plan::PlannedVm;
use tokio::time::sleep;

use super::{Context, StepError, cloud};
use crate::failover::world::{DISK_TAG, RUN_TAG, VM_TAG, World};

/// What is said of such a VM wherever it is told of.
pub const UNPROVEN: &str =
    "its disks are in a donor instance of Windows: unproven, no real account has run this yet";
/// Noted before volumes are asked for: the instance.
pub const VOLUMES_ASKED: &str = "volumes of";
/// Noted when the disks are the VM's, before its guest starts: from here on nothing is exchanged any more.
const SWAPPED: &str = "swapped";
/// Seconds that an attachment may take to be seen.
const SEEN: u32 = 120;

/// Of this Windows Server, whatever the guest is: the licence is the same, and nothing of its disk stays.
fn name_of(mode: BootMode) -> &'static str {
    match mode {
        BootMode::LegacyBios => "Windows_Server-2022-English-Full-Base",
        BootMode::Uefi => "TPM-Windows_Server-2022-English-Full-Base",
    }
}

/// The plan's, or the newest of Amazon's that boots as the guest does.
pub async fn choose(
    world: &World,
    vm: &PlannedVm,
    mode: BootMode,
) -> Result<PublicImage, StepError> {
    let (found, what) = match &vm.donor {
        Some(image) => (world.aws.image(image).await?, image.as_str()),
        None => (world.aws.amazon_image(name_of(mode)).await?, name_of(mode)),
    };
    let refuse = |why: &str| {
        StepError::new(format!(
            "there is no donor for {}: the image {what} {why}; write the id of one of Amazon's Windows images that boots by {} into \
             the plan (`donor`), and run the same command again",
            vm.name,
            mode.word(),
        ))
    };
    let found = found.ok_or_else(|| refuse("is not in this region"))?;
    if found.platform != "windows" {
        return Err(refuse("is none of Windows"));
    }
    match found.boots_as(mode) {
        true => Ok(found),
        false => Err(refuse("boots otherwise than the guest")),
    }
}

/// The instance gets the VM's disks in place of the donor's, and is not started yet.
pub async fn swap(context: &mut Context, name: &str, launched: &Launched) -> Result<(), StepError> {
    let world = context.world.clone();
    let (aws, instance) = (&world.aws, &launched.instance);
    if context.notes.get(SWAPPED) == Some(instance) {
        return Ok(());
    }
    context.note([(VOLUMES_ASKED, instance.clone())]).await?;
    let ours = volumes(context, name, launched).await?;
    let stopped = aws.stop_instance(instance).await?;
    exchange(aws, &stopped, &ours).await?;
    let devices: Vec<&str> = ours.iter().map(|(device, _)| device.as_str()).collect();
    aws.end_with_instance(instance, &devices).await?;
    remove_others(context, name, &ours).await?;
    context.note([(SWAPPED, instance.clone())]).await
}

/// A volume of each disk in the instance's zone, and the device that it gets; the one that boots first.
async fn volumes(
    context: &mut Context,
    name: &str,
    launched: &Launched,
) -> Result<Vec<(String, String)>, StepError> {
    let world = context.world.clone();
    let vm = world.vm(name)?;
    let order = context.made(&format!("image {name}"), "root")?.to_owned();
    let mut made = Vec::new();
    for (number, disk) in order.split(',').enumerate() {
        let device = match number {
            0 => Some(launched.root_device.clone()),
            number => windows_device(number),
        };
        let device = device.ok_or_else(|| {
            StepError::new(
                "it has more disks than an instance of Windows can have: leave some out on site",
            )
        })?;
        let key = format!("volume {disk} of {}", launched.instance);
        if let Some(volume) = context.notes.get(&key) {
            made.push((device, volume.clone()));
            continue;
        }
        let snapshot = context.made(&format!("snapshot {name} {disk}"), "snapshot")?;
        let mut request = VolumeRequest {
            token: String::new(),
            volume: cloud::mapped(vm, disk, snapshot),
            zone: launched.zone.clone(),
            tags: world.tags(vm),
        };
        request.tags.push((DISK_TAG.to_owned(), disk.to_owned()));
        request.token = world.token(&["volume", &launched.instance, &format!("{request:?}")]);
        let volume = world.aws.create_volume(&request).await?;
        context.note([(key.as_str(), volume.clone())]).await?;
        made.push((device, volume));
    }
    Ok(made)
}

/// What is attached and not ours goes, what is ours and not attached comes.
async fn exchange(
    aws: &Aws,
    stopped: &Launched,
    ours: &[(String, String)],
) -> Result<(), StepError> {
    let instance = &stopped.instance;
    for (_, other) in stopped.volumes.iter().filter(|one| !ours.contains(one)) {
        match aws.detach_volume(other, instance).await {
            // It was a moment ago.
            Err(error) if error.code == "IncorrectState" => {}
            done => done?,
        }
        aws.wait_until_free(other, None).await?;
    }
    for one in ours.iter().filter(|one| !stopped.volumes.contains(one)) {
        let (device, volume) = one;
        if aws.wait_until_free(volume, Some(instance)).await? {
            match aws.attach_volume(volume, instance, device).await {
                // The answer to the first call was lost: whether it is there is looked at below.
                Err(error) if error.code == "VolumeInUse" => {}
                done => done?,
            }
        }
    }
    for _ in 0..SEEN {
        let seen = aws.instance(instance).await?.unwrap_or_default().volumes;
        if ours.iter().all(|one| seen.contains(one)) {
            return Ok(());
        }
        sleep(Duration::from_secs(1)).await;
    }
    Err(StepError::new(format!(
        "the disks of the VM are not seen at {instance} after {SEEN} s; run the same command again"
    )))
}

/// The donor's own disk, and what was made for an instance that ended.
async fn remove_others(
    context: &Context,
    name: &str,
    ours: &[(String, String)],
) -> Result<(), StepError> {
    let world = &context.world;
    let tags = [(RUN_TAG, world.run.as_str()), (VM_TAG, name)];
    for volume in world.aws.tagged_of(Tagged::Volumes, &tags).await? {
        if ours.iter().all(|(_, one)| *one != volume) {
            world.aws.remove_volume(&volume).await?;
        }
    }
    Ok(())
}
