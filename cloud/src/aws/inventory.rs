//! What a run left in the cloud, found by its tag, and taken away.

use std::time::Duration;

use super::Aws;
use super::ec2::Form;
use super::retry::retrying;

const STILL_IN_USE: Duration = Duration::from_secs(90);

use crate::{CloudError, Kind};

/// Ids of what exists with a tag.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Neither terminated nor on the way to it.
    pub instances: Vec<String>,
    pub images: Vec<String>,
    pub snapshots: Vec<String>,
    pub volumes: Vec<String>,
    pub interfaces: Vec<String>,
}

impl Inventory {
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn len(&self) -> usize {
        let all = [
            &self.instances,
            &self.images,
            &self.snapshots,
            &self.volumes,
            &self.interfaces,
        ];
        all.into_iter().map(Vec::len).sum()
    }
}

/// A kind of thing that has tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tagged {
    Instances,
    Images,
    Snapshots,
    Volumes,
    Interfaces,
}

const ATTEMPTED: &str = "find what the run made, by its tag";

impl Aws {
    /// All with these tags, of this account.
    pub async fn tagged(&self, tags: &[(&str, &str)]) -> Result<Inventory, CloudError> {
        let of = |kind| self.tagged_of(kind, tags);
        let (instances, images, snapshots, volumes, interfaces) = futures::try_join!(
            of(Tagged::Instances),
            of(Tagged::Images),
            of(Tagged::Snapshots),
            of(Tagged::Volumes),
            of(Tagged::Interfaces)
        )?;
        Ok(Inventory {
            instances,
            images,
            snapshots,
            volumes,
            interfaces,
        })
    }

    /// Those of one kind.
    pub async fn tagged_of(
        &self,
        kind: Tagged,
        tags: &[(&str, &str)],
    ) -> Result<Vec<String>, CloudError> {
        let (action, list, id) = match kind {
            Tagged::Instances => ("DescribeInstances", "reservationSet", "instanceId"),
            Tagged::Images => ("DescribeImages", "imagesSet", "imageId"),
            Tagged::Snapshots => ("DescribeSnapshots", "snapshotSet", "snapshotId"),
            Tagged::Volumes => ("DescribeVolumes", "volumeSet", "volumeId"),
            Tagged::Interfaces => (
                "DescribeNetworkInterfaces",
                "networkInterfaceSet",
                "networkInterfaceId",
            ),
        };
        let form = (1..)
            .zip(tags)
            .fold(Form::new(action), |form, (number, (name, value))| {
                form.filter(number, &format!("tag:{name}"), &[value])
            });
        let living = ["pending", "running", "stopping", "stopped"];
        let form = match kind {
            Tagged::Instances => form.filter(tags.len() + 1, "instance-state-name", &living),
            Tagged::Images | Tagged::Snapshots => form.set("Owner.1", "self"),
            Tagged::Volumes | Tagged::Interfaces => form,
        };
        let items = self.0.ec2.all(form, list, ATTEMPTED).await?;
        Ok(match kind {
            Tagged::Instances => {
                let all = items
                    .iter()
                    .flat_map(|reservation| reservation.items(&["instancesSet"]));
                all.map(|item| item.text_at(&[id]).to_owned()).collect()
            }
            _ => items
                .iter()
                .map(|item| item.text_at(&[id]).to_owned())
                .collect(),
        })
    }

    pub async fn remove_image(&self, image: &str) -> Result<(), CloudError> {
        let form = Form::new("DeregisterImage").set("ImageId", image);
        self.remove(form, format!("deregister the image {image}"))
            .await
    }

    pub async fn remove_snapshot(&self, snapshot: &str) -> Result<(), CloudError> {
        let form = Form::new("DeleteSnapshot").set("SnapshotId", snapshot);
        let attempted = format!("delete the snapshot {snapshot}");
        // Of an image that was deregistered a moment ago.
        let in_use = |error: &CloudError| error.code == "InvalidSnapshot.InUse";
        retrying(STILL_IN_USE, in_use, || {
            self.remove(form.clone(), attempted.clone())
        })
        .await
    }

    pub async fn remove_volume(&self, volume: &str) -> Result<(), CloudError> {
        let form = Form::new("DeleteVolume").set("VolumeId", volume);
        self.remove(form, format!("delete the volume {volume}"))
            .await
    }

    pub async fn remove_interface(&self, interface: &str) -> Result<(), CloudError> {
        let form = Form::new("DeleteNetworkInterface").set("NetworkInterfaceId", interface);
        self.remove(form, format!("delete the network interface {interface}"))
            .await
    }

    async fn remove(&self, form: Form, attempted: String) -> Result<(), CloudError> {
        match self.0.ec2.call(form, &attempted).await {
            Err(error) if error.kind != Kind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
