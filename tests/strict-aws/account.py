#!/usr/bin/env python3
"""An account as a journey needs it, made and read by the vendor's client. URL `aws` is what the environment says: a real
account, where AWS_ENDPOINT_URL does not name a stand-in.

    account.py URL network [--zones N]      a recovery network and its isolated twin, as JSON
    account.py URL head [--zones N] [--key] the same, as the head of a plan, as terraform's output plan_toml has it
    account.py URL state TAG VALUE          what exists with a tag, as JSON
    account.py URL interface SUBNET ADDRESS an interface that has an address, as JSON
    account.py URL free INTERFACE           it goes
    account.py URL image RUN VM             an image as a run makes them, of an empty disk, as JSON
    account.py URL disk INSTANCE DEVICE TO  the disk behind an instance's device, written to a file
    account.py URL identity                 whose account it is
    account.py URL console INSTANCE FOLDER  what its serial line said and its screen shows, written to files there
    account.py URL left TAG VALUE [--schedules PREFIX --group GROUP]   what still exists, and costs, by kind
    account.py URL bucket NAME [--remove]   a private bucket; or it goes, with all that is in it

A disk is read by GetSnapshotBlock of the snapshot that the instance's image maps to the device, or, of Amazon's images, that its volume
was made from: what was never put is zero.
"""

import argparse
import base64
import json
import os
import pathlib
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

REGION = "eu-central-1"
BLOCK = 512 << 10


def client(url, service):
    if url == "aws":
        patient = Config(retries={"mode": "standard", "total_max_attempts": 8})
        return boto3.client(service, region_name=os.environ["AWS_REGION"], config=patient)
    return boto3.client(
        service, endpoint_url=url, region_name=REGION, aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
        aws_secret_access_key="secret", config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip


def network(url, zones):
    ec2 = client(url, "ec2")
    region = ec2.meta.region_name
    made = {}
    for name in ("recovery", "test"):
        vpc = ec2.create_vpc(CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
        group = ec2.create_security_group(GroupName=f"{name}-inner", Description="inner", VpcId=vpc)
        subnets = [
            ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.20.{number}.0/24", AvailabilityZone=f"{region}{letter}")
            for number, letter in zip(range(1, zones + 1), "abc")
        ]
        made[name] = {
            "vpc": vpc,
            "security_group": group["GroupId"],
            "subnets": [subnet["Subnet"]["SubnetId"] for subnet in subnets],
        }
    return made


def head(url, zones, key):
    """No state machine is made: a schedule's target is an ARN that nobody looks behind."""
    made = network(url, zones)
    region, account = os.environ.get("AWS_REGION", REGION), identity(url)["Account"]
    lines = ['cloud = "aws"', f'region = "{region}"']
    if key:
        lines.append(f'volume_key = "{client(url, "kms").create_key(KeyUsage="ENCRYPT_DECRYPT")["KeyMetadata"]["Arn"]}"')
    lines += [
        "[deadline]", f'sweep = "arn:aws:states:{region}:{account}:stateMachine:sweep"',
        f'role = "arn:aws:iam::{account}:role/deadline"', 'group = "default"',
    ]  # fmt: skip
    for number, (real, test) in enumerate(zip(made["recovery"]["subnets"], made["test"]["subnets"]), 1):
        lines += [
            "[[subnet]]", f'name = "subnet-{number}"', f'id = "{real}"', f'test = "{test}"',
            f'range = "10.20.{number}.0/24"', f'zone = "{region}{"abc"[number - 1]}"',
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


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


def image(url, run, vm):
    ec2, ebs = client(url, "ec2"), client(url, "ebs")
    tags = [{"Key": f"sparesite-{name}", "Value": value} for name, value in (("run", run), ("kind", "test"), ("vm", vm))]
    snapshot = ebs.start_snapshot(VolumeSize=1, Tags=tags)["SnapshotId"]
    ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=0)
    while ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["State"] != "completed":
        pass
    made = ec2.register_image(
        Name=f"sparesite-{run}-{vm}", Architecture="x86_64", VirtualizationType="hvm", BootMode="legacy-bios",
        EnaSupport=True, RootDeviceName="/dev/sda1", TagSpecifications=[{"ResourceType": "image", "Tags": tags}],
        BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot, "VolumeType": "gp3"}}],
    )  # fmt: skip
    return {"image": made["ImageId"], "snapshot": snapshot}


