#!/usr/bin/env python3
"""An account as a journey needs it, made and read by the vendor's client.

    account.py URL network [--zones N]      a recovery network and its isolated twin, as JSON
    account.py URL state TAG VALUE          what exists with a tag, as JSON
    account.py URL interface SUBNET ADDRESS an interface that has an address, as JSON
    account.py URL free INTERFACE           it goes
    account.py URL disk INSTANCE DEVICE TO  the disk behind an instance's device, written to a file

A disk is read by GetSnapshotBlock of the snapshot that the instance's image maps to the device: what was never put is zero.
"""

import argparse
import json
import sys

import boto3
from botocore.config import Config

REGION = "eu-central-1"
BLOCK = 512 << 10


def client(url, service):
    return boto3.client(
        service, endpoint_url=url, region_name=REGION, aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
        aws_secret_access_key="secret", config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip


def network(url, zones):
    ec2 = client(url, "ec2")
    made = {}
    for name in ("recovery", "test"):
        vpc = ec2.create_vpc(CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
        group = ec2.create_security_group(GroupName=f"{name}-inner", Description="inner", VpcId=vpc)
        subnets = [
            ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.20.{number}.0/24", AvailabilityZone=f"{REGION}{letter}")
            for number, letter in zip(range(1, zones + 1), "abc")
        ]
        made[name] = {
            "vpc": vpc,
            "security_group": group["GroupId"],
            "subnets": [subnet["Subnet"]["SubnetId"] for subnet in subnets],
        }
    return made


def state(url, tag, value):
    ec2 = client(url, "ec2")
    filters = [{"Name": f"tag:{tag}", "Values": [value]}]
    reservations = ec2.describe_instances(Filters=filters)["Reservations"]
    return {
        "instances": [instance for reservation in reservations for instance in reservation["Instances"]],
        "images": ec2.describe_images(Owners=["self"], Filters=filters)["Images"],
        "snapshots": ec2.describe_snapshots(OwnerIds=["self"], Filters=filters)["Snapshots"],
        "volumes": ec2.describe_volumes(Filters=filters)["Volumes"],
        "network_interfaces": ec2.describe_network_interfaces(Filters=filters)["NetworkInterfaces"],
    }


def interface(url, subnet, address):
    made = client(url, "ec2").create_network_interface(SubnetId=subnet, PrivateIpAddress=address)
    return {"interface": made["NetworkInterface"]["NetworkInterfaceId"]}


def free(url, interface):
    client(url, "ec2").delete_network_interface(NetworkInterfaceId=interface)


def disk(url, instance, device, to):
    ec2, ebs = client(url, "ec2"), client(url, "ebs")
    described = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    image = ec2.describe_images(ImageIds=[described["ImageId"]])["Images"][0]
    mapped = {mapping["DeviceName"]: mapping["Ebs"] for mapping in image["BlockDeviceMappings"]}
    snapshot = mapped[device]["SnapshotId"]
    volumes = {mapping["DeviceName"]: mapping["Ebs"]["VolumeId"] for mapping in described["BlockDeviceMappings"]}
    volume = ec2.describe_volumes(VolumeIds=[volumes[device]])["Volumes"][0]
    if volume["SnapshotId"] != snapshot:
        sys.exit(f"{device} of {instance} is a volume of {volume['SnapshotId']}, its image maps {snapshot}")
    pages = {}
    with open(to, "wb") as out:
        out.truncate(volume["Size"] << 30)
        while pages is not None:
            listed = ebs.list_snapshot_blocks(SnapshotId=snapshot, **pages)
            for block in listed["Blocks"]:
                index = block["BlockIndex"]
                got = ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=index, BlockToken=block["BlockToken"])
                out.seek(index * BLOCK)
                out.write(got["BlockData"].read())
            pages = {"NextToken": listed["NextToken"]} if listed.get("NextToken") else None
    return {"snapshot": snapshot, "boot_mode": image.get("BootMode"), "ena": image.get("EnaSupport")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("network").add_argument("--zones", type=int, default=2)
    told = commands.add_parser("state")
    told.add_argument("tag")
    told.add_argument("value")
    held = commands.add_parser("interface")
    for name in ("subnet", "address"):
        held.add_argument(name)
    commands.add_parser("free").add_argument("interface")
    read = commands.add_parser("disk")
    for name in ("instance", "device", "to"):
        read.add_argument(name)
    given = vars(parser.parse_args())
    command = {"network": network, "state": state, "disk": disk, "interface": interface, "free": free}[given.pop("command")]
    json.dump(command(**given), sys.stdout, default=str)


if __name__ == "__main__":
    main()
