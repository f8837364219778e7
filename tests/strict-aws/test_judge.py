"""The judge: what botocore's own serializers write passes, what departs from the model is refused and recorded."""

import datetime
import json
from http.client import HTTPConnection
from urllib.parse import urlencode

import botocore.serialize
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

import judge

# One of these fits each pattern in the models; a pattern that none fits fails the test that uses it.
STRINGS = [
    "a", "aaa", "123456789012", "snap-0123456789abcdef0", "10.0.0.1", "fcap-0123456789abcdef0",
    "fcapassoc-0123456789abcdef0", "arn:aws:kms:eu-central-1:123456789012:key/a", "arn:aws:iam::123456789012:role/a",
    "arn:aws:scheduler:eu-central-1:123456789012:schedule-group/a", "arn:aws:sqs:eu-central-1:123456789012:dead",
    "arn:aws:ec2:eu-central-1:123456789012:placement-group/a",
    "arn:aws:secretsmanager:eu-central-1:123456789012:secret:a",
    "arn:aws:outposts:eu-central-1:123456789012:outpost/op-01234567890abcdef", "aa", "Sum", "eu-central-1",
    "cluster-aaaaaaaaaaa", "a.amazonaws.com", "AAAAAAAAAAAAAAAAAAAA", "https://a.example", "/kms/xks/v1",
    "com.amazonaws.vpce.eu-central-1.vpce-svc-0",
]  # fmt: skip
WHEN = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)


def sample(shape, depth=0):
    """A value with every member of the shape, down to a depth below which only required ones are sent."""
    low = shape.metadata.get("min") or 1
    match shape.type_name:
        case "structure":
            names = shape.members if depth < 5 else shape.required_members
            return {name: sample(shape.members[name], depth + 1) for name in names}
        case "list":
            count = min(max(low, 2 if depth < 3 else 1), shape.metadata.get("max", 2))
            return [sample(shape.member, depth + 1) for _ in range(count)]
        case "map":
            return {"key": sample(shape.value, depth + 1)}
        case "boolean":
            return True
        case "integer" | "long":
            return max(low, 1)
        case "float" | "double":
            return float(low)
        case "timestamp":
            return WHEN
        case "blob":
            return b"bytes"
    if shape.enum:
        return shape.enum[-1]
    pattern, high = shape.metadata.get("pattern"), shape.metadata.get("max", 1 << 20)
    for text in [*STRINGS, "a" * low]:
        if low <= len(text) <= high and (pattern is None or judge._pattern(pattern).fullmatch(text)):
            return text
    raise AssertionError(f"no sample for {shape.name}: {pattern}")


def comparable(value):
    if isinstance(value, dict):
        # An empty structure or list leaves no trace in a form.
        return {k: v for k, v in ((k, comparable(v)) for k, v in value.items()) if v not in ({}, [])}
    if isinstance(value, list):
        return [v for v in map(comparable, value) if v not in ({}, [])]
    if isinstance(value, datetime.datetime):
        return "2030-01-02T03:04:05Z"
    return "Ynl0ZXM=" if value == b"bytes" else value


@pytest.mark.parametrize("service", judge.VERSIONS)
def test_what_botocore_writes_passes_and_is_understood(service, server):
    model = judge.model(service)
    serializer = botocore.serialize.create_serializer(model.protocol, include_validation=False)
    for name in model.operation_names:
        operation = model.operation_model(name)
        sent = sample(operation.input_shape) if operation.input_shape else {}
        wire = serializer.serialize_to_request(sent, operation)
        call = judge.Call(service)
        if service == "ec2":
            judge.judge_form(call, urlencode(wire["body"]))
        else:
            body = wire["body"] if isinstance(wire["body"], bytes) else wire["body"].encode()
            query = wire["query_string"] or {}
            pairs = [(k, v) for k, vs in query.items() for v in (vs if isinstance(vs, list) else [vs])]
            headers = {k.lower(): str(v) for k, v in wire["headers"].items()}
            if model.protocol == "json":
                judge.judge_json(call, wire["method"], wire["url_path"], headers, body)
            else:
                judge.judge_rest(call, wire["method"], wire["url_path"], urlencode(pairs), headers, body)
            sent = {k: int(WHEN.timestamp()) if v == WHEN else v for k, v in sent.items()}
            call.parameters = {k: "Ynl0ZXM=" if v == b"bytes" else v for k, v in call.parameters.items()}
        assert (call.action, call.violations) == (name, []), sent
        assert comparable(call.parameters) == comparable(sent)


