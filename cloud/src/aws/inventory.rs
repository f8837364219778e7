//! What a run left in the cloud, found by its tag, and taken away.

use super::Aws;
use super::ec2::Form;
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

impl Aws {
    /// All with these tags, of this account.
    pub async fn tagged(&self, tags: &[(&str, &str)]) -> Result<Inventory, CloudError> {
        let attempted = "find what the run made, by its tag";
        let filtered = |action| {
            let form = Form::new(action);
            (1..).zip(tags).fold(form, |form, (number, (name, value))| {
                form.filter(number, &format!("tag:{name}"), &[value])
            })
        };
        let all = async |form, list: &'static str, id: &'static str| {
            let items = self.0.ec2.all(form, list, attempted).await?;
            Ok::<_, CloudError>(
                items
                    .iter()
                    .map(|item| item.text_at(&[id]).to_owned())
                    .collect(),
            )
        };
        let living = ["pending", "running", "stopping", "stopped"];
        let instances =
            filtered("DescribeInstances").filter(tags.len() + 1, "instance-state-name", &living);
        let reservations = self
            .0
            .ec2
            .all(instances, "reservationSet", attempted)
            .await?;
        let instances = reservations
            .iter()
            .flat_map(|reservation| reservation.items(&["instancesSet"]));
        Ok(Inventory {
            instances: instances
                .map(|item| item.text_at(&["instanceId"]).to_owned())
                .collect(),
            images: all(
                filtered("DescribeImages").set("Owner.1", "self"),
                "imagesSet",
                "imageId",
            )
            .await?,
            snapshots: all(
                filtered("DescribeSnapshots").set("Owner.1", "self"),
                "snapshotSet",
                "snapshotId",
            )
            .await?,
            volumes: all(filtered("DescribeVolumes"), "volumeSet", "volumeId").await?,
            interfaces: all(
                filtered("DescribeNetworkInterfaces"),
                "networkInterfaceSet",
                "networkInterfaceId",
            )
            .await?,
        })
    }

    pub async fn remove_image(&self, image: &str) -> Result<(), CloudError> {
        let form = Form::new("DeregisterImage").set("ImageId", image);
        self.remove(form, format!("deregister the image {image}"))
            .await
    }

    pub async fn remove_snapshot(&self, snapshot: &str) -> Result<(), CloudError> {
        let form = Form::new("DeleteSnapshot").set("SnapshotId", snapshot);
        self.remove(form, format!("delete the snapshot {snapshot}"))
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
