"""Judges a request against AWS's own service model, as botocore carries it, before anything acts on it.

Decodes at the same time: what is judged is exactly what the handlers, the faults and the record see, under
the model's member names, as a boto3 caller would write them.
"""

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from functools import cache
from urllib.parse import parse_qsl, unquote

import botocore.session

# By the names that stand in a signature's scope.
VERSIONS = {
    "ec2": "2016-11-15", "ebs": "2019-11-02", "scheduler": "2021-06-30", "servicequotas": "2019-06-24",
    "kms": "2014-11-01",
}  # fmt: skip
MODELS = {"servicequotas": "service-quotas"}
# Of x-amz-* headers, those that belong to signing and to SDKs rather than to an operation.
COMMON_HEADERS = {"x-amz-date", "x-amz-content-sha256", "x-amz-security-token", "x-amz-user-agent"}


@dataclass
class Call:
    """One request: which operation, with which parameters, and what is wrong with it."""

    service: str
    action: str = "?"
    parameters: dict = field(default_factory=dict)
    violations: list = field(default_factory=list)

    def wrong(self, where, what):
        self.violations.append(f"{where}: {what}")


@cache
def model(service):
    return botocore.session.get_session().get_service_model(MODELS.get(service, service), VERSIONS[service])


def judge_form(call, text):
    """An EC2 request: a form with Action, Version and the flattened members of the operation's input."""
    pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text))
    flat = dict(pairs)
    if len(flat) != len(pairs):
        names = [name for name, _ in pairs]
        call.wrong("form", f"sent more than once: {sorted({n for n in names if names.count(n) > 1})}")
    call.action = flat.pop("Action", "?")
    version = flat.pop("Version", None)
    if version != VERSIONS[call.service]:
        call.wrong("Version", f"{version!r} is not {VERSIONS[call.service]}")
    if call.action not in model(call.service).operation_names:
        call.wrong("Action", f"unknown action {call.action!r}")
        return
    tree = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                call.wrong(name, "is below a member that has a value of its own")
                break
        else:
            if last in node:
                call.wrong(name, "has a value and members below it")
            node[last] = value
    shape = model(call.service).operation_model(call.action).input_shape
    if shape is None:
        for name in tree:
            call.wrong(name, f"{call.action} takes no parameters")
    else:
        call.parameters = _form_structure(call, shape, tree, "")


def _form_name(name, shape):
    """How a member is called in an EC2 form, by botocore's own rule for this protocol."""
    if "queryName" in shape.serialization:
        return shape.serialization["queryName"]
    if "name" in shape.serialization:
        return shape.serialization["name"][0].upper() + shape.serialization["name"][1:]
    return name


def _form_structure(call, shape, tree, where):
    wire = {_form_name(name, member): (name, member) for name, member in shape.members.items()}
    result = {}
    for name, node in tree.items():
        at = f"{where}.{name}" if where else name
        if name not in wire:
            call.wrong(at, f"unknown member of {shape.name}")
            continue
        member, member_shape = wire[name]
        result[member] = _form_value(call, member_shape, node, at)
    _required(call, shape, result, where)
    return result


def _form_value(call, shape, node, where):
    if shape.type_name not in ("structure", "list"):
        if isinstance(node, dict):
            call.wrong(where, f"members below a {shape.type_name}")
            return None
        return _scalar(call, shape, node, where)
    if not isinstance(node, dict):
        call.wrong(where, f"a value where {shape.name} is a {shape.type_name}")
        return None
    if shape.type_name == "structure":
        return _form_structure(call, shape, node, where)
    if sorted(node) != sorted(str(i) for i in range(1, len(node) + 1)):
        call.wrong(where, f"list indices must run from 1 without gaps, not {sorted(node)}")
    items = [
        _form_value(call, shape.member, node[index], f"{where}.{index}")
        for index in sorted(node, key=lambda i: (len(i), i))
    ]
    _bounds(call, shape, len(items), where)
    return items


