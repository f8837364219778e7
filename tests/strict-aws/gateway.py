"""The one door in front of moto: judges, records and disturbs each request, then lets moto or our EBS handle it."""

import io
import json
import re
import socket
import sys
import time
import traceback
from threading import Lock
from urllib.parse import parse_qsl, urlsplit

from moto.iam.models import get_account_id_from
from werkzeug.wrappers import Response

import answers
import ebs
import judge
import signing
from control import Control
from faults import KINDS, Faults

LEFT_OUT = "(left out)"


class Record:
    """Every request in the order of arrival, and what was wrong with any of them."""

    def __init__(self):
        self.lock = Lock()
        self.requests, self.violations = [], []

    def arrived(self, call, key):
        parameters = {k: LEFT_OUT if isinstance(v, bytes) else v for k, v in call.parameters.items()}
        entry = {"service": call.service, "action": call.action, "key": key, "parameters": parameters,
                 "status": None, "error_code": None, "fault": None}  # fmt: skip
        with self.lock:
            self.requests.append(entry)
        if call.violations:
            self.violated(call, call.violations)
        return entry

    def violated(self, call, what):
        with self.lock:
            self.violations.append({"service": call.service, "action": call.action, "what": list(what)})

    def reset(self):
        with self.lock:
            self.requests, self.violations = [], []


class Gateway:
    def __init__(self, moto):
        self.moto = moto
        self.record = Record()
        self.faults = Faults()
        self.control = Control(self.record, self.faults)

    def __call__(self, environ, start_response):
        target = urlsplit(environ["RAW_URI"])
        if target.path.startswith("/strict/"):
            return self.control(environ, target)(environ, start_response)
        if target.path.startswith("/moto-api"):
            with ebs.LOCK:
                return self.moto(environ, start_response)
        headers = read_headers(environ)
        scope, unsigned = signing.read(headers)
        call = judge.Call(scope.service or guessed_service(environ, headers, target.path))
        try:
            return self.handled(environ, start_response, target, headers, scope, call, unsigned)
        except ConnectionError:
            raise  # the client or a fault hung up: the server's to notice
        except Exception as error:
            # Whatever breaks in here breaks the test that met it: never an answer that looks like AWS's.
            traceback.print_exc(file=sys.stderr)
            what = f"the stand-in failed: {type(error).__name__}: {error}"
            self.record.violated(call, [what])
            return as_response(answers.error(call.service, 500, "StrictFailure", what))(environ, start_response)

    def handled(self, environ, start_response, target, headers, scope, call, unsigned):
        body = decode(call, environ, headers, target, unsigned)
        entry = self.record.arrived(call, scope.access_key)
        fault = None
        if call.violations:
            reply = answers.error(call.service, 400, "StrictViolation", "; ".join(call.violations))
            response = answered(entry, reply)
        else:
            fault = self.faults.take(call)
            if fault:
                entry["fault"] = next(kind for kind in KINDS if kind in fault)
                time.sleep(fault.get("stall_seconds", 0))
            if fault and "drop_before" in fault:
                hang_up(environ)
            if fault and "error" in fault:
                error = fault["error"]
                response = answered(entry, answers.error(call.service, **error))
            else:
                try:
                    response = self.carried_out(environ, call, scope, body, entry)
                except Exception:
                    entry["status"], entry["error_code"] = 500, "StrictFailure"
                    raise
        if fault and "drop_after" in fault:
            response.get_data()
            hang_up(environ)
        return response(environ, start_response)

    def carried_out(self, environ, call, scope, body, entry):
        if call.service == "ebs":
            try:
                reply = ebs.handle(call, get_account_id_from(scope.access_key), scope.region)
            except answers.AwsError as error:
                reply = answers.error("ebs", error.status, error.code, error.message, error.reason)
            return answered(entry, reply)
        if call.service not in judge.VERSIONS:
            return noted(entry, Response.from_app(self.moto, environ))
        with ebs.LOCK:
            response = Response.from_app(self.moto, environ, buffered=True)
        if response.status_code >= 500:
            self.record.violated(call, [f"moto answered {response.status_code}"])
        if call.service == "scheduler" and response.status_code >= 400:
            # moto names the error in the body only; AWS's clients look at the header first.
            value = response.get_json()
            return answered(entry, answers.error("scheduler", response.status_code, value["__type"], value["message"]))
        return noted(entry, response)


