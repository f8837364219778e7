"""The sweep runs, in moto's interpreter of state machines, on things that moto's EC2 holds."""

import functools
import json
import socket
import time

import boto3
import pytest
import requests
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator
from moto.ec2.models import ec2_backends
from moto.server import ThreadedMotoServer
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import state_task_service_aws_sdk
from moto.stepfunctions.parser.asl.utils.boto_client import boto_client_for
from states import resources

REGION = "eu-central-1"
# The least that EC2 takes: few things fill it.
PAGE = 5


@pytest.fixture(scope="module")
def cloud():
    patch = pytest.MonkeyPatch()
    for key, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": REGION}.items():
        patch.setenv(key, value)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # By it the state machine's tasks find the server.
    patch.setenv("MOTO_PORT", str(port))
    # A client for each task takes a third of a second of it; one serves all.
    once = functools.cache(lambda region, service: boto_client_for(region, service))
    patch.setattr(state_task_service_aws_sdk, "boto_client_for", lambda region, service, **_: once(region, service))
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    url = f"http://127.0.0.1:{port}"
    requests.post(f"{url}/moto-api/config", json={"stepfunctions": {"execute_state_machine": True}}, timeout=10).raise_for_status()
    yield boto3.client("ec2", endpoint_url=url), boto3.client("stepfunctions", endpoint_url=url)
    server.stop()
    patch.undo()


def definition(rounds):
    text = next(each["values"]["definition"] for each in resources("off") if each["type"] == "aws_sfn_state_machine")
    machine = json.loads(text)
    machine["States"]["Pause"]["Seconds"] = 0
    for state in machine["States"].values():
        if "MaxResults" in state.get("Parameters", {}):
            assert state["Parameters"]["MaxResults"] == 20
            state["Parameters"]["MaxResults"] = PAGE
        for again in state.get("Retry", []):
            again.update(IntervalSeconds=1, MaxAttempts=1)
    limit = machine["States"]["NothingSeen"]["Choices"][1]
    assert limit["NumericGreaterThanEquals"] == 60 and limit["Next"] == "SomethingLeft"
    limit["NumericGreaterThanEquals"] = rounds
    return machine


def tags(kind, run, what):
    return [{"ResourceType": what, "Tags": [{"Key": "sparesite-run", "Value": run}, {"Key": "sparesite-kind", "Value": kind}]}]


def make(ec2, run, kind, instances, others):
    image = ec2.register_image(Name=f"base of {run}-{kind}")["ImageId"]
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    made = {}
    # One by one, since a page of moto's counts what was started together as one.
    made["instances"] = {
        ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, TagSpecifications=tags(kind, run, "instance"))["Instances"][0]["InstanceId"]
        for _ in range(instances)
    }
    made["volumes"] = {ec2.create_volume(Size=1, AvailabilityZone=f"{REGION}a", TagSpecifications=tags(kind, run, "volume"))["VolumeId"] for _ in range(others)}
    made["snapshots"] = {ec2.create_snapshot(VolumeId=one, TagSpecifications=tags(kind, run, "snapshot"))["SnapshotId"] for one in made["volumes"]}
    made["images"] = {ec2.register_image(Name=f"{run}-{kind}-{number}")["ImageId"] for number in range(others)}
    # moto takes no tags when it registers an image.
    ec2.create_tags(Resources=list(made["images"]), Tags=tags(kind, run, "image")[0]["Tags"])
    made["interfaces"] = {ec2.create_network_interface(SubnetId=subnet, TagSpecifications=tags(kind, run, "network-interface"))["NetworkInterface"]["NetworkInterfaceId"] for _ in range(others)}
    return made


def left(ec2, made):
    tagged = [{"Name": "tag-key", "Values": ["sparesite-run"]}]
    instances = {
        each["InstanceId"]
        for reservation in ec2.describe_instances(Filters=tagged)["Reservations"]
        for each in reservation["Instances"]
        if each["State"]["Name"] != "terminated"
    }
    there = {
        "instances": instances,
        "volumes": {each["VolumeId"] for each in ec2.describe_volumes(Filters=tagged)["Volumes"]},
        "snapshots": {each["SnapshotId"] for each in ec2.describe_snapshots(Filters=tagged)["Snapshots"]},
        "images": {each["ImageId"] for each in ec2.describe_images(Filters=tagged)["Images"] if each["State"] == "available"},
        "interfaces": {each["NetworkInterfaceId"] for each in ec2.describe_network_interfaces(Filters=tagged)["NetworkInterfaces"]},
    }
    return {kind: made[kind] & there[kind] for kind in made}


