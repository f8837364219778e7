//! Volumes that are made and attached by themselves, where no image of ours can make them; and the images of others that an
//! instance is started from then.

use std::time::Duration;

use tokio::time::Instant;

use super::ec2::Form;
use super::image::{BootMode, MappedVolume};
use super::retry::Pauses;
use super::xml::Element;
use super::{Aws, Launched, Tags};
use crate::{CloudError, Kind};

/// Made from a snapshot it is there within a minute; detached from an instance that is stopped, at once.
const PATIENCE: Duration = Duration::from_secs(600);
/// The cloud's own word for how long a stop may take, doubled (EC2 User Guide, "Troubleshoot instance stop issues").
const STOPPED_PATIENCE: Duration = Duration::from_secs(1200);
const STARTED_PATIENCE: Duration = Duration::from_secs(900);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeRequest {
    /// The same request with the same token is the same volume; at most 64 ASCII characters.
    pub token: String,
    pub volume: MappedVolume,
    pub zone: String,
    pub tags: Tags,
}

/// An image of somebody else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicImage {
    pub image: String,
    pub name: String,
    /// `windows`, or empty.
    pub platform: String,
    boot_mode: String,
    created: String,
}

impl PublicImage {
    /// Whether what is started from it is started as this. An image that says nothing boots by BIOS, as x86-64 types do where
    /// nothing else is asked (EC2 User Guide, "Instance launch behavior with EC2 boot modes").
    pub fn boots_as(&self, mode: BootMode) -> bool {
        match mode {
            BootMode::Uefi => self.boot_mode.starts_with("uefi"),
            BootMode::LegacyBios => matches!(self.boot_mode.as_str(), "" | "legacy-bios"),
        }
    }
}

/// The name of a data volume's device at an instance of Windows, the first of which is 1 (EC2 User Guide, "Device names for
/// volumes", of Windows instances). `None`: more than an instance can have.
pub fn windows_device(number: usize) -> Option<String> {
    let letter = |first: u8, at: usize| char::from(first + at as u8);
    match number {
        1..=21 => Some(format!("xvd{}", letter(b'f', number - 1))),
        _ => None,
    }
}

