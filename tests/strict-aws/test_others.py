"""What is moto's alone passes through the same port untouched; and many clients at once."""

import hashlib
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from test_ebs import block, completed, put, refused


def test_s3_passes_through(server):
    s3 = server.client("s3")
    s3.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    data = hashlib.shake_128(b"s3").digest(3 << 20)
    s3.put_object(Bucket="bucket", Key="strict/a b", Body=data, IfNoneMatch="*")
    refused("PreconditionFailed", 412, s3.put_object, Bucket="bucket", Key="strict/a b", Body=b"", IfNoneMatch="*")
    assert s3.get_object(Bucket="bucket", Key="strict/a b", Range="bytes=5-9")["Body"].read() == data[5:10]
    assert s3.head_object(Bucket="bucket", Key="strict/a b")["ContentLength"] == 3 << 20
    url = s3.generate_presigned_url("get_object", {"Bucket": "bucket", "Key": "strict/a b"})
    assert urllib.request.urlopen(url).read() == data
    assert [r["status"] for r in server.strict("GET", "requests")] == [200, 200, 412, 206, 200, 200]


def test_assumed_roles_and_faults_of_other_services(server):
    role = {"RoleArn": "arn:aws:iam::123456789012:role/r", "RoleSessionName": "session"}
    server.strict("POST", "faults", [{"service": "sts", "action": "AssumeRole", "times": 1, "error": {
        "status": 403, "code": "AccessDenied", "message": "no"}}])  # fmt: skip
    refused("AccessDenied", 403, server.client("sts").assume_role, **role)
    assert server.client("sts").assume_role(**role)["Credentials"]["SessionToken"]


def test_the_default_key_encrypts_where_none_is_named(server):
    started = server.client("ebs").start_snapshot(VolumeSize=1, Encrypted=True)
    aliases = {a["AliasName"]: a for a in server.client("kms").list_aliases()["Aliases"]}
    assert started["KmsKeyArn"].endswith(aliases["alias/aws/ebs"]["TargetKeyId"])


def test_blocks_and_launches_from_many_clients_at_once(server):
    ebs = server.client("ebs")
    snapshot = ebs.start_snapshot(VolumeSize=1, ClientToken="many")["SnapshotId"]
    with ThreadPoolExecutor(8) as pool:
        tokens = pool.map(lambda _: ebs.start_snapshot(VolumeSize=1, ClientToken="many")["SnapshotId"], range(8))
        assert set(tokens) == {snapshot}
        list(pool.map(lambda index: put(ebs, snapshot, index, block(index)), range(64)))
    completed(server, snapshot, 64)
    listed = ebs.list_snapshot_blocks(SnapshotId=snapshot)["Blocks"]
    assert [b["BlockIndex"] for b in listed] == list(range(64))
    for index, data in zip(range(64), server.disk(snapshot)):
        assert data == block(index)
