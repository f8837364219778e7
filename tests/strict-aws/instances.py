"""RunInstances and what follows it: volumes from the image's snapshots, addresses, tokens, types that fit."""

import copy
import ipaddress

from moto.core.responses import ActionResult
from moto.ec2.exceptions import InvalidNetworkInterfaceIdError
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES
from moto.ec2.models.instances import Instance
from moto.ec2.models.subnets import Subnet
from moto.ec2.responses._base_response import EC2BaseResponse
from moto.ec2.responses.elastic_network_interfaces import ElasticNetworkInterfaces
from moto.ec2.responses.instances import InstanceResponse

from images import check_ebs, fail, find_image, specified_tags, usable_snapshot

TAGGABLE = {"instance", "volume", "network-interface"}
GONE = ("terminated", "shutting-down")


def run_instances(original):
    def method(self):
        backend, parameters = self.ec2_backend, dict(self.params)
        if "LaunchTemplate" in parameters:
            raise NotImplementedError("RunInstances with a launch template")
        dry_run, token = parameters.pop("DryRun", False), parameters.pop("ClientToken", None)
        if token is not None and (len(token) > 64 or not token.isascii()):
            fail("InvalidParameterValue", "ClientToken must be at most 64 ASCII characters")
        # On the backend, so that a reset of moto forgets them with the rest.
        tokens = backend.__dict__.setdefault("strict_run_tokens", {})
        if token in tokens and not dry_run:
            before, reservation = tokens[token]
            if before != parameters:
                fail("IdempotentParameterMismatch",
                     "The client token you have provided is associated with a resource that was requested with "
                     "other parameters")
            return ActionResult(reservation)
        if (parameters["MinCount"], parameters["MaxCount"]) != (1, 1):
            fail("InvalidParameterValue", "this stand-in launches one instance: MinCount and MaxCount are 1")
        if "ImageId" not in parameters:
            fail("MissingParameter", "The request must contain the parameter ImageId")
        image = find_image(backend, parameters["ImageId"])
        zone = check_network(backend, parameters)
        check_type(backend, image, parameters.get("InstanceType", "m1.small"), zone)
        tags = specified_tags(parameters, TAGGABLE)
        volumes = planned_volumes(backend, image, parameters.get("BlockDeviceMappings", []))
        self.error_on_dryrun()
        existing = set(backend.enis)
        result = original(self)
        reservation = result.result
        instance = reservation.instances[0]
        for device, ebs, delete in volumes:
            attach(backend, instance, device, ebs, delete, tags.get("volume", {}))
        for eni in instance.nics.values():
            if eni.id not in existing:
                eni.add_tags(tags.get("network-interface", {}))
                # Of an interface that a launch makes unasked. One that is asked for goes only if that is said.
                if "NetworkInterfaces" not in parameters:
                    eni.delete_on_termination = True
        if token is not None:
            tokens[token] = (parameters, reservation)
        return result

    return method


def planned_volumes(backend, image, overrides):
    """(device, parameters, delete on termination) of each volume to make: the image's, as the request changes them."""
    mappings = {m["DeviceName"]: dict(m.get("Ebs", {})) for m in image.mappings if "Ebs" in m}
    kept = {device: mapping.pop("Encrypted", False) for device, mapping in mappings.items()}
    seen = set()
    for override in overrides:
        device = override.get("DeviceName")
        if device is None or device in seen:
            fail("InvalidBlockDeviceMapping", f"Device {device} is missing or mapped more than once")
        seen.add(device)
        if "NoDevice" in override:
            if device == image.root_device_name:
                fail("InvalidBlockDeviceMapping", f"The root device {device} cannot be suppressed")
            mappings.pop(device, None)
        elif "Ebs" in override:
            changed = override["Ebs"]
            if device in mappings and changed.get("SnapshotId", mappings[device].get("SnapshotId")) != mappings[
                device
            ].get("SnapshotId"):
                fail("InvalidBlockDeviceMapping", f"snapshotId cannot be modified on device {device}")
            if kept.get(device) and changed.get("Encrypted") is False:
                fail("InvalidBlockDeviceMapping", f"Device {device} comes from an encrypted snapshot")
            if "KmsKeyId" in changed and not changed.get("Encrypted"):
                fail("InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set.")
            mappings[device] = {**mappings.get(device, {}), **changed}
    result = []
    for device, ebs in mappings.items():
        snapshot = usable_snapshot(backend, ebs["SnapshotId"]) if "SnapshotId" in ebs else None
        check_ebs(ebs, snapshot, device)
        if snapshot is not None and snapshot.encrypted:
            ebs["Encrypted"] = True
            ebs.setdefault("KmsKeyId", snapshot.kms_key_id)
        result.append((device, ebs, ebs.get("DeleteOnTermination", device == image.root_device_name)))
    return result