impl Aws {
    /// An image by its id; `None`: there is none.
    pub async fn image(&self, image: &str) -> Result<Option<PublicImage>, CloudError> {
        let form = Form::new("DescribeImages").set("ImageId.1", image);
        match self
            .0
            .ec2
            .call(form, &format!("look at the image {image}"))
            .await
        {
            Ok(answer) => Ok(answer.items(&["imagesSet"]).next().map(public_image)),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The newest of Amazon's own images whose name is `name` and a date; `None`: there is none in this region.
    pub async fn amazon_image(&self, name: &str) -> Result<Option<PublicImage>, CloudError> {
        let form = Form::new("DescribeImages").set("Owner.1", "amazon").filter(
            1,
            "name",
            &[&format!("{name}-20*")],
        );
        let answer = self
            .0
            .ec2
            .call(form, &format!("find Amazon's image {name}"))
            .await?;
        let all = answer.items(&["imagesSet"]).map(public_image);
        Ok(all.max_by(|one, other| (&one.created, &one.name).cmp(&(&other.created, &other.name))))
    }

    pub async fn create_volume(&self, request: &VolumeRequest) -> Result<String, CloudError> {
        let volume = &request.volume;
        let attempted = format!("make a volume of the snapshot {}", volume.snapshot);
        let form = Form::new("CreateVolume")
            .set("SnapshotId", &volume.snapshot)
            .set("AvailabilityZone", &request.zone)
            .set("VolumeType", &volume.kind)
            .maybe("Iops", volume.iops)
            .maybe("Throughput", volume.throughput)
            .set("ClientToken", &request.token)
            .tags(&[("volume", &request.tags)]);
        let answer = self.0.ec2.call(form, &attempted).await?;
        match answer.text_at(&["volumeId"]) {
            "" => Err(CloudError::new(
                attempted,
                Kind::Refused,
                "",
                "the answer names no volume",
            )),
            id => Ok(id.to_owned()),
        }
    }

    /// Until it can be attached, or deleted. `false`: it is attached to `instance` already.
    pub async fn wait_until_free(
        &self,
        volume: &str,
        instance: Option<&str>,
    ) -> Result<bool, CloudError> {
        let attempted = format!("wait until the volume {volume} is available");
        let form = Form::new("DescribeVolumes").set("VolumeId.1", volume);
        let until = Instant::now() + PATIENCE;
        let mut pauses = Pauses::up_to(LONGEST_PAUSE);
        loop {
            let (state, at) = match self.0.ec2.call(form.clone(), &attempted).await {
                Ok(answer) => {
                    let text = |path: &[&str]| {
                        let item = answer.at(&["volumeSet", "item"]);
                        item.map_or("", |item| item.text_at(path)).to_owned()
                    };
                    (
                        text(&["status"]),
                        text(&["attachmentSet", "item", "instanceId"]),
                    )
                }
                Err(error) if error.kind == Kind::NotFound => ("not known".into(), String::new()),
                Err(error) => return Err(error),
            };
            let fails = |kind| {
                Err(CloudError::new(
                    &attempted,
                    kind,
                    "",
                    format!("it is {state}"),
                ))
            };
            match state.as_str() {
                "available" => return Ok(true),
                "in-use" if instance == Some(at.as_str()) => return Ok(false),
                "error" | "deleting" | "deleted" => return fails(Kind::Refused),
                _ if Instant::now() > until => return fails(Kind::Unavailable),
                _ => pauses.pause().await,
            }
        }
    }

    pub async fn attach_volume(
        &self,
        volume: &str,
        instance: &str,
        device: &str,
    ) -> Result<(), CloudError> {
        let form = Form::new("AttachVolume")
            .set("VolumeId", volume)
            .set("InstanceId", instance)
            .set("Device", device);
        let attempted = format!("attach the volume {volume} to {instance} as {device}");
        self.0.ec2.call(form, &attempted).await.map(drop)
    }

    pub async fn detach_volume(&self, volume: &str, instance: &str) -> Result<(), CloudError> {
        let form = Form::new("DetachVolume")
            .set("VolumeId", volume)
            .set("InstanceId", instance);
        let attempted = format!("detach the volume {volume} from {instance}");
        self.0.ec2.call(form, &attempted).await.map(drop)
    }

    /// Its volumes at these devices go with it when it is terminated.
    pub async fn end_with_instance(
        &self,
        instance: &str,
        devices: &[&str],
    ) -> Result<(), CloudError> {
        let form = Form::new("ModifyInstanceAttribute").set("InstanceId", instance);
        let form = (1..).zip(devices).fold(form, |form, (number, device)| {
            let mapping = format!("BlockDeviceMapping.{number}");
            form.set(format!("{mapping}.DeviceName"), device)
                .set(format!("{mapping}.Ebs.DeleteOnTermination"), true)
        });
        let attempted = format!("let the volumes of {instance} go with it");
        self.0.ec2.call(form, &attempted).await.map(drop)
    }

    /// Without regard to what its guest has not written yet.
    pub async fn stop_instance(&self, instance: &str) -> Result<Launched, CloudError> {
        let attempted = format!("stop the instance {instance}");
        let form = Form::new("StopInstances")
            .set("InstanceId.1", instance)
            .set("Force", true);
        self.0.ec2.call(form, &attempted).await?;
        self.wait_for_state(instance, "stopped", &attempted, STOPPED_PATIENCE)
            .await
    }

    pub async fn start_instance(&self, instance: &str) -> Result<Launched, CloudError> {
        let attempted = format!("start the instance {instance}");
        let form = Form::new("StartInstances").set("InstanceId.1", instance);
        self.0.ec2.call(form, &attempted).await?;
        self.wait_for_state(instance, "running", &attempted, STARTED_PATIENCE)
            .await
    }

    async fn wait_for_state(
        &self,
        instance: &str,
        wanted: &str,
        attempted: &str,
        patience: Duration,
    ) -> Result<Launched, CloudError> {
        let until = Instant::now() + patience;
        let mut pauses = Pauses::up_to(LONGEST_PAUSE);
        loop {
            let launched = self.instance(instance).await?.unwrap_or_default();
            let (_, why) = launched.ended_by();
            let fails = |kind| {
                let why = format!("it is {}: {why}", launched.state);
                Err(CloudError::new(attempted, kind, "", why))
            };
            match launched.state.as_str() {
                state if state == wanted => return Ok(launched),
                "terminated" | "shutting-down" => return fails(launched.ended().kind),
                // The start was accepted, and there was no room after all.
                "stopped" if launched.ended().kind == Kind::NoCapacity => {
                    return fails(Kind::NoCapacity);
                }
                _ if Instant::now() > until => return fails(Kind::Unavailable),
                // What was asked for a moment ago may not be seen yet.
                _ => pauses.pause().await,
            }
        }
    }
}

fn public_image(item: &Element) -> PublicImage {
    let text = |name| item.text_at(&[name]).to_owned();
    PublicImage {
        image: text("imageId"),
        name: text("name"),
        platform: text("platform"),
        boot_mode: text("bootMode"),
        created: text("creationDate"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_boots_as_it_says_and_by_bios_if_it_says_nothing() {
        let of = |boot_mode: &str| PublicImage {
            boot_mode: boot_mode.into(),
            ..PublicImage::default()
        };
        let both =
            |word| [BootMode::LegacyBios, BootMode::Uefi].map(|mode| of(word).boots_as(mode));
        assert_eq!(both(""), [true, false]);
        assert_eq!(both("legacy-bios"), [true, false]);
        assert_eq!(both("uefi"), [false, true]);
        assert_eq!(both("uefi-preferred"), [false, true]);
    }

    #[test]
    fn data_volumes_of_windows_have_names_of_their_own() {
        let names: Vec<String> = (1..).map_while(windows_device).collect();
        assert_eq!(
            (names.len(), names[0].as_str(), names[20].as_str()),
            (21, "xvdf", "xvdz")
        );
        assert_eq!(windows_device(0), None, "the root's is the image's");
    }
}
