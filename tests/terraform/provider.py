"""A provider process that knows the schema of hashicorp/aws and nothing of AWS.

    provider.py aws-schema.json SOCKET

Terraform talks to it through TF_REATTACH_PROVIDERS. So configurations are checked without registry and account: unknown
attributes and blocks, missing ones, wrong types, bad references. It has none of the provider's own validators. What a plan
cannot know is unknown; what an apply makes up looks as AWS would have it, where policies and outputs are built from it.
"""

import hashlib
import json
import signal
import sys
import threading
from concurrent import futures

import grpc
import msgpack
from tf.gen import tfplugin_pb2 as pb
from tf.gen import tfplugin_pb2_grpc

ACCOUNT = "123456789012"
UNKNOWN = msgpack.ExtType(0, b"\0")
MODES = {"single": 1, "list": 2, "set": 3, "map": 4}
# Whose ARN does not end in <kind>/<id>.
ARNS = {
    "aws_s3_bucket": "arn:aws:s3:::{bucket}",
    "aws_iam_role": "arn:aws:iam::{account}:role/{name}",
    "aws_iam_user": "arn:aws:iam::{account}:user/{name}",
    "aws_iam_instance_profile": "arn:aws:iam::{account}:instance-profile/{name}",
    "aws_kms_key": "arn:aws:kms:{region}:{account}:key/{id}",
    "aws_sfn_state_machine": "arn:aws:states:{region}:{account}:stateMachine:{name}",
    "aws_sns_topic": "arn:aws:sns:{region}:{account}:{name}",
    "aws_cloudwatch_log_group": "arn:aws:logs:{region}:{account}:log-group:{name}",
    "aws_cloudwatch_metric_alarm": "arn:aws:cloudwatch:{region}:{account}:alarm:{alarm_name}",
    "aws_cloudwatch_event_rule": "arn:aws:events:{region}:{account}:rule/{name}",
    "aws_scheduler_schedule_group": "arn:aws:scheduler:{region}:{account}:schedule-group/{name}",
}
# Whose id is what it is called.
NAMED = {"aws_s3_bucket": "bucket", "aws_iam_role": "name", "aws_iam_user": "name", "aws_iam_instance_profile": "name",
         "aws_cloudwatch_log_group": "name", "aws_cloudwatch_event_rule": "name", "aws_scheduler_schedule_group": "name"}
IDS = {"aws_vpc": "vpc", "aws_subnet": "subnet", "aws_security_group": "sg", "aws_launch_template": "lt",
       "aws_route_table": "rtb", "aws_default_route_table": "rtb", "aws_default_security_group": "sg", "aws_instance": "i", "aws_network_interface": "eni"}


def encode(value):
    return pb.DynamicValue(msgpack=msgpack.packb(value))


def decode(value):
    # Unknown values come in several forms; all of them are extensions.
    return msgpack.unpackb(value.msgpack, ext_hook=lambda code, data: UNKNOWN, strict_map_key=False)


def schema(block):
    return pb.Schema(version=0, block=schema_block(block))


def schema_block(block):
    attributes = [
        pb.Schema.Attribute(name=name, type=json.dumps(kind).encode(), required="r" in flags, optional="o" in flags,
                            computed="c" in flags)
        for name, (kind, flags) in block["attributes"].items()
    ]
    blocks = [
        pb.Schema.NestedBlock(type_name=name, nesting=MODES[inner["mode"]], block=schema_block(inner),
                              min_items=inner.get("min", 0) if inner["mode"] != "single" else 0, max_items=inner.get("max", 0))
        for name, inner in block["blocks"].items()
    ]
    return pb.Schema.Block(attributes=attributes, block_types=blocks)


def fill(block, value, computed):
    """Every computed attribute that is not said becomes what `computed` makes of it, in nested blocks too."""
    if value is None or value == UNKNOWN:
        return value
    out = dict(value)
    for name, (kind, flags) in block["attributes"].items():
        if "c" in flags and out.get(name) is None:
            out[name] = computed(name, kind)
    for name, inner in block["blocks"].items():
        nested = out.get(name)
        if isinstance(nested, list):
            out[name] = [fill(inner, each, computed) for each in nested]
        elif isinstance(nested, dict) and inner["mode"] == "single":
            out[name] = fill(inner, nested, computed)
    return out


