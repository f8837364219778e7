//! An image (AMI): what an instance is started from.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::ec2::Form;
use super::retry::Pauses;
use super::xml::Element;
use super::{Aws, Tags};
use crate::{CloudError, Kind};

/// The code of a snapshot whose state is `error`.
pub const SNAPSHOT_FAILED: &str = "error";
/// What was just made may not be known everywhere.
const KNOWN_PATIENCE: Duration = Duration::from_secs(120);
const IMAGE_PATIENCE: Duration = Duration::from_secs(600);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootMode {
    LegacyBios,
    Uefi,
}

impl BootMode {
    /// As the API has it.
    pub fn word(self) -> &'static str {
        match self {
            BootMode::LegacyBios => "legacy-bios",
            BootMode::Uefi => "uefi",
        }
    }
}

/// A snapshot that becomes a volume of each instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedVolume {
    pub snapshot: String,
    /// `gp3`.
    pub kind: String,
    pub iops: Option<u32>,
    /// MiB/s.
    pub throughput: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRequest {
    /// Unique in the account and region; 3 to 128 characters.
    pub name: String,
    pub description: String,
    pub boot_mode: BootMode,
    pub tpm: bool,
    /// The first is the one that boots.
    pub volumes: Vec<MappedVolume>,
    pub tags: Tags,
}

/// The name of a volume's device: `/dev/sda1` for the root, then those that are recommended for data volumes, then those that
/// are available (Amazon EC2 User Guide, "Device names for volumes"). `None`: more than an instance can have.
pub fn device_name(number: usize) -> Option<String> {
    let letter = |first: u8, at: usize| char::from(first + at as u8);
    match number {
        0 => Some("/dev/sda1".into()),
        1..=11 => Some(format!("/dev/sd{}", letter(b'f', number - 1))),
        12..=37 => Some(format!("/dev/xvdb{}", letter(b'a', number - 12))),
        _ => None,
    }
}

impl Aws {
    /// Waits until these can be used.
    pub async fn wait_for_snapshots(
        &self,
        snapshots: &[String],
        patience: Duration,
    ) -> Result<(), CloudError> {
        let attempted = "wait until the snapshots are completed";
        let fails = |kind, why: String| CloudError::new(attempted, kind, "", why);
        let begun = Instant::now();
        let mut pauses = Pauses::up_to(LONGEST_PAUSE);
        let mut left: BTreeSet<&str> = snapshots.iter().map(String::as_str).collect();
        while !left.is_empty() {
            let form = (1..)
                .zip(&left)
                .fold(Form::new("DescribeSnapshots"), |form, (place, id)| {
                    form.set(format!("SnapshotId.{place}"), id)
                });
            match self.0.ec2.call(form, attempted).await {
                Ok(answer) => {
                    for item in answer.items(&["snapshotSet"]) {
                        let id = item.text_at(&["snapshotId"]);
                        match item.text_at(&["status"]) {
                            "completed" => drop(left.remove(id)),
                            "error" => {
                                let said = item.text_at(&["statusMessage"]);
                                let why = format!("snapshot {id} failed: {said}");
                                return Err(CloudError::new(
                                    attempted,
                                    Kind::Refused,
                                    SNAPSHOT_FAILED,
                                    why,
                                ));
                            }
                            _ => {}
                        }
                    }
                }
                // It was made a moment ago.
                Err(error) if error.kind == Kind::NotFound && begun.elapsed() < KNOWN_PATIENCE => {}
                Err(error) => return Err(error),
            }
            if !left.is_empty() {
                if begun.elapsed() > patience {
                    let left: Vec<&str> = left.into_iter().collect();
                    let why = format!("{} after {} s", left.join(", "), patience.as_secs());
                    return Err(fails(Kind::Unavailable, why));
                }
                pauses.pause().await;
            }
        }
        Ok(())
    }