def judge_rest(call, method, path, query, headers, body):
    """A rest-json request: members in the path, the query string, headers and a JSON body."""
    for name in model(call.service).operation_names:
        operation = model(call.service).operation_model(name)
        found = operation.http["method"] == method and _route(operation.http["requestUri"]).fullmatch(path)
        if found:
            break
    else:
        call.wrong("path", f"no operation of {call.service} is {method} {path}")
        return
    call.action = name
    shape = operation.input_shape
    place = {"uri": {}, "querystring": {}, "header": {}, None: {}}
    for member, member_shape in shape.members.items():
        location = member_shape.serialization.get("location")
        wire = member_shape.serialization.get("name", member)
        place[location][wire.lower() if location == "header" else wire] = (member, member_shape)
    result = {}
    sent = [("uri", unquote(wire), unquote(value)) for wire, value in found.groupdict().items()]
    sent += [("querystring", wire, value) for wire, value in parse_qsl(query, keep_blank_values=True)]
    sent += [("header", wire, value) for wire, value in headers.items()
             if wire.startswith("x-amz-") and wire not in COMMON_HEADERS]
    for location, wire, value in sent:
        if wire not in place[location]:
            call.wrong(f"{location} {wire}", f"unknown member of {call.action}")
            continue
        member, member_shape = place[location][wire]
        if member_shape.type_name == "list":
            result.setdefault(member, []).append(_scalar(call, member_shape.member, value, wire))
        elif member in result:
            call.wrong(f"{location} {wire}", "sent more than once")
        else:
            result[member] = _scalar(call, member_shape, value, wire)
    if payload := shape.serialization.get("payload"):
        result[payload] = body
    elif place[None]:
        result.update(_json_body(call, shape, body))
    elif body not in (b"", b"{}"):
        call.wrong("body", f"{call.action} has no body")
    _required(call, shape, result, "")
    call.parameters = result


def judge_json(call, method, path, headers, body):
    """A request of the JSON protocol: the operation in a header, all members in the body."""
    metadata = model(call.service).metadata
    prefix, _, name = headers.get("x-amz-target", "").rpartition(".")
    if (method, path) != ("POST", "/") or prefix != metadata["targetPrefix"] or name not in model(call.service).operation_names:
        call.wrong("x-amz-target", f"no operation of {call.service} is {method} {path} {prefix}.{name}")
        return
    call.action = name
    kind = f"application/x-amz-json-{metadata['jsonVersion']}"
    if headers.get("content-type") != kind:
        call.wrong("content-type", f"{headers.get('content-type')!r} is not {kind}")
    shape = model(call.service).operation_model(name).input_shape
    if shape is None:
        if body not in (b"", b"{}"):
            call.wrong("body", f"{name} takes no parameters")
        return
    call.parameters = _json_body(call, shape, body)
    _required(call, shape, call.parameters, "")


@cache
def _route(uri):
    greedy = re.sub(r"\\{(\w+)\\\+\\}", r"(?P<\1>.+)", re.escape(uri))
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", greedy))


def _json_body(call, shape, body):
    try:
        document = json.loads(body) if body else {}
    except ValueError as error:
        call.wrong("body", f"not JSON: {error}")
        return {}
    if not isinstance(document, dict):
        call.wrong("body", "not a JSON object")
        return {}
    members = {n: m for n, m in shape.members.items() if "location" not in m.serialization}
    return _json_members(call, shape.name, members, document, "")


def _json_members(call, owner, members, document, where):
    wire = {member.serialization.get("name", name): (name, member) for name, member in members.items()}
    result = {}
    for name, value in document.items():
        at = f"{where}.{name}" if where else name
        if name not in wire:
            call.wrong(at, f"unknown member of {owner}")
        elif value is not None:
            member, shape = wire[name]
            result[member] = _json_value(call, shape, value, at)
    return result