def send(server, service, method, path, body=b"", headers=None, spoil=lambda headers: None, region="eu-central-1"):
    request = AWSRequest(method, server.url + path, headers or {}, body)
    SigV4Auth(Credentials("AKIAIOSFODNN7EXAMPLE", "secret"), service, region).add_auth(request)
    sent = dict(request.headers.items())
    spoil(sent)
    connection = HTTPConnection(server.url.removeprefix("http://"))
    connection.request(method, path, body, sent)
    answer = connection.getresponse()
    return answer.status, f"{answer.headers.get('x-amzn-ErrorType')} {answer.read().decode()}"


def form(server, text, **more):
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    return send(server, "ec2", "POST", "/", text.encode(), headers, **more)


def refused(server, answer, expected):
    assert answer[0] == 400 and "StrictViolation" in answer[1], answer
    (violation,) = server.strict("GET", "violations")
    assert expected in "; ".join(violation["what"]), violation
    assert server.strict("GET", "requests")[-1]["error_code"] == "StrictViolation"


RUN = "Action=RunInstances&Version=2016-11-15&MinCount=1&MaxCount=1"


@pytest.mark.expects_violations
@pytest.mark.parametrize("text, expected", [
    ("Action=RunInstance&Version=2016-11-15", "unknown action 'RunInstance'"),
    ("Action=RunInstances&Version=2014-01-01&MinCount=1&MaxCount=1", "'2014-01-01' is not 2016-11-15"),
    ("Action=RunInstances&MinCount=1&MaxCount=1", "None is not 2016-11-15"),
    ("Action=RunInstances&Version=2016-11-15&MinCount=1", "MaxCount: required by"),
    (RUN + "&BlockDeviceMappings.1.DeviceName=a", "BlockDeviceMappings: unknown member"),
    (RUN + "&BlockDeviceMapping.1.Ebs.Snapshot=a", "BlockDeviceMapping.1.Ebs.Snapshot: unknown member"),
    (RUN + "&BlockDeviceMapping.0.DeviceName=a", "indices must run from 1"),
    (RUN + "&BlockDeviceMapping.1.DeviceName=a&BlockDeviceMapping.3.DeviceName=a", "indices must run from 1"),
    (RUN + "&BlockDeviceMapping=a", "a value where BlockDeviceMappingRequestList is a list"),
    (RUN + "&ImageId.1=a", "members below a string"),
    (RUN + "&EbsOptimized=yes", "'yes' is not a boolean"),
    (RUN + "&Ipv6AddressCount=1.5", "'1.5' is not an integer"),
    (RUN + "&InstanceType=m5.huge", "InstanceType: 'm5.huge' is none of"),
    (RUN + "&MetadataOptions.HttpTokens=always", "'always' is none of"),
    (RUN + "&MinCount=1", "sent more than once: ['MinCount']"),
    ("Action=RegisterImage&Version=2016-11-15", "Name: required by"),
])  # fmt: skip
def test_forms_that_depart_from_the_model_are_refused(server, text, expected):
    refused(server, form(server, text), expected)


PUT = {"x-amz-Data-Length": "524288", "x-amz-Checksum": "a", "x-amz-Checksum-Algorithm": "SHA256"}
AT = "/snapshots/snap-0123456789abcdef0"
SCHEDULE = {
    "ScheduleExpression": "rate(1 hour)", "FlexibleTimeWindow": {"Mode": "OFF"},
    "Target": {"Arn": "arn:aws:sqs:eu-central-1:123456789012:q", "RoleArn": "arn:aws:iam::123456789012:role/r"},
}  # fmt: skip


