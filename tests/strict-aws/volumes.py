"""Volumes that are made, attached and detached by themselves; and the images of Windows that Amazon has."""

from types import SimpleNamespace

from moto.core.responses import ActionResult
from moto.ec2.models import EC2Backend
from moto.ec2.models.elastic_block_store import Snapshot, Volume
from moto.ec2.models.instances import Instance
from moto.ec2.responses.elastic_block_store import ElasticBlockStore
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.utils import random_snapshot_id

from images import StrictAmi, check_ebs, fail, specified_tags, usable_snapshot

AMAZON = "801119661308"
# How often DescribeVolumes is asked until a volume that was made is available: the third time.
ASKS = 2


def create_volume(original):
    def method(self):
        backend, parameters = self.ec2_backend, dict(self.params)
        if "AvailabilityZone" not in parameters:
            fail("MissingParameter", "The request must contain the parameter availabilityZone")
        dry_run, token = parameters.pop("DryRun", False), parameters.pop("ClientToken", None)
        tokens = backend.__dict__.setdefault("strict_volume_tokens", {})
        if token in tokens and not dry_run:
            before, volume = tokens[token]
            if before != parameters:
                fail("IdempotentParameterMismatch", "The client token was used with other parameters")
            if volume.id not in backend.volumes:
                fail("InvalidVolume.NotFound", f"The volume '{volume.id}' does not exist.")
            return ActionResult(volume)
        snapshot = usable_snapshot(backend, parameters["SnapshotId"]) if "SnapshotId" in parameters else None
        ebs = {name: value for name, value in parameters.items() if name in ("VolumeType", "Iops", "Throughput")}
        check_ebs(ebs | {"VolumeSize": parameters["Size"]} if "Size" in parameters else ebs, snapshot, "the volume")
        specified_tags(parameters, {"volume"})
        result = original(self)
        volume = result.result
        if snapshot is not None and snapshot.encrypted:
            volume.kms_key_id = snapshot.kms_key_id
        volume.strict_asks = ASKS
        if token is not None:
            tokens[token] = (parameters, volume)
        return result

    return method


def status(original):
    def method(self):
        return "creating" if getattr(self, "strict_asks", 0) > 0 else original.fget(self)

    return property(method)


def describe_volumes(original):
    def method(self, volume_ids=None, filters=None):
        found = original(self, volume_ids, filters)
        for volume in found:
            volume.strict_asks = max(getattr(volume, "strict_asks", 0) - 1, 0)
        return found

    return method


def attach_volume(original):
    def method(self):
        backend, device = self.ec2_backend, self.params["Device"]
        volume, instance = backend.get_volume(self.params["VolumeId"]), backend.get_instance(self.params["InstanceId"])
        if volume.attachment is not None:
            fail("VolumeInUse", f"{volume.id} is already attached to an instance")
        if volume.status != "available":
            fail("IncorrectState", f"Volume {volume.id} is in the state {volume.status}, not available")
        if instance.state not in ("running", "stopped"):
            fail("IncorrectState", f"Instance '{instance.id}' is not 'running' or 'stopped'")
        if volume.zone.name != instance.placement.zone:
            fail("InvalidVolume.ZoneMismatch", f"The volume '{volume.id}' is not in the same availability zone as "
                 f"instance '{instance.id}'")
        if device in instance.block_device_mapping:
            fail("InvalidParameterValue", f"Invalid value '{device}' for unixDevice. Attachment point {device} is "
                 "already in use")
        return original(self)

    return method


def detach_volume(original):
    def method(self):
        volume = self.ec2_backend.get_volume(self.params["VolumeId"])
        if volume.attachment is None:
            fail("IncorrectState", f"Volume '{volume.id}' is in the 'available' state.")
        instance = volume.attachment.instance
        if self.params.get("InstanceId", instance.id) != instance.id:
            fail("InvalidAttachment.NotFound", f"The volume '{volume.id}' is not attached to that instance")
        if volume.attachment.device == instance.root_device_name and instance.state != "stopped":
            fail("OperationNotPermitted", f"Unable to detach root volume '{volume.id}' from instance '{instance.id}'")
        self.params["InstanceId"] = instance.id
        return original(self)

    return method


def start(original):
    def method(self, *positional, **named):
        if self.state == "stopped" and self.root_device_name not in self.block_device_mapping:
            fail("IncorrectState", f"Instance '{self.id}' does not have a volume attached at root "
                 f"({self.root_device_name})")
        return original(self, *positional, **named)

    return method


def modify_instance_attribute(original):
    def method(self):
        for mapping in self.params.get("BlockDeviceMappings", []):
            instance = self.ec2_backend.get_instance(self.params["InstanceId"])
            if mapping.get("DeviceName") not in instance.block_device_mapping:
                fail("InvalidInstanceAttributeValue", f"No device is currently mapped at {mapping.get('DeviceName')}")
        return original(self)

    return method


def windows_image(backend, name, boot_mode):
    """An image as Amazon has them, public: of what is on its disk nothing is known here."""
    volume = SimpleNamespace(id="vol-ffffffff", size=30)
    snapshot = Snapshot(backend, random_snapshot_id(), volume, "Windows", owner_id=AMAZON)
    backend.snapshots[snapshot.id] = snapshot
    parameters = {
        "Name": name, "Architecture": "x86_64", "VirtualizationType": "hvm", "BootMode": boot_mode, "EnaSupport": True,
        "RootDeviceName": "/dev/sda1", "TpmSupport": "v2.0" if boot_mode == "uefi" else None,
    }  # fmt: skip
    ebs = {"SnapshotId": snapshot.id, "VolumeType": "gp2", "VolumeSize": 30, "DeleteOnTermination": True,
           "Encrypted": False}  # fmt: skip
    image = StrictAmi(backend, parameters, [{"DeviceName": "/dev/sda1", "Ebs": ebs}], {})
    image.owner_id, image.owner_alias, image.launch_permissions = AMAZON, "amazon", [{"Group": "all"}]
    image.platform, image.platform_details, image.usage_operation = "windows", "Windows", "RunInstances:0002"
    backend.amis[image.id] = image
    return image.id


def apply():
    ElasticBlockStore.create_volume = create_volume(ElasticBlockStore.create_volume)
    Volume.status = status(Volume.status)
    EC2Backend.describe_volumes = describe_volumes(EC2Backend.describe_volumes)
    ElasticBlockStore.attach_volume = attach_volume(ElasticBlockStore.attach_volume)
    ElasticBlockStore.detach_volume = detach_volume(ElasticBlockStore.detach_volume)
    Instance.start = start(Instance.start)
    InstanceResponse.modify_instance_attribute = modify_instance_attribute(InstanceResponse.modify_instance_attribute)