def attach(backend, instance, device, ebs, delete, tags):
    volume = backend.create_volume(
        size=ebs.get("VolumeSize"),
        zone_name=instance.placement.zone,
        snapshot_id=ebs.get("SnapshotId"),
        encrypted=ebs.get("Encrypted", False),
        kms_key_id=ebs.get("KmsKeyId"),
        volume_type=ebs.get("VolumeType"),
        iops=ebs.get("Iops"),
        throughput=ebs.get("Throughput"),
    )
    volume.add_tags(tags)
    backend.attach_volume(volume.id, instance.id, device, delete)
    volume.attachment.delete_on_termination = delete


def check_network(backend, parameters):
    """Subnets, groups and addresses. Returns the zone that the instance goes to."""
    nics = parameters.get("NetworkInterfaces", [])
    if nics:
        for member in ("SubnetId", "SecurityGroupIds", "SecurityGroups", "PrivateIpAddress"):
            if member in parameters:
                fail("InvalidParameterCombination",
                     f"Network interfaces and an instance-level {member} may not be specified on the same request")
        if sorted(nic.get("DeviceIndex", -1) for nic in nics) != list(range(len(nics))):
            fail("InvalidParameterValue", "Each network interface needs a DeviceIndex of its own, from 0 on")
    zone = parameters.get("Placement", {}).get("AvailabilityZone")
    for nic in nics or [{k: v for k, v in parameters.items() if k in ("SubnetId", "PrivateIpAddress")}]:
        if "NetworkInterfaceId" in nic:
            subnet = unused_interface(backend, nic["NetworkInterfaceId"]).subnet
        elif "SubnetId" in nic:
            subnet = backend.get_subnet(nic["SubnetId"])
        else:
            continue
        if zone not in (None, subnet.availability_zone):
            fail("InvalidParameterValue", f"The subnet {subnet.id} is in {subnet.availability_zone}, not in {zone}")
        zone = subnet.availability_zone
        for group_id in nic.get("Groups", parameters.get("SecurityGroupIds", [])):
            group = backend.get_security_group_from_id(group_id)
            if group is None:
                fail("InvalidGroup.NotFound", f"The security group '{group_id}' does not exist")
            if group.vpc_id != subnet.vpc_id:
                fail("InvalidParameter",
                     f"Security group {group_id} and subnet {subnet.id} belong to different networks.")
        addresses = [nic["PrivateIpAddress"]] if "PrivateIpAddress" in nic else []
        addresses += [a["PrivateIpAddress"] for a in nic.get("PrivateIpAddresses", [])]
        for address in addresses:
            check_address(backend, subnet, address)
    return zone


def unused_interface(backend, eni_id):
    eni = backend.enis.get(eni_id)
    if eni is None:
        raise InvalidNetworkInterfaceIdError(eni_id)
    if eni.status != "available":
        fail("InvalidNetworkInterface.InUse", f"The network interface '{eni_id}' is in use")
    return eni


def check_address(backend, subnet, text):
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        fail("InvalidParameterValue", f"Value ({text}) for parameter privateIpAddress is invalid.")
    if address not in subnet.cidr:
        fail("InvalidParameterValue", f"Address {text} does not fall within the subnet's address range")
    offset = int(address) - int(subnet.cidr.network_address)
    if offset < 4 or offset == subnet.cidr.num_addresses - 1:
        fail("InvalidParameterValue", f"Address {text} is in subnet's reserved address range")
    for eni in backend.enis.values():
        if eni.subnet.id == subnet.id and text in [a["PrivateIpAddress"] for a in eni.private_ip_addresses]:
            fail("InvalidIPAddress.InUse", f"Address {text} is in use.")