def settle(block, value, made_up):
    """Replaces what is unknown by what `made_up` says for its name and type; in nested blocks by something empty."""
    if value is None:
        return None
    out = dict(value)
    for name, (kind, _) in block["attributes"].items():
        if out.get(name) == UNKNOWN:
            out[name] = made_up(name, kind)
    for name, inner in block["blocks"].items():
        nested = out.get(name)
        if isinstance(nested, list):
            out[name] = [settle(inner, each, lambda name, kind: empty(kind)) for each in nested]
        elif isinstance(nested, dict) and inner["mode"] == "single":
            out[name] = settle(inner, nested, lambda name, kind: empty(kind))
    return out


def empty(kind):
    if isinstance(kind, list):
        return [] if kind[0] in ("list", "set") else {} if kind[0] == "map" else None
    return {"string": "", "number": 0, "bool": False}.get(kind)


class Provider(tfplugin_pb2_grpc.ProviderServicer):
    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            self.schema = json.load(file)
        self.region = "eu-central-1"

    def GetMetadata(self, request, context):
        return pb.GetMetadata.Response(
            resources=[pb.GetMetadata.ResourceMetadata(type_name=name) for name in self.schema["resource"]],
            data_sources=[pb.GetMetadata.DataSourceMetadata(type_name=name) for name in self.schema["data"]],
        )

    def GetProviderSchema(self, request, context):
        return pb.GetProviderSchema.Response(
            provider=schema(self.schema["provider"]),
            resource_schemas={name: schema(block) for name, block in self.schema["resource"].items()},
            data_source_schemas={name: schema(block) for name, block in self.schema["data"].items()},
        )

    def ValidateProviderConfig(self, request, context):
        return pb.ValidateProviderConfig.Response()

    def ConfigureProvider(self, request, context):
        self.region = decode(request.config).get("region") or self.region
        return pb.ConfigureProvider.Response()

    def ValidateResourceConfig(self, request, context):
        return pb.ValidateResourceConfig.Response()

    def ValidateDataResourceConfig(self, request, context):
        return pb.ValidateDataResourceConfig.Response()

    def UpgradeResourceState(self, request, context):
        return pb.UpgradeResourceState.Response(upgraded_state=encode(json.loads(request.raw_state.json)))

    def ReadResource(self, request, context):
        return pb.ReadResource.Response(new_state=request.current_state)

    def PlanResourceChange(self, request, context):
        proposed = decode(request.proposed_new_state)
        if proposed is not None and decode(request.prior_state) is None:
            proposed = fill(self.schema["resource"][request.type_name], proposed, lambda name, kind: UNKNOWN)
        return pb.PlanResourceChange.Response(planned_state=encode(proposed))

    def ApplyResourceChange(self, request, context):
        planned = decode(request.planned_state)
        if planned is not None:
            planned = self.made(request.type_name, planned, self.schema["resource"][request.type_name])
        return pb.ApplyResourceChange.Response(new_state=encode(planned))

    def ReadDataSource(self, request, context):
        block = self.schema["data"][request.type_name]
        known = {"account_id": ACCOUNT, "partition": "aws", "region": self.region, "name": self.region, "id": "data",
                 "dns_suffix": "amazonaws.com"}
        state = fill(block, decode(request.config), lambda name, kind: known.get(name, empty(kind)))
        return pb.ReadDataSource.Response(state=encode(state))

    def StopProvider(self, request, context):
        return pb.StopProvider.Response()

    def GetFunctions(self, request, context):
        return pb.GetFunctions.Response()

    def made(self, type_name, planned, block):
        said = {name: value for name, value in planned.items() if value not in (None, UNKNOWN)}
        digest = hashlib.sha256(repr((type_name, sorted(said.items(), key=str))).encode()).hexdigest()
        short = type_name.removeprefix("aws_").replace("_", "-")
        identity = said.get(NAMED.get(type_name)) or f"{IDS.get(type_name, short)}-{digest[:17]}"
        pattern = ARNS.get(type_name, "arn:aws:ec2:{region}:{account}:" + short + "/{id}")
        arn = pattern.format_map({"name": identity, **said, "account": ACCOUNT, "region": self.region, "id": identity})
        known = {"id": identity, "name": identity, "key_id": identity, "arn": arn, "region": self.region,
                 "owner_id": ACCOUNT, "primary_network_interface_id": f"eni-{digest[:17]}"}
        if type_name == "aws_sfn_state_machine":
            known["id"] = known["arn"]

        def made_up(name, kind):
            return known[name] if kind == "string" and name in known else empty(kind)

        return settle(block, planned, made_up)


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8),
                         options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)])
    tfplugin_pb2_grpc.add_ProviderServicer_to_server(Provider(sys.argv[1]), server)
    server.add_insecure_port(f"unix:{sys.argv[2]}")
    server.start()
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    done.wait()
    server.stop(0)


if __name__ == "__main__":
    main()