def sweep(states, name, given, rounds=60):
    machine = states.create_state_machine(name=name, definition=json.dumps(definition(rounds)), roleArn="arn:aws:iam::123456789012:role/sweep")
    execution = states.start_execution(stateMachineArn=machine["stateMachineArn"], input=json.dumps(given))["executionArn"]
    for _ in range(600):
        found = states.describe_execution(executionArn=execution)
        if found["status"] != "RUNNING":
            return found
        time.sleep(0.1)
    raise AssertionError("it runs and runs")


def test_it_removes_the_run_and_nothing_else(cloud):
    ec2, states = cloud
    swept = make(ec2, "r1", "test", PAGE + 2, 3)
    kept = [make(ec2, "r1", "failover", 2, 1), make(ec2, "r2", "test", 2, 1), make(ec2, "r11", "test", 2, 1)]
    done = sweep(states, "all", {"run": "r1"})
    assert done["status"] == "SUCCEEDED", done.get("cause")
    assert left(ec2, swept) == {kind: set() for kind in swept}
    for each in kept:
        assert left(ec2, each) == each
    # Two that removed, since moto's token does not outlive what it stands at; then nothing found, twice in a row.
    assert json.loads(done["output"])["rounds"] == 4


def test_what_cannot_go_hides_nothing_behind_it(cloud):
    ec2, states = cloud
    image = ec2.register_image(Name="base of r5")["ImageId"]
    tagged = tags("test", "r5", "instance")
    for _ in range(PAGE):
        (started,) = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, TagSpecifications=tagged)["Instances"]
        # moto reads DisableApiTermination of a request as a word.
        ec2_backends["123456789012"][REGION].get_instance(started["InstanceId"]).disable_api_termination = True
    made = make(ec2, "r5", "test", 3, 1)
    done = sweep(states, "hidden", {"run": "r5"}, rounds=1)
    assert (done["status"], done["error"]) == ("FAILED", "SomethingLeft")
    assert left(ec2, made) == {kind: set() for kind in made}


def test_what_cannot_go_is_passed_over_and_told(cloud):
    ec2, states = cloud
    made = make(ec2, "r3", "test", 1, 2)
    other = make(ec2, "r4", "failover", 1, 1)
    stuck = sorted(made["volumes"])[0]
    (holder,) = other["instances"]
    ec2.attach_volume(VolumeId=stuck, InstanceId=holder, Device="/dev/sdf")
    done = sweep(states, "stuck", {"run": "r3"}, rounds=4)
    assert (done["status"], done["error"]) == ("FAILED", "SomethingLeft")
    # The rest went all the same, what comes after volumes too.
    assert left(ec2, made) == {kind: {stuck} if kind == "volumes" else set() for kind in made}


@pytest.mark.parametrize("given", [{}, {"run": ""}, {"run": 1}, {"runs": "r1"}, {"run": "*"}, {"run": "r?"}, {"run": "r1*"}])
def test_no_run_is_an_error(cloud, given):
    _, states = cloud
    done = sweep(states, f"none-{len(str(given))}-{abs(hash(str(given)))}", given)
    assert (done["status"], done["error"]) == ("FAILED", "NoRun")


def test_every_state_leads_on():
    machine = definition(60)
    states = machine["States"]
    reached, waiting = set(), [machine["StartAt"]]
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        state = states[name]
        waiting += [state[key] for key in ("Next", "Default") if key in state]
        waiting += [choice["Next"] for choice in state.get("Choices", [])] + [catch["Next"] for catch in state.get("Catch", [])]
    assert reached == set(states)
    assert all(states[name].get("Retry") for name in states if states[name]["Type"] == "Task")


def test_every_call_is_one_of_ec2s():
    """By AWS's own model of EC2, since moto's tasks send what they are given."""
    model = ServiceModel(Loader().load_service_model("ec2", "service-2"))
    tasks = [state for state in definition(60)["States"].values() if state["Type"] == "Task"]
    tasks += [state for each in definition(60)["States"].values() if each["Type"] == "Map"
              for state in each["ItemProcessor"]["States"].values() if state["Type"] == "Task"]
    assert len(tasks) == 15
    for task in tasks:
        prefix, name = task["Resource"].rsplit(":", 1)
        assert prefix == "arn:aws:states:::aws-sdk:ec2"
        operation = model.operation_model(name[0].upper() + name[1:])
        report = ParamValidator().validate(plain(task["Parameters"]), operation.input_shape)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"


def plain(value):
    """With what a path or function would give in its place: a list where `States.Array` makes one, else a word."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name.removesuffix(".$"): (["x"] if each.startswith("States.Array(") else "x") if name.endswith(".$") else plain(each)
        for name, each in value.items()
    }
