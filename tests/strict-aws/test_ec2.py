"""Images, instances and what hangs on them, driven by boto3."""

import base64

import pytest

from test_ebs import block, made, refused

SUBNETS = iter(range(1, 250))


@pytest.fixture(scope="module")
def network(server):
    ec2 = server.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    group = ec2.create_security_group(GroupName="dr", Description="dr", VpcId=vpc)["GroupId"]
    return vpc, group


@pytest.fixture
def subnet(server, network):
    third = next(SUBNETS)
    made_one = server.client("ec2").create_subnet(
        VpcId=network[0], CidrBlock=f"10.0.{third}.0/24", AvailabilityZone="eu-central-1a"
    )
    return made_one["Subnet"]["SubnetId"], f"10.0.{third}."


@pytest.fixture(scope="module")
def snapshot(server):
    return made(server, {0: block(0)})


def image_parameters(name, snapshot, **changed):
    mapping = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot, "VolumeType": "gp3", "Iops": 4000}}
    return {
        "Name": name, "Architecture": "x86_64", "VirtualizationType": "hvm", "BootMode": "uefi", "EnaSupport": True,
        "RootDeviceName": "/dev/xvda", "BlockDeviceMappings": [mapping], "TpmSupport": "v2.0", "ImdsSupport": "v2.0",
        "TagSpecifications": [{"ResourceType": "image", "Tags": [{"Key": "run", "Value": name}]}], **changed,
    }  # fmt: skip


def registered(server, name, snapshot, **changed):
    return server.client("ec2").register_image(**image_parameters(name, snapshot, **changed))["ImageId"]


def launch_parameters(image, subnet, group, **changed):
    tags = [{"ResourceType": kind, "Tags": [{"Key": "run", "Value": kind}]}
            for kind in ("instance", "volume", "network-interface")]  # fmt: skip
    return {
        "ImageId": image, "InstanceType": "m5.large", "MinCount": 1, "MaxCount": 1, "TagSpecifications": tags,
        "MetadataOptions": {"HttpTokens": "required"},
        "NetworkInterfaces": [{"DeviceIndex": 0, "SubnetId": subnet[0], "Groups": [group], "DeleteOnTermination": True,
                               "PrivateIpAddress": subnet[1] + "77"}], **changed,
    }  # fmt: skip


def nic(subnet, **changed):
    return {"NetworkInterfaces": [{"DeviceIndex": 0, "SubnetId": subnet[0], **changed}]}


def test_an_image_keeps_what_was_registered(server, snapshot):
    ec2 = server.client("ec2")
    image = registered(server, "keeps", snapshot)
    (seen,) = ec2.describe_images(ImageIds=[image])["Images"]
    for name, value in image_parameters("keeps", snapshot).items():
        if name not in ("TagSpecifications", "BlockDeviceMappings"):
            assert seen[name] == value, name
    assert seen["BlockDeviceMappings"] == [{"DeviceName": "/dev/xvda", "Ebs": {
        "SnapshotId": snapshot, "VolumeType": "gp3", "Iops": 4000, "VolumeSize": 1, "DeleteOnTermination": True,
        "Encrypted": False,
    }}]  # fmt: skip
    assert seen["Tags"] == [{"Key": "run", "Value": "keeps"}] and seen["State"] == "available"
    message = refused("InvalidAMIName.Duplicate", 400, registered, server, "keeps", snapshot)
    assert message == f"AMI name keeps is already in use by AMI {image}"
    refused("InvalidSnapshot.InUse", 400, ec2.delete_snapshot, SnapshotId=snapshot)
    ec2.deregister_image(ImageId=image)
    registered(server, "keeps", snapshot)
    assert ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]


