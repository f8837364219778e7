"""A server, emptied for each test module, and clients of the vendor's making for it."""

import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import boto3
import pytest
from botocore.config import Config

HERE = Path(__file__).parent


class Server:
    def __init__(self, url):
        self.url = url
        self.clients = {}

    def client(self, service, **config):
        key = (service, *config.items())
        if key not in self.clients:
            self.clients[key] = boto3.client(
                service, endpoint_url=self.url, region_name="eu-central-1", aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
                aws_secret_access_key="secret", config=Config(retries={"total_max_attempts": 1}, **config),
            )  # fmt: skip
        return self.clients[key]

    def raw(self, method, path, body=None):
        request = urllib.request.Request(self.url + path, body, method=method)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.read()
        except HTTPError as error:
            return error.code, error.read()

    def disk(self, snapshot):
        """The blocks of a volume made from the snapshot."""
        with urllib.request.urlopen(f"{self.url}/strict/disk/{snapshot}") as answer:
            while data := answer.read(524_288):
                yield data

    def strict(self, method, what, value=None):
        status, body = self.raw(method, f"/strict/{what}", None if value is None else json.dumps(value).encode())
        assert status == 200, body
        return json.loads(body)


@pytest.fixture(scope="session")
def process():
    command = [sys.executable, HERE / "serve.py", "--port", "0"]
    # Read by its name: a handle that is shared with the server would move the place where that writes.
    with tempfile.NamedTemporaryFile() as log, subprocess.Popen(command, stderr=log) as running:
        try:
            until = time.monotonic() + 60
            while not (found := re.search(r"Running on (http://\S+)", said(log.name))):
                if running.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"the stand-in did not start: {said(log.name)}")
                time.sleep(0.05)
            yield Server(found[1])
        finally:
            running.terminate()
            running.wait(10)
            print(said(log.name))


def said(log):
    return Path(log).read_text()


@pytest.fixture(scope="module")
def server(process):
    """Empty: what moto forgets at its reset, we forget too."""
    assert process.raw("POST", "/moto-api/reset")[0] == 200
    return process


@pytest.fixture(autouse=True)
def no_violations(request, server):
    """What boto3 sends is right by definition: a violation is a fault of the judge, or of the test that wants it."""
    server.strict("DELETE", "faults")
    server.strict("POST", "reset")
    yield
    if "expects_violations" not in request.keywords:
        assert server.strict("GET", "violations") == []


def pytest_configure(config):
    config.addinivalue_line("markers", "expects_violations: the test sends what the judge must refuse")