def disk(url, instance, device, to):
    ec2, ebs = client(url, "ec2"), client(url, "ebs")
    described = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    image = ec2.describe_images(ImageIds=[described["ImageId"]])["Images"][0]
    mapped = {mapping["DeviceName"]: mapping["Ebs"] for mapping in image["BlockDeviceMappings"]}
    volumes = {mapping["DeviceName"]: mapping["Ebs"]["VolumeId"] for mapping in described["BlockDeviceMappings"]}
    volume = ec2.describe_volumes(VolumeIds=[volumes[device]])["Volumes"][0]
    # A donor's disks are not those of its image.
    donor = image.get("ImageOwnerAlias") == "amazon"
    snapshot = volume["SnapshotId"] if donor else mapped[device]["SnapshotId"]
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


def identity(url):
    return client(url, "sts").get_caller_identity()


def console(url, instance, folder):
    ec2, folder = client(url, "ec2"), pathlib.Path(folder)
    said = ec2.get_console_output(InstanceId=instance, Latest=True).get("Output", "")
    (folder / f"{instance}.txt").write_text(said)
    shown = base64.b64decode(ec2.get_console_screenshot(InstanceId=instance)["ImageData"])
    (folder / f"{instance}.jpg").write_bytes(shown)
    return {"login": " login: " in said, "bytes": len(said)}


def left(url, tag, value, schedules, group):
    """Terminated instances are told for an hour, and cost nothing."""
    found = state(url, tag, value)
    ids = {"instances": "InstanceId", "images": "ImageId", "snapshots": "SnapshotId", "volumes": "VolumeId",
           "network_interfaces": "NetworkInterfaceId"}  # fmt: skip
    found["instances"] = [one for one in found["instances"] if one["State"]["Name"] != "terminated"]
    told = {kind: [one[ids[kind]] for one in all_of] for kind, all_of in found.items()}
    if schedules:
        listed = client(url, "scheduler").list_schedules(GroupName=group, NamePrefix=schedules)["Schedules"]
        told["schedules"] = [one["Name"] for one in listed]
    return told


def bucket(url, name, remove):
    s3 = client(url, "s3")
    if not remove:
        region = s3.meta.region_name
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        s3.create_bucket(Bucket=name, **where)
        closed = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
        s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=dict.fromkeys(closed, True))
        # Should nobody come to remove it, it empties itself.
        rule = {"ID": "test", "Status": "Enabled", "Filter": {}, "Expiration": {"Days": 2},
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 2}}  # fmt: skip
        s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": [rule]})
        return {"bucket": name}
    try:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name):
            for one in page.get("Contents", []):
                s3.delete_object(Bucket=name, Key=one["Key"])
        s3.delete_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchBucket":
            raise
    return {"bucket": None}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("network").add_argument("--zones", type=int, default=2)
    headed = commands.add_parser("head")
    headed.add_argument("--zones", type=int, default=2)
    headed.add_argument("--key", action="store_true")
    told = commands.add_parser("state")
    told.add_argument("tag")
    told.add_argument("value")
    held = commands.add_parser("interface")
    for name in ("subnet", "address"):
        held.add_argument(name)
    made = commands.add_parser("image")
    for name in ("run", "vm"):
        made.add_argument(name)
    commands.add_parser("free").add_argument("interface")
    read = commands.add_parser("disk")
    for name in ("instance", "device", "to"):
        read.add_argument(name)
    commands.add_parser("identity")
    seen = commands.add_parser("console")
    for name in ("instance", "folder"):
        seen.add_argument(name)
    remaining = commands.add_parser("left")
    for name in ("tag", "value", "--schedules"):
        remaining.add_argument(name)
    remaining.add_argument("--group", default="default")
    kept = commands.add_parser("bucket")
    kept.add_argument("name")
    kept.add_argument("--remove", action="store_true")
    given = vars(parser.parse_args())
    known = (network, head, state, disk, interface, free, image, identity, console, left, bucket)
    command = {each.__name__: each for each in known}[given.pop("command")]
    answer = command(**given)
    print(answer, end="") if isinstance(answer, str) else json.dump(answer, sys.stdout, default=str)


if __name__ == "__main__":
    main()
