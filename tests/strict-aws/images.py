"""RegisterImage as AWS has it: moto keeps a name and drops the disks, the boot mode, ENA, the TPM and the tags."""

import re

from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ec2.exceptions import (
    EC2ClientError,
    InvalidAMIIdError,
    InvalidSnapshotInUse,
    MalformedAMIIdError,
    UnvailableAMIIdError,
)
from moto.ec2.models import EC2Backend
from moto.ec2.models.amis import Ami
from moto.ec2.responses.amis import AmisResponse
from moto.ec2.responses.elastic_block_store import ElasticBlockStore
from moto.ec2.utils import convert_tag_spec, random_ami_id

from blocks import DirectSnapshot

NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")


def fail(code, message):
    raise EC2ClientError(code, message)


class StrictAmi(Ami):
    """What was registered, and no snapshot that nobody asked for: moto's own constructor makes one."""

    __module__ = Ami.__module__  # moto's metaclass reads the service out of it

    def __init__(self, backend, parameters, mappings, tags):
        self.ec2_backend = backend
        self.id = random_ami_id()
        self.state = "available"
        self.name = parameters["Name"]
        self.description = parameters.get("Description", "")
        self.owner_id = backend.account_id
        self.owner_alias = None
        self.image_type = "machine"
        self.image_location = f"{backend.account_id}/{self.name}"
        self.architecture = parameters.get("Architecture", "i386")
        self.virtualization_type = parameters.get("VirtualizationType", "paravirtual")
        self.boot_mode = parameters.get("BootMode")
        self.tpm_support = parameters.get("TpmSupport")
        self.imds_support = parameters.get("ImdsSupport")
        self.ena_support = parameters.get("EnaSupport", False)
        self.sriov_net_support = self.sriov = parameters.get("SriovNetSupport")
        self.uefi = parameters.get("UefiData")
        self.kernel_id, self.ramdisk = parameters.get("KernelId"), parameters.get("RamdiskId")
        self.platform, self.platform_details, self.usage_operation = None, "Linux/UNIX", "RunInstances"
        self.hypervisor = "xen"
        self.root_device_type, self.root_device_name = "ebs", parameters["RootDeviceName"]
        self.mappings = mappings
        self.creation_date = utcnow()
        self.product_codes, self.launch_permissions, self.instance_id = set(), [], None
        self.add_tags(tags)

    @property
    def block_device_mappings(self):
        return self.mappings

    @property
    def snapshot_ids(self):
        return {m["Ebs"]["SnapshotId"] for m in self.mappings if "SnapshotId" in m.get("Ebs", {})}


def find_image(backend, image_id):
    """The image to launch, or AWS's error."""
    if not re.fullmatch(r"ami-[0-9a-f]{8}([0-9a-f]{9})?", image_id):
        raise MalformedAMIIdError([image_id])
    if image_id in backend.deleted_amis:
        raise UnvailableAMIIdError(image_id)
    image = backend.amis.get(image_id)
    if image is None:
        raise InvalidAMIIdError(image_id)
    if image.state != "available":
        raise UnvailableAMIIdError(image_id)
    if not isinstance(image, StrictAmi):
        raise NotImplementedError(f"{image_id} was not made by RegisterImage: its disks are unknown here")
    return image


def usable_snapshot(backend, snapshot_id):
    snapshot = backend.snapshots.get(snapshot_id)
    if snapshot is None:
        fail("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist.")
    if snapshot.status != "completed":
        fail("IncorrectState", f"Snapshot is in invalid state - {snapshot.status}")
    return snapshot


def check_ebs(ebs, snapshot, device):
    """What CreateVolume would say of these parameters, before anything is made."""
    size, kind = ebs.get("VolumeSize"), ebs.get("VolumeType", "gp2")
    if size is None and snapshot is None:
        fail("MissingParameter", f"The request must contain the parameter size or snapshotId for {device}")
    if snapshot is not None and size is not None and size < snapshot.volume_size:
        fail("InvalidBlockDeviceMapping",
             f"Volume of size {size}GB is smaller than snapshot '{snapshot.id}', expect size >= "
             f"{snapshot.volume_size}GB")
    if kind in ("io1", "io2") and "Iops" not in ebs:
        fail("MissingParameter", f"The parameter iops must be specified for {kind} volumes.")
    if "Iops" in ebs and kind not in ("gp3", "io1", "io2"):
        fail("InvalidParameterCombination", f"The parameter iops is not supported for {kind} volumes.")
    if "Throughput" in ebs and kind != "gp3":
        fail("InvalidParameterCombination", f"The parameter throughput is not supported for {kind} volumes.")


