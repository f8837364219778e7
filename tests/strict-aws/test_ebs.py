"""The EBS direct APIs, driven by boto3."""

import base64
import hashlib

import pytest
from botocore.exceptions import ClientError

BLOCK = 524_288


def block(seed):
    return hashlib.shake_128(str(seed).encode()).digest(BLOCK)


def sha(data):
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def put(ebs, snapshot, index, data, **changed):
    arguments = {"SnapshotId": snapshot, "BlockIndex": index, "BlockData": data, "DataLength": len(data),
                 "Checksum": sha(data), "ChecksumAlgorithm": "SHA256"}  # fmt: skip
    return ebs.put_snapshot_block(**{**arguments, **changed})


def refused(code, status, call, *positional, **named):
    with pytest.raises(ClientError) as caught:
        call(*positional, **named)
    answer = caught.value.response
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == (code, status), answer
    return answer["Error"]["Message"]


def completed(server, snapshot, count, **more):
    server.client("ebs").complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=count, **more)
    ec2 = server.client("ec2")
    states = [ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["State"] for _ in range(3)]
    assert states == ["pending", "pending", "completed"]


def made(server, blocks, **more):
    ebs = server.client("ebs")
    snapshot = ebs.start_snapshot(**{"VolumeSize": 1, **more})["SnapshotId"]
    for index, data in blocks.items():
        put(ebs, snapshot, index, data)
    completed(server, snapshot, len(blocks))
    return snapshot


def test_a_snapshot_is_written_completed_and_read_back(server):
    ebs, ec2 = server.client("ebs"), server.client("ec2")
    started = ebs.start_snapshot(VolumeSize=1, Description="d", Tags=[{"Key": "who", "Value": "me"}], Timeout=10)
    snapshot = started["SnapshotId"]
    assert (started["Status"], started["BlockSize"], started["VolumeSize"]) == ("pending", BLOCK, 1)
    assert put(ebs, snapshot, 7, block(7))["Checksum"] == sha(block(7))
    put(ebs, snapshot, 7, block(8))  # rewriting is allowed and counts once
    refused("ValidationException", 400, ebs.list_snapshot_blocks, SnapshotId=snapshot)
    answer = ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=1)
    assert (answer["Status"], answer["ResponseMetadata"]["HTTPStatusCode"]) == ("pending", 202)
    assert ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=1)["Status"] == "pending"
    refused("ValidationException", 400, put, ebs, snapshot, 8, block(8))
    for state in ("pending", "pending", "completed"):
        seen = ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]
        assert seen["State"] == state
    assert seen["Tags"] == [{"Key": "who", "Value": "me"}] and seen["Description"] == "d"
    (listed,) = ebs.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]
    got = ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=7, BlockToken=listed["BlockToken"])
    assert got["BlockData"].read() == block(8) and got["Checksum"] == sha(block(8)) and got["DataLength"] == BLOCK
    refused("ResourceNotFoundException", 404, ebs.get_snapshot_block, SnapshotId=snapshot, BlockIndex=8, BlockToken="a")
    refused("ValidationException", 400, ebs.get_snapshot_block, SnapshotId=snapshot, BlockIndex=7, BlockToken="a")


def test_start_snapshot_is_idempotent_by_its_token(server):
    ebs = server.client("ebs")
    first = ebs.start_snapshot(VolumeSize=1, ClientToken="t-1")["SnapshotId"]
    assert ebs.start_snapshot(VolumeSize=1, ClientToken="t-1")["SnapshotId"] == first
    refused("ConflictException", 409, ebs.start_snapshot, VolumeSize=2, ClientToken="t-1")
    assert ebs.start_snapshot(VolumeSize=1, ClientToken="t-2")["SnapshotId"] != first
    refused("ValidationException", 400, ebs.start_snapshot, VolumeSize=65_537)


def test_wrong_blocks_are_refused(server):
    ebs = server.client("ebs")
    snapshot = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    assert "Checksum" in refused("ValidationException", 400, put, ebs, snapshot, 0, block(0), Checksum=sha(b""))
    assert "DataLength" in refused("ValidationException", 400, put, ebs, snapshot, 0, block(0)[:512])
    assert "body" in refused("ValidationException", 400, put, ebs, snapshot, 0, block(0)[:512], DataLength=BLOCK)
    assert "2048" in refused("ValidationException", 400, put, ebs, snapshot, 2048, block(0))
    refused("ResourceNotFoundException", 404, put, ebs, "snap-0123456789abcdef0", 0, block(0))
    put(ebs, snapshot, 2047, block(0))
    assert "2" in refused("ValidationException", 400, ebs.complete_snapshot, SnapshotId=snapshot, ChangedBlocksCount=2)