def decode(call, environ, headers, target, unsigned):
    """Reads and judges the request into the call. Returns the body where it is not moto's alone to read it."""
    if call.service not in judge.VERSIONS:
        describe_unjudged(call, environ, headers, target)
        return None
    call.violations += unsigned
    body = rewound(environ)
    try:
        if call.service == "ec2":
            judge.judge_form(call, body.decode() if environ["REQUEST_METHOD"] == "POST" else target.query)
        elif judge.model(call.service).protocol == "json":
            judge.judge_json(call, environ["REQUEST_METHOD"], target.path, headers, body)
        else:
            judge.judge_rest(call, environ["REQUEST_METHOD"], target.path, target.query, headers, body)
    except ValueError as error:  # not UTF-8, not a form
        call.wrong("request", f"undecodable: {error}")
    return body


def as_response(reply):
    return Response(reply.body, reply.status, reply.headers)


def answered(entry, reply):
    entry["status"], entry["error_code"] = reply.status, reply.error
    return as_response(reply)


def noted(entry, response):
    entry["status"] = response.status_code
    if response.status_code >= 400:
        entry["error_code"] = error_code(response)
    return response


def read_headers(environ):
    headers = {k[5:].replace("_", "-").lower(): v for k, v in environ.items() if k.startswith("HTTP_")}
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            headers[name.replace("_", "-").lower()] = environ[name]
    return headers


def read_body(environ):
    stream = environ["wsgi.input"]
    if environ.get("wsgi.input_terminated"):
        return stream.read()
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = stream.read(length) if length else b""
    if len(body) != length:
        raise ConnectionAbortedError(f"the client sent {len(body)} of {length} bytes")
    return body


def rewound(environ):
    """The body, which moto can read once more."""
    body = read_body(environ)
    environ["wsgi.input"] = io.BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    return body


def guessed_service(environ, headers, path):
    """Of a request without a scope, so that an unsigned one of a judged service does not pass as one of S3."""
    if re.fullmatch(r"/snapshots(/completion/[^/]+|/snap-.*)?", path):
        return "ebs"
    if re.match(r"/schedule(s|-groups)(/|$)", path):
        return "scheduler"
    for service in ("servicequotas", "kms"):
        if headers.get("x-amz-target", "").startswith(judge.model(service).metadata["targetPrefix"] + "."):
            return service
    form = headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    if form and f"Version={judge.VERSIONS['ec2']}".encode() in rewound(environ):
        return "ec2"
    return "s3"


def describe_unjudged(call, environ, headers, target):
    """Names a request of another service as far as that is easy: those are moto's alone to judge."""
    form = headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    if name := headers.get("x-amz-target"):
        call.action, call.parameters = name.rpartition(".")[2], json.loads(rewound(environ) or b"{}")
    elif form and call.service != "s3":
        call.parameters = dict(parse_qsl(rewound(environ).decode(), keep_blank_values=True))
        call.action = call.parameters.pop("Action", environ["REQUEST_METHOD"])
    else:
        call.action = environ["REQUEST_METHOD"]
        call.parameters = {"path": target.path, **dict(parse_qsl(target.query, keep_blank_values=True))}


def error_code(response):
    if name := response.headers.get("x-amzn-ErrorType"):
        return name
    text = response.get_data(as_text=True)
    if found := re.search(r"<Code>(.*?)</Code>", text):
        return found[1]
    if found := re.search(r'"(?:__type|code)": ?"(.*?)"', text):
        return found[1].rpartition("#")[2]
    return None


def hang_up(environ):
    """Closes the connection without an answer, as the server understands it."""
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError("a fault drops this connection")
