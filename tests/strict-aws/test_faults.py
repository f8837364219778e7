"""Faults, the record, and schedules' idempotency under lost answers, driven by boto3."""

import json
import time

import pytest
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError

import control
from test_ebs import block, put, refused

THROTTLED = {"status": 503, "code": "RequestLimitExceeded", "message": "slow down"}


def test_errors_come_as_often_as_ordered_and_only_where_they_match(server):
    ec2 = server.client("ec2")
    server.strict("POST", "faults", [{"action": "DescribeVpcs", "times": 2, "error": THROTTLED,
                                      "match": {"Filters.0.Name": "vpc-id"}}])  # fmt: skip
    chosen = {"Filters": [{"Name": "vpc-id", "Values": ["vpc-1"]}]}
    ec2.describe_vpcs()
    assert refused("RequestLimitExceeded", 503, ec2.describe_vpcs, **chosen) == "slow down"
    refused("RequestLimitExceeded", 503, ec2.describe_vpcs, **chosen)
    ec2.describe_vpcs(**chosen)
    server.strict("POST", "faults", [{"service": "ec2", "action": "DescribeVpcs", "times": -1, "error": THROTTLED}])
    for _ in range(3):
        refused("RequestLimitExceeded", 503, ec2.describe_vpcs)
    server.strict("DELETE", "faults")
    ec2.describe_vpcs()
    assert [r["error_code"] for r in server.strict("GET", "requests")] == [
        None, *["RequestLimitExceeded"] * 2, None, *["RequestLimitExceeded"] * 3, None,
    ]  # fmt: skip


def test_each_new_snapshot_can_be_unknown_at_first(server):
    unknown = {"status": 404, "code": "ResourceNotFoundException", "message": "no", "reason": "SNAPSHOT_NOT_FOUND"}
    server.strict("POST", "faults", [{"action": "PutSnapshotBlock", "per": "SnapshotId", "times": 2, "error": unknown}])
    ebs = server.client("ebs")
    for snapshot in [ebs.start_snapshot(VolumeSize=1)["SnapshotId"] for _ in range(2)]:
        for _ in range(2):
            refused("ResourceNotFoundException", 404, put, ebs, snapshot, 0, block(0))
        put(ebs, snapshot, 0, block(0))


def test_a_lost_answer_is_not_a_lost_request(server):
    ebs = server.client("ebs")
    for kind, kept in (("drop_before", 0), ("drop_after", 1)):
        server.strict("POST", "faults", [{"action": "StartSnapshot", "times": 1, kind: True}])
        tags = [{"Key": kind, "Value": ""}]
        with pytest.raises(ConnectionClosedError):
            ebs.start_snapshot(VolumeSize=1, ClientToken=kind, Tags=tags)
        left = server.strict("GET", f"inventory?tag={kind}")["snapshots"]
        assert len(left) == kept
        again = ebs.start_snapshot(VolumeSize=1, ClientToken=kind, Tags=tags)["SnapshotId"]
        assert server.strict("GET", f"inventory?tag={kind}")["snapshots"] == [again]


def test_a_stalled_answer_outlasts_its_reader_and_holds_up_nobody_else(server):
    ec2 = server.client("ec2", read_timeout=0.5)
    server.strict("POST", "faults", [{"action": "DescribeVpcs", "times": 1, "stall_seconds": 30}])
    with pytest.raises(ReadTimeoutError):
        ec2.describe_vpcs()
    start = time.monotonic()
    ec2.describe_vpcs()
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("fault", [
    {"action": "A", "times": 1}, {"times": 1, "drop_before": True}, {"action": "A", "drop_before": True},
    {"action": "A", "times": 1, "drop_before": True, "stall_seconds": 1}, {"action": "A", "times": 1, "stall": 1},
    {"action": "A", "times": 1, "error": {"status": 500}},
])  # fmt: skip
def test_what_is_not_a_fault_is_refused(server, fault):
    status, _ = server.raw("POST", "/strict/faults", json.dumps([fault]).encode())
    assert status == 400


def test_the_record_has_decoded_parameters_and_no_block_data(server):
    ebs, ec2 = server.client("ebs"), server.client("ec2")
    snapshot = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    put(ebs, snapshot, 3, block(3))
    ec2.describe_snapshots(SnapshotIds=[snapshot])
    server.client("s3").create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    server.client("kms").create_key(Description="k")
    server.client("sts").get_caller_identity()
    start, put_block, describe, bucket, key, identity = server.strict("GET", "requests")
    assert (start["action"], start["parameters"]["VolumeSize"], start["status"]) == ("StartSnapshot", 1, 201)
    assert put_block["parameters"]["BlockIndex"] == 3 and put_block["parameters"]["BlockData"] == "(left out)"
    assert describe["parameters"] == {"SnapshotIds": [snapshot]}
    assert (bucket["service"], bucket["action"], bucket["parameters"]) == ("s3", "PUT", {"path": "/bucket"})
    assert (key["service"], key["action"], key["parameters"]["Description"]) == ("kms", "CreateKey", "k")
    assert (identity["service"], identity["action"]) == ("sts", "GetCallerIdentity")


def test_control_is_for_the_machine_itself_only(server):
    answer = control.Control(None, None)({"REMOTE_ADDR": "192.0.2.1", "REQUEST_METHOD": "GET"}, None)
    assert answer.status_code == 403
    assert server.raw("GET", "/strict/nothing")[0] == 404
    assert server.raw("GET", "/strict/inventory?tags=a")[0] == 400
    assert server.raw("GET", "/strict/disk/snap-1")[0] == 404