@pytest.mark.expects_violations
@pytest.mark.parametrize("service, method, path, headers, body, expected", [
    ("ebs", "PUT", f"{AT}/block/1", PUT, b"", "no operation of ebs"),
    ("ebs", "POST", f"{AT}/blocks/1", PUT, b"", "no operation of ebs"),
    ("ebs", "PUT", f"{AT}/blocks/1?index=1", PUT, b"", "querystring index: unknown member"),
    ("ebs", "PUT", f"{AT}/blocks/x", PUT, b"", "'x' is not an integer"),
    ("ebs", "PUT", "/snapshots/vol-1/blocks/1", PUT, b"", "does not match"),
    ("ebs", "PUT", f"{AT}/blocks/1", {**PUT, "x-amz-Checksum-Algorithm": "MD5"}, b"", "'MD5' is none of"),
    ("ebs", "PUT", f"{AT}/blocks/1", {**PUT, "x-amz-Length": "1"}, b"", "header x-amz-length: unknown member"),
    ("ebs", "PUT", f"{AT}/blocks/1", {**PUT, "x-amz-Progress": "101"}, b"", "is 101, above 100"),
    ("ebs", "PUT", f"{AT}/blocks/1", {}, b"", "DataLength: required by"),
    ("ebs", "GET", f"{AT}/blocks?maxResults=5", {}, b"", "is 5, below 100"),
    ("ebs", "GET", f"{AT}/blocks", {}, b"x", "has no body"),
    ("ebs", "POST", "/snapshots", {}, b"VolumeSize=1", "not JSON"),
    ("ebs", "POST", "/snapshots", {}, b'{"VolumeSize": "1"}', "a JSON str where VolumeSize is a long"),
    ("ebs", "POST", "/snapshots", {}, b'{"VolumeSize": true}', "a JSON bool where VolumeSize is a long"),
    ("ebs", "POST", "/snapshots", {}, b'{"VolumeSize": 1, "Size": 1}', "Size: unknown member"),
    ("ebs", "POST", "/snapshots", {}, b'{"VolumeSize": 1, "Timeout": 9}', "Timeout: is 9, below 10"),
    ("scheduler", "POST", "/schedules/a", {}, json.dumps({**SCHEDULE, "Other": 1}).encode(), "Other: unknown"),
    ("scheduler", "POST", "/schedules/a", {}, b"{}", "Target: required by"),
    ("scheduler", "POST", "/schedules/a%20b", {}, json.dumps(SCHEDULE).encode(), "'a b' does not match"),
    ("scheduler", "POST", "/schedules/a", {},
     json.dumps({**SCHEDULE, "Target": {"Arn": "a"}}).encode(), "Target.RoleArn: required by"),
    ("scheduler", "POST", "/schedules/a", {},
     json.dumps({**SCHEDULE, "FlexibleTimeWindow": {"Mode": "ON"}}).encode(), "'ON' is none of"),
])  # fmt: skip
def test_rest_requests_that_depart_from_the_model_are_refused(server, service, method, path, headers, body, expected):
    refused(server, send(server, service, method, path, body, headers), expected)


def without(name):
    return lambda headers: headers.pop(name)


def replaced(name, old, new):
    return lambda headers: headers.update({name: headers[name].replace(old, new)})


@pytest.mark.expects_violations
@pytest.mark.parametrize("spoil, expected", [
    (without("Authorization"), "no SigV4 Authorization header"),
    (without("X-Amz-Date"), "has not the form yyyymmddThhmmssZ"),
    (replaced("Authorization", "host;", ""), "host is not signed"),
    (replaced("Authorization", ";x-amz-date", ""), "x-amz-date is not signed"),
    (replaced("Authorization", "eu-central-1", "Frankfurt"), "has not the form of a region"),
    (replaced("Authorization", "/ec2/", "/EC2/"), "the service is ec2, not EC2"),
    (replaced("Authorization", "Signature=", "Signature=x"), "not a well-formed"),
    (replaced("Authorization", "/aws4_request", ""), "not a well-formed"),
    (lambda headers: headers.update({"x-amz-security-token": "t"}), "x-amz-security-token is sent but not signed"),
    (lambda headers: headers.update({"X-Amz-Date": "20200101T000000Z"}), "is not of the day in the scope"),
])  # fmt: skip
def test_signatures_that_aws_would_not_read_are_refused(server, spoil, expected):
    refused(server, form(server, "Action=DescribeVpcs&Version=2016-11-15", spoil=spoil), expected)


@pytest.mark.expects_violations
def test_unsigned_requests_of_the_rest_services_do_not_pass_as_s3(server):
    refused(server, send(server, "ebs", "GET", f"{AT}/blocks", spoil=without("Authorization")), "no SigV4")
    server.strict("POST", "reset")
    refused(server, send(server, "scheduler", "GET", "/schedules/a", spoil=without("Authorization")), "no SigV4")


@pytest.mark.expects_violations
def test_a_failure_of_the_stand_in_is_a_500_and_recorded(server):
    answer = form(server, RUN + "&ImageId=ami-1&LaunchTemplate.LaunchTemplateName=a")
    assert answer[0] == 500 and "StrictFailure" in answer[1]
    (violation,) = server.strict("GET", "violations")
    assert "NotImplementedError: RunInstances with a launch template" in violation["what"][0]
    ec2, ebs = server.client("ec2"), server.client("ebs")
    volume = ec2.create_volume(AvailabilityZone="eu-central-1a", Size=1)["VolumeId"]
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    with pytest.raises(ClientError, match="StrictFailure"):
        ebs.list_snapshot_blocks(SnapshotId=snapshot)
    assert [r["status"] for r in server.strict("GET", "requests")] == [500, 200, 200, 500]
    assert len(server.strict("GET", "violations")) == 2