def registered_mappings(backend, parameters):
    """The block device mappings as DescribeImages tells them, with AWS's defaults filled in."""
    root = parameters.get("RootDeviceName")
    sent = parameters.get("BlockDeviceMappings", [])
    devices = [mapping.get("DeviceName") for mapping in sent]
    if root is None or root not in devices:
        fail("InvalidBlockDeviceMapping", f"The root device '{root}' is not in the block device mappings {devices}")
    if len(set(devices)) != len(devices):
        fail("InvalidBlockDeviceMapping", f"A device is mapped more than once: {devices}")
    result = []
    for mapping in sent:
        device = mapping["DeviceName"]
        if device is None:
            fail("MissingParameter", "The request must contain the parameter deviceName")
        if "Ebs" not in mapping:
            result.append(mapping)
            continue
        ebs = dict(mapping["Ebs"])
        if "KmsKeyId" in ebs:
            fail("InvalidParameter", "The parameter KmsKeyId is not supported by RegisterImage")
        snapshot = usable_snapshot(backend, ebs["SnapshotId"]) if "SnapshotId" in ebs else None
        if device == root and snapshot is None:
            fail("InvalidBlockDeviceMapping", f"The root device '{root}' has no snapshot")
        if snapshot is not None and "Encrypted" in ebs:
            fail("InvalidBlockDeviceMapping",
                 f"the encrypted flag cannot be specified since device {device} has a snapshot specified.")
        check_ebs(ebs, snapshot, device)
        ebs.setdefault("VolumeType", "gp2")
        ebs.setdefault("DeleteOnTermination", device == root)
        if snapshot is not None:
            ebs.setdefault("VolumeSize", snapshot.volume_size)
            ebs["Encrypted"] = snapshot.encrypted
        result.append({**mapping, "Ebs": ebs})
    return result


def specified_tags(parameters, taggable):
    """{resource type: {key: value}} of TagSpecifications, checked before anything is made."""
    tags = convert_tag_spec(parameters.get("TagSpecifications", []))
    if unknown := set(tags) - taggable:
        fail("InvalidParameterValue", f"{sorted(unknown)} is not taggable here: only {sorted(taggable)}")
    for some in tags.values():
        check_tags(some)
    return tags


def check_tags(tags):
    for key, value in tags.items():
        if not 1 <= len(key) <= 128 or len(value or "") > 256:
            fail("InvalidParameterValue", f"Tag keys have 1 to 128 characters, values up to 256: {key!r}")


def create_tags(original):
    def method(self, resource_ids, tags):
        check_tags(tags)
        return original(self, resource_ids, tags)

    return method


def register_image(self):
    backend, parameters = self.ec2_backend, self.params
    name = parameters["Name"]
    if not NAME.fullmatch(name):
        fail("InvalidAMIName.Malformed", "AMI names must be between 3 and 128 characters long, and may contain "
             "letters, numbers, '(', ')', '.', '-', '/' and '_'")
    for image in backend.amis.values():
        if image.name == name and image.owner_id == backend.account_id:
            fail("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {image.id}")
    hvm = parameters.get("VirtualizationType") == "hvm"
    for member in ("BootMode", "EnaSupport", "TpmSupport"):
        if parameters.get(member) and not hvm:
            fail("InvalidParameterCombination", f"{member} needs VirtualizationType=hvm; the default is paravirtual")
    if "TpmSupport" in parameters and parameters.get("BootMode") != "uefi":
        fail("InvalidParameterCombination", "TpmSupport v2.0 needs BootMode=uefi")
    if parameters.get("Architecture", "").startswith("arm64") and parameters.get("BootMode") == "legacy-bios":
        fail("InvalidParameterCombination", "arm64 images boot by UEFI only")
    tags = specified_tags(parameters, {"image"})
    mappings = registered_mappings(backend, parameters)
    self.error_on_dryrun()
    image = StrictAmi(backend, parameters, mappings, tags.get("image", {}))
    backend.amis[image.id] = image
    return ActionResult({"ImageId": image.id})


def describe_snapshots(original):
    def method(self):
        backend, parameters = self.ec2_backend, self.params
        wanted = parameters.get("SnapshotIds") or list(backend.snapshots)
        for snapshot in [backend.snapshots[i] for i in wanted if i in backend.snapshots]:
            if isinstance(snapshot, DirectSnapshot):
                snapshot.asked()
        result = original(self)
        if owners := parameters.get("OwnerIds"):
            owners = {backend.account_id if owner == "self" else owner for owner in owners}
            result.result["Snapshots"] = [s for s in result.result["Snapshots"] if s.owner_id in owners]
        return result

    return method


def delete_snapshot(original):
    def method(self, snapshot_id):
        for image in self.amis.values():
            if isinstance(image, StrictAmi) and snapshot_id in image.snapshot_ids:
                raise InvalidSnapshotInUse(snapshot_id, image.id)
        return original(self, snapshot_id)

    return method


def create_volume(original):
    def method(self, *positional, **named):
        if snapshot_id := named.get("snapshot_id"):
            usable_snapshot(self, snapshot_id)
        return original(self, *positional, **named)

    return method


def apply():
    AmisResponse.register_image = register_image
    ElasticBlockStore.describe_snapshots = describe_snapshots(ElasticBlockStore.describe_snapshots)
    EC2Backend.delete_snapshot = delete_snapshot(EC2Backend.delete_snapshot)
    EC2Backend.create_tags = create_tags(EC2Backend.create_tags)
    EC2Backend.create_volume = create_volume(EC2Backend.create_volume)