    /// Registers it, or finds the one that the same run registered before under this name; returns its id.
    pub async fn register_image(&self, request: &ImageRequest) -> Result<String, CloudError> {
        let attempted = format!("register the image {:?}", request.name);
        let answer = self
            .0
            .ec2
            .call(form(request, &attempted)?, &attempted)
            .await;
        let error = match answer {
            Ok(answer) => match answer.text_at(&["imageId"]) {
                "" => {
                    return Err(CloudError::new(
                        attempted,
                        Kind::Refused,
                        "",
                        "the answer names no image",
                    ));
                }
                id => return Ok(id.to_owned()),
            },
            Err(error) if error.kind == Kind::Exists => error,
            Err(error) => return Err(error),
        };
        let found =
            Form::new("DescribeImages")
                .set("Owner.1", "self")
                .filter(1, "name", &[&request.name]);
        let found = self.0.ec2.call(found, &attempted).await?;
        let ours = found.items(&["imagesSet"]).find(|image| {
            let has = |tag: &(String, String)| tags_of(image).contains(tag);
            request.tags.iter().all(has)
        });
        ours.map(|image| image.text_at(&["imageId"]).to_owned())
            .ok_or(error)
    }

    pub async fn wait_for_image(&self, image: &str) -> Result<(), CloudError> {
        let attempted = format!("wait until the image {image} is available");
        let until = Instant::now() + IMAGE_PATIENCE;
        let mut pauses = Pauses::up_to(LONGEST_PAUSE);
        loop {
            let form = Form::new("DescribeImages").set("ImageId.1", image);
            let state = match self.0.ec2.call(form, &attempted).await {
                Ok(answer) => answer
                    .text_at(&["imagesSet", "item", "imageState"])
                    .to_owned(),
                Err(error) if error.kind == Kind::NotFound => "not known yet".into(),
                Err(error) => return Err(error),
            };
            match state.as_str() {
                "available" => return Ok(()),
                "failed" | "error" | "invalid" | "deregistered" => {
                    return Err(CloudError::new(
                        attempted,
                        Kind::Refused,
                        "",
                        format!("it is {state}"),
                    ));
                }
                _ if Instant::now() > until => {
                    return Err(CloudError::new(
                        attempted,
                        Kind::Unavailable,
                        "",
                        format!("it is still {state}"),
                    ));
                }
                _ => pauses.pause().await,
            }
        }
    }
}

pub(super) fn form(request: &ImageRequest, attempted: &str) -> Result<Form, CloudError> {
    let mut form = Form::new("RegisterImage")
        .set("Name", &request.name)
        .set("Description", &request.description)
        // The API's own defaults are i386 and paravirtual.
        .set("Architecture", "x86_64")
        .set("VirtualizationType", "hvm")
        .set("BootMode", request.boot_mode.word())
        .set("EnaSupport", true)
        .set("ImdsSupport", "v2.0")
        .maybe("TpmSupport", request.tpm.then_some("v2.0"));
    for (number, volume) in request.volumes.iter().enumerate() {
        let device = device_name(number).ok_or_else(|| {
            let why = format!(
                "{} disks are more than an instance can have",
                request.volumes.len()
            );
            CloudError::new(attempted, Kind::Refused, "", why)
        })?;
        if number == 0 {
            form = form.set("RootDeviceName", &device);
        }
        let mapping = format!("BlockDeviceMapping.{}", number + 1);
        let ebs = |name: &str| format!("{mapping}.Ebs.{name}");
        form = form
            .set(format!("{mapping}.DeviceName"), device)
            .set(ebs("SnapshotId"), &volume.snapshot)
            .set(ebs("VolumeType"), &volume.kind)
            .set(ebs("DeleteOnTermination"), true)
            .maybe(ebs("Iops"), volume.iops)
            .maybe(ebs("Throughput"), volume.throughput);
    }
    Ok(form.tags(&[("image", &request.tags)]))
}