def test_wrong_images_are_refused(server, snapshot):
    def no(code, **changed):
        return refused(code, 400, registered, server, "wrong", snapshot, **changed)

    pending = server.client("ebs").start_snapshot(VolumeSize=1)["SnapshotId"]
    root = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}}
    no("InvalidBlockDeviceMapping", RootDeviceName="/dev/sda1")
    no("InvalidBlockDeviceMapping", BlockDeviceMappings=[root, root])
    no("InvalidBlockDeviceMapping", BlockDeviceMappings=[{**root, "Ebs": {"VolumeSize": 1}}])
    no("IncorrectState", BlockDeviceMappings=[{**root, "Ebs": {"SnapshotId": pending}}])
    no("InvalidSnapshot.NotFound", BlockDeviceMappings=[{**root, "Ebs": {"SnapshotId": "snap-0123456789abcdef0"}}])
    no("InvalidParameterCombination", VirtualizationType="paravirtual")
    no("InvalidParameterCombination", BootMode="uefi-preferred")  # with a TPM
    no("InvalidAMIName.Malformed", Name="a*b")
    too_long = {"ResourceType": "image", "Tags": [{"Key": "k", "Value": "v" * 257}]}
    no("InvalidParameterValue", TagSpecifications=[too_long])
    no("InvalidParameterValue", TagSpecifications=[{**too_long, "ResourceType": "snapshot"}])
    big = made(server, {}, VolumeSize=2)
    no("InvalidBlockDeviceMapping", BlockDeviceMappings=[{**root, "Ebs": {"SnapshotId": big, "VolumeSize": 1}}])
    server.client("ec2").delete_snapshot(SnapshotId=pending)  # a pending one can go
    assert not server.client("ec2").describe_images(Filters=[{"Name": "name", "Values": ["wrong"]}])["Images"]
    refused("DryRunOperation", 412, registered, server, "wrong", snapshot, DryRun=True)


def test_an_instance_has_its_images_disks_and_its_address(server, snapshot, subnet, network):
    ec2 = server.client("ec2")
    data = made(server, {1: block(1)}, VolumeSize=2)
    root = image_parameters("disks", snapshot)["BlockDeviceMappings"][0]
    image = registered(server, "disks", snapshot, BlockDeviceMappings=[
        root, {"DeviceName": "/dev/sdf", "Ebs": {"SnapshotId": data, "VolumeSize": 3, "DeleteOnTermination": True}},
    ])  # fmt: skip
    instance = ec2.run_instances(**launch_parameters(image, subnet, network[1]))["Instances"][0]
    assert instance["State"]["Name"] == "pending"
    (seen,) = ec2.describe_instances(InstanceIds=[instance["InstanceId"]])["Reservations"][0]["Instances"]
    assert seen["PrivateIpAddress"] == subnet[1] + "77" and seen["MetadataOptions"]["HttpTokens"] == "required"
    assert seen["Tags"] == [{"Key": "run", "Value": "instance"}]
    mapped = {m["DeviceName"]: m["Ebs"] for m in seen["BlockDeviceMappings"]}
    assert set(mapped) == {"/dev/xvda", "/dev/sdf"} and all(m["DeleteOnTermination"] for m in mapped.values())
    volumes = {v["Attachments"][0]["Device"]: v for v in ec2.describe_volumes(
        Filters=[{"Name": "tag:run", "Values": ["volume"]}])["Volumes"]}  # fmt: skip
    assert {d: (v["SnapshotId"], v["Size"], v["VolumeType"], v.get("Iops")) for d, v in volumes.items()} == {
        "/dev/xvda": (snapshot, 1, "gp3", 4000), "/dev/sdf": (data, 3, "gp2", None),
    }  # fmt: skip
    refused("VolumeInUse", 400, ec2.delete_volume, VolumeId=volumes["/dev/sdf"]["VolumeId"])
    (eni,) = ec2.describe_network_interfaces(Filters=[{"Name": "tag-key", "Values": ["run"]}])["NetworkInterfaces"]
    assert eni["TagSet"] == [{"Key": "run", "Value": "network-interface"}]
    assert [g["GroupId"] for g in eni["Groups"]] == [network[1]]
    for key, value, found in (("tag:run", "instance", 1), ("tag-key", "run", 1), ("tag:run", "volume", 0)):
        by_tag = ec2.describe_instances(Filters=[{"Name": key, "Values": [value]}])["Reservations"]
        assert len(by_tag) == found
    for call, name in (("describe_volumes", "Volumes"), ("describe_network_interfaces", "NetworkInterfaces")):
        pages = ec2.get_paginator(call).paginate(PaginationConfig={"PageSize": 5})
        assert len([item for page in pages for item in page[name]]) == len(getattr(ec2, call)()[name])
    left = server.strict("GET", "inventory?tag=run")
    assert (len(left["instances"]), len(left["volumes"]), len(left["network_interfaces"])) == (1, 2, 1)

    ec2.stop_instances(InstanceIds=[instance["InstanceId"]])
    ec2.start_instances(InstanceIds=[instance["InstanceId"]])
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    (seen,) = ec2.describe_instances(InstanceIds=[instance["InstanceId"]])["Reservations"][0]["Instances"]
    assert seen["State"]["Name"] == "terminated" and seen["NetworkInterfaces"] == []
    left = server.strict("GET", "inventory?tag=run&value=instance")
    assert not left["instances"]
    assert not ec2.describe_volumes(Filters=[{"Name": "tag:run", "Values": ["volume"]}])["Volumes"]
    refused("IncorrectInstanceState", 400, ec2.start_instances, InstanceIds=[instance["InstanceId"]])
    # The address is free again.
    again = ec2.run_instances(**launch_parameters(image, subnet, network[1]))["Instances"][0]
    ec2.terminate_instances(InstanceIds=[again["InstanceId"]])