JSON_TYPES = {
    "structure": dict, "map": dict, "list": list, "string": str, "blob": str, "boolean": bool,
    "integer": int, "long": int, "float": (int, float), "double": (int, float), "timestamp": (int, float),
}  # fmt: skip


def _json_value(call, shape, value, where):
    if shape.type_name not in JSON_TYPES:
        raise NotImplementedError(f"{where}: judging a {shape.type_name}")
    wrong_type = not isinstance(value, JSON_TYPES[shape.type_name])
    if wrong_type or (isinstance(value, bool) and shape.type_name != "boolean"):
        call.wrong(where, f"a JSON {type(value).__name__} where {shape.name} is a {shape.type_name}")
        return value
    if shape.type_name == "structure":
        result = _json_members(call, shape.name, shape.members, value, where)
        _required(call, shape, result, where)
        return result
    if shape.type_name == "list":
        _bounds(call, shape, len(value), where)
        return [_json_value(call, shape.member, item, f"{where}[{i}]") for i, item in enumerate(value)]
    if shape.type_name == "map":
        return {key: _json_value(call, shape.value, item, f"{where}[{key}]") for key, item in value.items()}
    _constraints(call, shape, value, where)
    return value


def _scalar(call, shape, text, where):
    """A value that travels as text; mistyped ones are recorded and kept as text."""
    kind = shape.type_name
    value = text
    if kind == "boolean":
        if text not in ("true", "false"):
            call.wrong(where, f"{text!r} is not a boolean (true, false)")
        value = text == "true"
    elif kind in ("integer", "long"):
        if not re.fullmatch(r"-?[0-9]+", text):
            call.wrong(where, f"{text!r} is not an integer")
            return text
        value = int(text)
    elif kind in ("float", "double"):
        if not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text):
            call.wrong(where, f"{text!r} is not a number")
            return text
        value = float(text)
    elif kind == "timestamp":
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", text):
            call.wrong(where, f"{text!r} is not an ISO 8601 time in UTC")
    elif kind == "blob":
        try:
            base64.b64decode(text, validate=True)
        except binascii.Error:
            call.wrong(where, "a blob that is not base64")
    elif kind != "string":
        raise NotImplementedError(f"{where}: judging a {kind}")
    _constraints(call, shape, value, where)
    return value


def _constraints(call, shape, value, where):
    """Enumeration, bounds and pattern. Values are named in full except where AWS calls them sensitive."""
    shown = "a sensitive value" if shape.metadata.get("sensitive") else repr(value)
    if shape.type_name == "string":
        if (choices := shape.metadata.get("enum")) and value not in choices:
            call.wrong(where, f"{shown} is none of {', '.join(choices[:20])}{', ...' if choices[20:] else ''}")
        if (pattern := shape.metadata.get("pattern")) and not _pattern(pattern).fullmatch(value):
            call.wrong(where, f"{shown} does not match {pattern}")
        _bounds(call, shape, len(value), where)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        _bounds(call, shape, value, where)


@cache
def _pattern(pattern):
    # AWS's patterns are Java's. The services' inputs compile in Python too; a test holds them to it.
    # EC2's PlacementGroupArn has an anchor in its middle, with which nothing could match. Letters, separators and numbers are
    # those of Unicode in Python's own classes too.
    for java, python in (("/^", "/"), (r"\p{L}", r"\w"), (r"\p{Z}", r"\s"), (r"\p{N}", r"\d")):
        pattern = pattern.replace(java, python)
    return re.compile(pattern)


def _bounds(call, shape, number, where):
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    what = "is" if isinstance(number, float) or shape.type_name in ("integer", "long") else "has a length of"
    if low is not None and number < low:
        call.wrong(where, f"{what} {number}, below {low}")
    if high is not None and number > high:
        call.wrong(where, f"{what} {number}, above {high}")


def _required(call, shape, result, where):
    for name in shape.required_members:
        if name not in result:
            call.wrong(f"{where}.{name}" if where else name, f"required by {shape.name}, not sent")