pub(super) fn tags_of(item: &Element) -> Tags {
    let tags = item.items(&["tagSet"]);
    tags.map(|tag| {
        (
            tag.text_at(&["key"]).to_owned(),
            tag.text_at(&["value"]).to_owned(),
        )
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names_of_their_own_as_many_as_there_may_be() {
        let names: BTreeSet<String> = (0..38).map(|number| device_name(number).unwrap()).collect();
        assert_eq!(names.len(), 38);
        assert!(
            names.contains("/dev/sda1")
                && names.contains("/dev/sdp")
                && names.contains("/dev/xvdbz")
        );
        assert_eq!(device_name(38), None);
    }

    fn volume(
        snapshot: &str,
        kind: &str,
        iops: Option<u32>,
        throughput: Option<u32>,
    ) -> MappedVolume {
        MappedVolume {
            snapshot: snapshot.into(),
            kind: kind.into(),
            iops,
            throughput,
        }
    }

    /// Names and values as in the API reference of RegisterImage, EbsBlockDevice and TagSpecification.
    #[test]
    fn an_image_is_registered_as_the_api_reference_has_it() {
        let request = ImageRequest {
            name: "sparesite-r1-db".into(),
            description: "db@17".into(),
            boot_mode: BootMode::Uefi,
            tpm: true,
            volumes: vec![
                volume("snap-1", "gp3", Some(4000), Some(250)),
                volume("snap-2", "st1", None, None),
            ],
            tags: vec![("sparesite-run".into(), "r1".into())],
        };
        let asked = |request: &ImageRequest| -> BTreeSet<(String, String)> {
            let form = form(request, "register").unwrap();
            let set: BTreeSet<_> = form.pairs().iter().cloned().collect();
            assert_eq!(set.len(), form.pairs().len(), "nothing is said twice");
            set
        };
        let expected = [
            ("Name", "sparesite-r1-db"),
            ("Description", "db@17"),
            ("Architecture", "x86_64"),
            ("VirtualizationType", "hvm"),
            ("BootMode", "uefi"),
            ("EnaSupport", "true"),
            ("ImdsSupport", "v2.0"),
            ("TpmSupport", "v2.0"),
            // That of one of the mappings.
            ("RootDeviceName", "/dev/sda1"),
            ("BlockDeviceMapping.1.DeviceName", "/dev/sda1"),
            ("BlockDeviceMapping.1.Ebs.SnapshotId", "snap-1"),
            ("BlockDeviceMapping.1.Ebs.VolumeType", "gp3"),
            ("BlockDeviceMapping.1.Ebs.DeleteOnTermination", "true"),
            ("BlockDeviceMapping.1.Ebs.Iops", "4000"),
            ("BlockDeviceMapping.1.Ebs.Throughput", "250"),
            // Neither its IOPS nor its throughput can be said of st1; and whether it is encrypted is its snapshot's: with
            // `Encrypted` RegisterImage fails.
            ("BlockDeviceMapping.2.DeviceName", "/dev/sdf"),
            ("BlockDeviceMapping.2.Ebs.SnapshotId", "snap-2"),
            ("BlockDeviceMapping.2.Ebs.VolumeType", "st1"),
            ("BlockDeviceMapping.2.Ebs.DeleteOnTermination", "true"),
            ("TagSpecification.1.ResourceType", "image"),
            ("TagSpecification.1.Tag.1.Key", "sparesite-run"),
            ("TagSpecification.1.Tag.1.Value", "r1"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(asked(&request), BTreeSet::from(expected.clone()));

        let bios = ImageRequest {
            boot_mode: BootMode::LegacyBios,
            tpm: false,
            ..request
        };
        let mut expected = BTreeSet::from(expected);
        for (name, value) in [("BootMode", "uefi"), ("TpmSupport", "v2.0")] {
            assert!(expected.remove(&(name.to_owned(), value.to_owned())));
        }
        expected.insert(("BootMode".into(), "legacy-bios".into()));
        assert_eq!(asked(&bios), expected);
    }

    #[test]
    fn more_disks_than_an_instance_can_have_are_refused_before_anything_is_asked() {
        let with = |disks: usize| ImageRequest {
            name: "n".into(),
            description: String::new(),
            boot_mode: BootMode::Uefi,
            tpm: false,
            volumes: vec![volume("snap-1", "gp3", None, None); disks],
            tags: Vec::new(),
        };
        assert!(form(&with(38), "register").is_ok());
        let refused = form(&with(39), "register").unwrap_err();
        assert_eq!(refused.kind, Kind::Refused);
        assert!(refused.to_string().contains("39 disks"), "{refused}");
    }
}