def test_a_launch_is_idempotent_by_its_token(server, snapshot, subnet, network):
    ec2 = server.client("ec2")
    launch = launch_parameters(registered(server, "token", snapshot), subnet, network[1], ClientToken="t")
    first = ec2.run_instances(**launch)
    again = ec2.run_instances(**launch)
    instance = first["Instances"][0]["InstanceId"]
    assert (again["ReservationId"], again["Instances"][0]["InstanceId"]) == (first["ReservationId"], instance)
    refused("IdempotentParameterMismatch", 400, ec2.run_instances, **{**launch, "InstanceType": "m5.xlarge"})
    ec2.terminate_instances(InstanceIds=[instance])
    late = ec2.run_instances(**launch)["Instances"][0]
    assert (late["InstanceId"], late["State"]["Name"]) == (instance, "terminated")
    refused("InvalidParameterValue", 400, ec2.run_instances, **{**launch, "ClientToken": "x" * 65})


def test_launches_that_cannot_be_are_refused(server, snapshot, subnet, network):
    ec2 = server.client("ec2")
    image = registered(server, "cannot", snapshot)
    launch = launch_parameters(image, subnet, network[1])

    def no(code, status=400, **changed):
        return refused(code, status, ec2.run_instances, **{**launch, **changed})

    no("DryRunOperation", 412, DryRun=True)
    no("InvalidAMIID.NotFound", ImageId="ami-0123456789abcdef0")
    no("InvalidParameterCombination", SubnetId=subnet[0])
    no("InvalidParameterCombination", SecurityGroupIds=[network[1]])
    for last in (0, 1, 3, 255):
        assert "reserved" in no("InvalidParameterValue", **nic(subnet, PrivateIpAddress=f"{subnet[1]}{last}"))
    no("InvalidParameterValue", **nic(subnet, PrivateIpAddress="10.1.0.9"))
    no("InvalidSubnetID.NotFound", **nic(("subnet-0123456789abcdef0",)))
    no("InvalidGroup.NotFound", **nic(subnet, Groups=["sg-0123456789abcdef0"]))
    assert "UEFI" in no("InvalidParameterValue", InstanceType="t2.micro").upper()
    no("InvalidParameterValue", InstanceType="m6g.large")  # arm64
    no("Unsupported", InstanceType="p5.48xlarge")
    no("InvalidParameterValue", MaxCount=2)
    no("InvalidBlockDeviceMapping", BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": "snap-1"}}])
    no_ena = registered(server, "no ena", snapshot, EnaSupport=False)
    assert "ENA" in no("InvalidParameterCombination", ImageId=no_ena)
    assert not server.strict("GET", "inventory?tag=run")["instances"]
    assert not server.strict("GET", "inventory?tag=run")["volumes"]
    instance = ec2.run_instances(**launch)["Instances"][0]["InstanceId"]
    no("InvalidIPAddress.InUse")
    ec2.terminate_instances(InstanceIds=[instance])
    ec2.deregister_image(ImageId=image)
    no("InvalidAMIID.Unavailable")


def test_a_launch_without_interfaces_takes_its_own_with_it(server, snapshot, subnet, network):
    ec2 = server.client("ec2")
    image = registered(server, "plain", snapshot)
    launch = launch_parameters(image, subnet, network[1], SubnetId=subnet[0], SecurityGroupIds=[network[1]],
                               PrivateIpAddress=subnet[1] + "8")  # fmt: skip
    del launch["NetworkInterfaces"]
    instance = ec2.run_instances(**launch)["Instances"][0]
    assert (instance["PrivateIpAddress"], instance["SubnetId"]) == (subnet[1] + "8", subnet[0])
    refused("InvalidIPAddress.InUse", 400, ec2.run_instances, **launch)
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    left = server.strict("GET", "inventory?tag=run")
    assert (left["volumes"], left["network_interfaces"]) == ([], [])


def test_what_is_not_to_be_deleted_stays(server, snapshot, subnet, network):
    ec2 = server.client("ec2")
    image = registered(server, "stays", snapshot)
    keep = {"BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"DeleteOnTermination": False}}]}
    asked = nic(subnet, PrivateIpAddress=subnet[1] + "9", DeleteOnTermination=False)
    instance = ec2.run_instances(**launch_parameters(image, subnet, network[1], **keep, **asked))["Instances"][0]
    ec2.create_tags(Resources=[instance["InstanceId"], image, snapshot], Tags=[{"Key": "late", "Value": "1"}])
    left = server.strict("GET", "inventory?tag=late")
    assert (left["instances"], left["images"], left["snapshots"]) == ([instance["InstanceId"]], [image], [snapshot])
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    left = server.strict("GET", "inventory?tag=run")
    (volume,), (eni,) = left["volumes"], left["network_interfaces"]
    ec2.delete_volume(VolumeId=volume)
    ec2.delete_network_interface(NetworkInterfaceId=eni)
    refused("InvalidVolume.NotFound", 400, ec2.delete_volume, VolumeId=volume)
    # With the interface its address is free.
    again = ec2.run_instances(**launch_parameters(image, subnet, network[1], **asked))["Instances"][0]
    refused("InvalidParameterValue", 400, ec2.delete_network_interface,
            NetworkInterfaceId=again["NetworkInterfaces"][0]["NetworkInterfaceId"])  # fmt: skip
    ec2.terminate_instances(InstanceIds=[again["InstanceId"]])


def test_descriptions_come_in_pages_and_by_tag(server, snapshot):
    ec2, ebs = server.client("ec2"), server.client("ebs")
    for number in range(7):
        tags = [{"Key": "page", "Value": str(number)}]
        ebs.start_snapshot(VolumeSize=1, Tags=tags)
        registered(server, f"page {number}", snapshot, TagSpecifications=[{"ResourceType": "image", "Tags": tags}])
    by_tag = [{"Name": "tag-key", "Values": ["page"]}]
    for call, key in (("describe_snapshots", "Snapshots"), ("describe_images", "Images")):
        pages = list(ec2.get_paginator(call).paginate(Filters=by_tag, PaginationConfig={"PageSize": 5}))
        assert [len(page[key]) for page in pages] == [5, 2]
        one = getattr(ec2, call)(Filters=[{"Name": "tag:page", "Values": ["3"]}])[key]
        assert [item["Tags"] for item in one] == [[{"Key": "page", "Value": "3"}]]
    assert ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]
    assert not ec2.describe_snapshots(OwnerIds=["210987654321"])["Snapshots"]
    refused("InvalidParameterValue", 400, ec2.describe_images, MaxResults=2)


def test_a_console_says_what_it_was_told_and_nothing_else(server, snapshot, subnet, network):
    ec2 = server.client("ec2")
    image = registered(server, "console", snapshot)
    instance = ec2.run_instances(**launch_parameters(image, subnet, network[1]))["Instances"][0]["InstanceId"]
    assert "Output" not in ec2.get_console_output(InstanceId=instance, Latest=True)
    assert server.raw("POST", f"/strict/console/{instance}", b"x" * 70_000 + b" login: \xff")[0] == 200
    said = ec2.get_console_output(InstanceId=instance, Latest=True)["Output"]
    assert len(said) >= 65_000 and " login: " in said
    assert base64.b64decode(ec2.get_console_screenshot(InstanceId=instance)["ImageData"]).startswith(b"\xff\xd8")
    ec2.terminate_instances(InstanceIds=[instance])
    refused("IncorrectInstanceState", 400, ec2.get_console_screenshot, InstanceId=instance)
    assert server.raw("POST", "/strict/console/i-00000000000000000", b"x")[0] == 404
