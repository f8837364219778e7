//! Instances: started, looked at, taken away.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::Instant;

use super::ec2::Form;
use super::retry::Pauses;
use super::xml::Element;
use super::{Aws, Tags};
use crate::error::kind_of;
use crate::{CloudError, Kind};

const RUNNING_PATIENCE: Duration = Duration::from_secs(900);
const GONE_PATIENCE: Duration = Duration::from_secs(900);
/// An instance that was just started may not be known everywhere.
const KNOWN_PATIENCE: Duration = Duration::from_secs(120);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceRequest {
    /// The same request with the same token is the same instance; at most 64 ASCII characters.
    pub token: String,
    pub image: String,
    pub instance_type: String,
    pub subnet: String,
    /// Those of the network where there are none.
    pub security_groups: Vec<String>,
    /// What the subnet gives it, where there is none.
    pub address: Option<Ipv4Addr>,
    pub tags: Tags,
}

/// What an instance is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Launched {
    pub instance: String,
    /// `pending`, `running`, `shutting-down`, `terminated`, `stopping`, `stopped`.
    pub state: String,
    pub address: String,
    pub zone: String,
    pub instance_type: String,
    /// Of its root volume: `/dev/sda1`.
    pub root_device: String,
    /// By their devices' names.
    pub volumes: Vec<(String, String)>,
    /// Why it is not running, by the cloud's words.
    reason: (String, String),
}

impl Launched {
    pub(super) fn ended_by(&self) -> &(String, String) {
        &self.reason
    }

    /// Why it does not run, as an error of whoever waited for it.
    pub fn ended(&self) -> CloudError {
        let (code, why) = &self.reason;
        let plain = code
            .trim_start_matches("Server.")
            .trim_start_matches("Client.");
        let attempted = format!("wait until the instance {} runs", self.instance);
        CloudError::new(
            attempted,
            kind_of(0, plain),
            code,
            format!("it is {}: {why}", self.state),
        )
    }
}

impl Aws {
    /// Starts it, and returns its id.
    pub async fn run_instance(
        &self,
        request: &InstanceRequest,
        name: &str,
    ) -> Result<String, CloudError> {
        let attempted = format!(
            "start {name:?} as {} in {}",
            request.instance_type, request.subnet
        );
        let answer = self.0.ec2.call(form(request), &attempted).await?;
        match answer.text_at(&["instancesSet", "item", "instanceId"]) {
            "" => Err(CloudError::new(
                attempted,
                Kind::Refused,
                "",
                "the answer names no instance",
            )),
            id => Ok(id.to_owned()),
        }
    }

    /// `None`: there is none, or none that is known yet.
    pub async fn instance(&self, instance: &str) -> Result<Option<Launched>, CloudError> {
        let form = Form::new("DescribeInstances").set("InstanceId.1", instance);
        match self
            .0
            .ec2
            .call(form, &format!("look at the instance {instance}"))
            .await
        {
            Ok(answer) => {
                let item = answer.at(&["reservationSet", "item", "instancesSet", "item"]);
                Ok(item.map(launched))
            }
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Until it runs, or does no longer: its state says which.
    pub async fn wait_until_running(&self, instance: &str) -> Result<Launched, CloudError> {
        let attempted = format!("wait until the instance {instance} runs");
        let begun = Instant::now();
        let mut pauses = Pauses::up_to(LONGEST_PAUSE);
        loop {
            let (patience, state) = match self.instance(instance).await? {
                Some(launched) if launched.state != "pending" => return Ok(launched),
                Some(_) => (RUNNING_PATIENCE, "still pending"),
                None => (KNOWN_PATIENCE, "not known"),
            };
            if begun.elapsed() > patience {
                let why = format!("it is {state} after {} s", patience.as_secs());
                return Err(CloudError::new(attempted, Kind::Refused, "", why));
            }
            pauses.pause().await;
        }
    }

    /// Terminates it, and waits until its volumes and addresses are free.
    pub async fn remove_instance(&self, instance: &str) -> Result<(), CloudError> {
        let attempted = format!("terminate the instance {instance}");
        let form = Form::new("TerminateInstances").set("InstanceId.1", instance);
        match self.0.ec2.call(form, &attempted).await {
            Ok(_) => {}
            Err(error) if error.kind == Kind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        let begun = Instant::now();
        let mut pauses = Pauses::up_to(LONGEST_PAUSE);
        loop {
            match self.instance(instance).await? {
                None => return Ok(()),
                Some(launched) if launched.state == "terminated" => return Ok(()),
                Some(launched) if begun.elapsed() > GONE_PATIENCE => {
                    let why = format!("it is still {}", launched.state);
                    return Err(CloudError::new(attempted, Kind::Unavailable, "", why));
                }
                Some(_) => pauses.pause().await,
            }
        }
    }
}

pub(super) fn form(request: &InstanceRequest) -> Form {
    let nic = |name: &str| format!("NetworkInterface.1.{name}");
    let form = Form::new("RunInstances")
        .set("ImageId", &request.image)
        .set("InstanceType", &request.instance_type)
        .set("MinCount", 1)
        .set("MaxCount", 1)
        .set("ClientToken", &request.token)
        // A guest that shuts itself down is looked at, not lost.
        .set("InstanceInitiatedShutdownBehavior", "stop")
        .set("MetadataOptions.HttpTokens", "required")
        .set(nic("DeviceIndex"), 0)
        .set(nic("SubnetId"), &request.subnet)
        .set(nic("DeleteOnTermination"), true)
        .set(nic("AssociatePublicIpAddress"), false)
        .maybe(nic("PrivateIpAddress"), request.address);
    let groups = (1..).zip(&request.security_groups);
    let form = groups.fold(form, |form, (place, group)| {
        form.set(nic(&format!("SecurityGroupId.{place}")), group)
    });
    let tags = &request.tags;
    form.tags(&[
        ("instance", tags),
        ("volume", tags),
        ("network-interface", tags),
    ])
}

fn launched(item: &Element) -> Launched {
    let text = |path: &[&str]| item.text_at(path).to_owned();
    let volumes = item.items(&["blockDeviceMapping"]);
    Launched {
        instance: text(&["instanceId"]),
        state: text(&["instanceState", "name"]),
        address: text(&["privateIpAddress"]),
        zone: text(&["placement", "availabilityZone"]),
        instance_type: text(&["instanceType"]),
        root_device: text(&["rootDeviceName"]),
        volumes: volumes
            .map(|volume| {
                (
                    volume.text_at(&["deviceName"]).to_owned(),
                    volume.text_at(&["ebs", "volumeId"]).to_owned(),
                )
            })
            .collect(),
        reason: (
            text(&["stateReason", "code"]),
            text(&["stateReason", "message"]),
        ),
    }
}
