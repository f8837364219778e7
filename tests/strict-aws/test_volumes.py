"""Volumes beside a launch, and an instance that gets another root, driven by boto3."""

import pytest

from test_ebs import block, made, refused
from test_ec2 import launch_parameters, network, subnet  # noqa: F401


@pytest.fixture
def donor(server, network, subnet):  # noqa: F811
    image = server.strict("POST", "windows-image", {"name": f"Windows-{subnet[1]}", "boot_mode": "legacy-bios"})["image"]
    launched = server.client("ec2").run_instances(**launch_parameters(image, subnet, network[1]))["Instances"][0]
    return launched["InstanceId"]


def volume(server, snapshot, **more):
    return server.client("ec2").create_volume(
        **{"SnapshotId": snapshot, "AvailabilityZone": "eu-central-1a", "VolumeType": "gp3", **more}
    )["VolumeId"]


def wait(server, *volumes):
    server.client("ec2").get_waiter("volume_available").wait(VolumeIds=list(volumes), WaiterConfig={"Delay": 0})


def seen(server, instance):
    return server.client("ec2").describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]


def test_an_image_of_windows_is_amazon_s_and_found_by_its_name(server, donor):
    ec2 = server.client("ec2")
    (image,) = ec2.describe_images(Owners=["amazon"], Filters=[{"Name": "name", "Values": ["Windows-10.0.*"]}])["Images"]
    assert (image["Platform"], image["ImageOwnerAlias"], image["BootMode"]) == ("windows", "amazon", "legacy-bios")
    assert seen(server, donor)["Platform"] == "windows"
    assert ec2.describe_images(Owners=["self"])["Images"] == []


def test_a_volume_is_made_once_for_a_token_and_takes_its_time(server):
    ec2, snapshot = server.client("ec2"), made(server, {0: block(1)})
    one = volume(server, snapshot, ClientToken="t1")
    assert volume(server, snapshot, ClientToken="t1") == one
    refused("IdempotentParameterMismatch", 400, lambda: volume(server, snapshot, ClientToken="t1", VolumeType="gp2"))
    assert ec2.describe_volumes(VolumeIds=[one])["Volumes"][0]["State"] == "creating"
    wait(server, one)
    ec2.delete_volume(VolumeId=one)
    refused("InvalidVolume.NotFound", 400, lambda: volume(server, snapshot, ClientToken="t1"))
    refused("InvalidSnapshot.NotFound", 400, lambda: volume(server, "snap-0123456789abcdef0"))


def test_a_root_is_swapped_in_a_stopped_instance_alone(server, donor):
    ec2, snapshot = server.client("ec2"), made(server, {0: block(2)})
    old = seen(server, donor)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    new, far = volume(server, snapshot), volume(server, snapshot, AvailabilityZone="eu-central-1b")
    refused("IncorrectState", 400, lambda: ec2.attach_volume(VolumeId=new, InstanceId=donor, Device="xvdf"))
    wait(server, new, far)
    refused("OperationNotPermitted", 400, lambda: ec2.detach_volume(VolumeId=old))
    ec2.stop_instances(InstanceIds=[donor], Force=True)
    refused("InvalidParameterValue", 400, lambda: ec2.attach_volume(VolumeId=new, InstanceId=donor, Device="/dev/sda1"))
    ec2.detach_volume(VolumeId=old, InstanceId=donor)
    refused("IncorrectState", 400, lambda: ec2.detach_volume(VolumeId=old))
    refused("IncorrectState", 400, lambda: ec2.start_instances(InstanceIds=[donor]))
    refused("InvalidVolume.ZoneMismatch", 400, lambda: ec2.attach_volume(VolumeId=far, InstanceId=donor, Device="/dev/sda1"))
    ec2.attach_volume(VolumeId=new, InstanceId=donor, Device="/dev/sda1")
    refused("VolumeInUse", 400, lambda: ec2.attach_volume(VolumeId=new, InstanceId=donor, Device="xvdf"))
    changed = {"DeviceName": "/dev/sda1", "Ebs": {"DeleteOnTermination": True}}
    refused("InvalidInstanceAttributeValue", 400, lambda: ec2.modify_instance_attribute(InstanceId=donor, BlockDeviceMappings=[{**changed, "DeviceName": "xvdf"}]))
    ec2.modify_instance_attribute(InstanceId=donor, BlockDeviceMappings=[changed])
    ec2.start_instances(InstanceIds=[donor])
    assert seen(server, donor)["State"]["Name"] == "running"
    ec2.terminate_instances(InstanceIds=[donor])
    left = [one["VolumeId"] for one in ec2.describe_volumes()["Volumes"]]
    assert old in left and new not in left


def test_a_volume_that_was_attached_by_hand_outlives_its_instance(server, donor):
    ec2, snapshot = server.client("ec2"), made(server, {0: block(3)})
    data = volume(server, snapshot)
    wait(server, data)
    ec2.attach_volume(VolumeId=data, InstanceId=donor, Device="xvdf")
    ec2.terminate_instances(InstanceIds=[donor])
    assert ec2.describe_volumes(VolumeIds=[data])["Volumes"][0]["State"] == "available"