def test_the_aggregate_checksum_is_verified(server):
    ebs = server.client("ebs")
    snapshot = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    put(ebs, snapshot, 5, block(5))
    put(ebs, snapshot, 3, block(3))
    linear = {"ChecksumAlgorithm": "SHA256", "ChecksumAggregationMethod": "LINEAR"}
    wrong = sha(hashlib.sha256(block(5)).digest() + hashlib.sha256(block(3)).digest())
    refused("ValidationException", 400, ebs.complete_snapshot, SnapshotId=snapshot, ChangedBlocksCount=2,
            Checksum=wrong, **linear)  # fmt: skip
    right = sha(hashlib.sha256(block(3)).digest() + hashlib.sha256(block(5)).digest())
    completed(server, snapshot, 2, Checksum=right, **linear)


def test_a_child_inherits_and_tells_what_changed(server):
    ebs = server.client("ebs")
    parent = made(server, {0: block(0), 1: block(1), 9: bytes(BLOCK)})
    child = made(server, {1: block("new"), 2: block(2)}, ParentSnapshotId=parent)
    listed = ebs.list_snapshot_blocks(SnapshotId=child)["Blocks"]
    assert [b["BlockIndex"] for b in listed] == [0, 1, 2, 9]
    changed = ebs.list_changed_blocks(FirstSnapshotId=parent, SecondSnapshotId=child)["ChangedBlocks"]
    assert [(c["BlockIndex"], "FirstBlockToken" in c, "SecondBlockToken" in c) for c in changed] == [
        (1, True, True), (2, False, True),
    ]  # fmt: skip
    server.client("ec2").delete_snapshot(SnapshotId=parent)
    written = {0: block(0), 1: block("new"), 2: block(2)}
    disk = list(server.disk(child))
    assert len(disk) == 2048
    assert all(data == written.get(index, bytes(BLOCK)) for index, data in enumerate(disk))
    other = made(server, {})
    refused("ValidationException", 400, ebs.list_changed_blocks, FirstSnapshotId=other, SecondSnapshotId=child)
    refused("ValidationException", 400, ebs.start_snapshot, VolumeSize=1, ParentSnapshotId=child, Encrypted=True)


def test_unwritten_blocks_of_an_encrypted_snapshot_are_noise(server):
    key = "arn:aws:kms:eu-central-1:123456789012:key/0f1e2d3c"
    ebs = server.client("ebs")
    started = ebs.start_snapshot(VolumeSize=1, Encrypted=True, KmsKeyArn=key)
    assert started["KmsKeyArn"] == key
    snapshot = started["SnapshotId"]
    put(ebs, snapshot, 0, block(0))
    put(ebs, snapshot, 1, bytes(BLOCK))
    completed(server, snapshot, 2)
    child = made(server, {2: block(2)}, ParentSnapshotId=snapshot)
    distinct = set()
    for index, (data, inherited) in enumerate(zip(server.disk(snapshot), server.disk(child), strict=True)):
        assert inherited == (block(2) if index == 2 else data)
        if index < 2:
            assert data == (block(0), bytes(BLOCK))[index]
        else:
            assert data != bytes(BLOCK)
            distinct.add(data[:32])
    assert len(distinct) > 2000
    assert server.client("ec2").describe_snapshots(SnapshotIds=[child])["Snapshots"][0]["Encrypted"]


def test_lists_come_in_pages(server):
    ebs = server.client("ebs")
    snapshot = made(server, {i: bytes(BLOCK) for i in range(150)})
    first = ebs.list_snapshot_blocks(SnapshotId=snapshot, MaxResults=100)
    rest = ebs.list_snapshot_blocks(SnapshotId=snapshot, MaxResults=100, NextToken=first["NextToken"])
    assert [b["BlockIndex"] for b in first["Blocks"] + rest["Blocks"]] == list(range(150))
    assert "NextToken" not in rest
    assert ebs.list_snapshot_blocks(SnapshotId=snapshot, StartingBlockIndex=149)["Blocks"][0]["BlockIndex"] == 149


def test_at_most_a_hundred_snapshots_are_pending(server):
    ebs = server.client("ebs", max_pool_connections=1)
    server.raw("POST", "/moto-api/reset")
    for _ in range(100):
        ebs.start_snapshot(VolumeSize=1)
    refused("ConcurrentLimitExceededException", 400, ebs.start_snapshot, VolumeSize=1)
    server.raw("POST", "/moto-api/reset")
    ebs.start_snapshot(VolumeSize=1)
