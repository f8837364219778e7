//! Rights, asked by dry runs: EC2 judges the request, and does nothing (Amazon EC2 API Reference, `DryRun`).

use super::ec2::Form;
use super::image::tags_of;
use super::{Aws, ImageRequest, InstanceRequest, Tagged, Tags};
use crate::{CloudError, Kind};

/// What EC2 answers where the request would have succeeded.
const WOULD_SUCCEED: &str = "DryRunOperation";

/// An image that something here made, and that can be asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeImage {
    pub id: String,
    /// That of its root.
    pub snapshot: String,
    pub tags: Tags,
}

impl Aws {
    /// Those of this account that have this tag, can be started, and have a disk.
    pub async fn images_with_tag(&self, name: &str) -> Result<Vec<MadeImage>, CloudError> {
        let form = Form::new("DescribeImages")
            .set("Owner.1", "self")
            .filter(1, "tag-key", &[name])
            .filter(2, "state", &["available"]);
        let attempted = "look for an image that a run made";
        let images = self.0.ec2.all(form, "imagesSet", attempted).await?;
        let made = images.iter().map(|image| {
            let mut volumes = image.items(&["blockDeviceMapping"]);
            let snapshot = volumes
                .next()
                .map(|one| one.text_at(&["ebs", "snapshotId"]));
            MadeImage {
                id: image.text_at(&["imageId"]).to_owned(),
                snapshot: snapshot.unwrap_or_default().to_owned(),
                tags: tags_of(image),
            }
        });
        Ok(made.filter(|image| !image.snapshot.is_empty()).collect())
    }

    /// Whether this identity may start this. An error of another kind than [`Kind::Denied`] tells nothing of rights.
    pub async fn may_run(&self, request: &InstanceRequest) -> Result<(), CloudError> {
        self.dry(super::instance::form(request), "start an instance")
            .await
    }

    /// The same, to register this image.
    pub async fn may_register(&self, request: &ImageRequest) -> Result<(), CloudError> {
        let attempted = "register an image";
        let form = super::image::form(request, attempted)?;
        self.dry(form, attempted).await
    }

    /// The same, to take this away.
    pub async fn may_remove(&self, kind: Tagged, id: &str) -> Result<(), CloudError> {
        let (action, name, attempted) = match kind {
            Tagged::Instances => (
                "TerminateInstances",
                "InstanceId.1",
                "terminate an instance",
            ),
            Tagged::Images => ("DeregisterImage", "ImageId", "deregister an image"),
            Tagged::Snapshots => ("DeleteSnapshot", "SnapshotId", "delete a snapshot"),
            Tagged::Volumes => ("DeleteVolume", "VolumeId", "delete a volume"),
            Tagged::Interfaces => (
                "DeleteNetworkInterface",
                "NetworkInterfaceId",
                "delete a network interface",
            ),
        };
        self.dry(Form::new(action).set(name, id), attempted).await
    }

    async fn dry(&self, form: Form, attempted: &str) -> Result<(), CloudError> {
        match self.0.ec2.call(form.set("DryRun", true), attempted).await {
            Err(error) if error.code == WOULD_SUCCEED => Ok(()),
            Err(error) => Err(error),
            Ok(_) => {
                let why = "a dry run was not answered as one";
                Err(CloudError::new(attempted, Kind::Refused, "", why))
            }
        }
    }
}