def check_type(backend, image, name, zone):
    if name not in INSTANCE_TYPES:
        fail("InvalidParameterValue", f"Invalid value '{name}' for InstanceType.")
    data = INSTANCE_TYPES[name]
    architectures = data["ProcessorInfo"]["SupportedArchitectures"]
    if image.architecture not in architectures:
        fail("InvalidParameterValue", f"The architecture '{','.join(architectures)}' of the specified instance type "
             f"does not match the architecture '{image.architecture}' of the specified AMI.")
    if image.virtualization_type not in data["SupportedVirtualizationTypes"]:
        fail("InvalidParameterCombination",
             f"Virtualization type '{image.virtualization_type}' is not supported by {name}.")
    if image.boot_mode in ("uefi", "legacy-bios") and image.boot_mode not in data["SupportedBootModes"]:
        fail("InvalidParameterValue", f"The {name} instance type does not support an AMI with a boot mode of "
             f"{image.boot_mode}. Specify an instance type that supports it, and try again.")
    if data["NetworkInfo"]["EnaSupport"] == "required" and not image.ena_support:
        fail("InvalidParameterCombination", "Enhanced networking with the Elastic Network Adapter (ENA) is required "
             f"for the '{name}' instance type. Ensure that you are using an AMI that is enabled for ENA.")
    if image.tpm_support and data.get("NitroTpmSupport") == "unsupported":
        fail("InvalidParameterValue", f"The {name} instance type does not support an AMI with NitroTPM")
    zone = zone or f"{backend.region_name}a"
    offered = INSTANCE_TYPE_OFFERINGS["availability-zone"].get(backend.region_name, [])
    if not any(o["InstanceType"] == name and o["Location"] == zone for o in offered):
        fail("Unsupported", f"Your requested instance type ({name}) is not supported in your requested "
             f"Availability Zone ({zone}).")


def request_ip(original):
    def method(self, ip, instance):
        check_address(self.ec2_backend, self, ip)
        # moto remembers addresses of interfaces that are gone.
        self._subnet_ips.pop(ip, None)
        return original(self, ip, instance)

    return method


def terminate(original):
    def method(self):
        if self.state in GONE:
            return copy.copy(self._state)
        before = original(self)
        for eni in self.nics.values():
            if eni.id in self.ec2_backend.enis:  # it outlives the instance
                eni.instance = eni.attachment_id = eni.attach_time = None
                eni.status = "available"
        return before

    return method


def only_from(states, verb, original):
    def method(self):
        if self.state not in states:
            fail("IncorrectInstanceState", f"The instance '{self.id}' is not in a state from which it can be {verb}.")
        return original(self)

    return method


def delete_network_interface(original):
    def method(self):
        eni = self.ec2_backend.enis.get(self.params["NetworkInterfaceId"])
        if eni is not None and eni.status != "available":
            fail("InvalidParameterValue", f"Network interface '{eni.id}' is currently in use.")
        return original(self)

    return method


def create_network_interface(original):
    def method(self):
        if "PrivateIpAddress" in self.params:
            subnet = self.ec2_backend.get_subnet(self.params["SubnetId"])
            check_address(self.ec2_backend, subnet, self.params["PrivateIpAddress"])
        return original(self)

    return method


def unless_gone(original, otherwise):
    return property(lambda self: otherwise() if self.state in GONE else original.fget(self))


def apply():
    InstanceResponse.run_instances = run_instances(InstanceResponse.run_instances)
    # The volumes are ours to make: moto would make an empty one, or drop IOPS and throughput.
    InstanceResponse._parse_block_device_mapping = lambda self: []
    Instance.setup_defaults = lambda self: None
    Instance.terminate = terminate(Instance.terminate)
    Instance.start = only_from(("stopped", "running"), "started", Instance.start)
    Instance.stop = only_from(("running", "stopped"), "stopped", Instance.stop)
    Instance.network_interfaces = unless_gone(Instance.network_interfaces, list)
    Instance.private_ip_address = unless_gone(Instance.private_ip_address, lambda: None)
    Subnet.request_ip = request_ip(Subnet.request_ip)
    ElasticNetworkInterfaces.create_network_interface = create_network_interface(
        ElasticNetworkInterfaces.create_network_interface
    )
    ElasticNetworkInterfaces.delete_network_interface = delete_network_interface(
        ElasticNetworkInterfaces.delete_network_interface
    )
    # A launch answers "pending", also where moto is done; the answer to a repeated token tells how things are.
    EC2BaseResponse.RESPONSE_KEY_PATH_TO_TRANSFORMER["RunInstances.Reservation.Instances.Instance.State"] = (
        lambda state: {"Code": 0, "Name": "pending"} if state.name == "running" else state
    )
