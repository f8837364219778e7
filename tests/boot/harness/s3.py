"""An S3 stand-in that can be away. moto keeps its objects in memory, so the process stays: what is stopped and
started is the door in front of it, and while that is shut, connections are cut and refused."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

from .failed import Failed

START_SECONDS = 60


def moto():
    program = os.environ.get("SPARESITE_MOTO") or shutil.which("moto_server")
    if not program:
        raise Failed("no moto_server: call it through tests/setup.sh test, or set SPARESITE_MOTO")
    return program


class S3Server:
    """moto on a free port of `host`; `inside` is a command prefix that enters another namespace."""

    def __init__(self, host="127.0.0.1", inside=()):
        self.host = host
        self.log = tempfile.TemporaryFile()
        command = [*inside, moto(), "-H", host, "-p", "0"]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, start_new_session=True)
        self.port = self._port()

    def _port(self):
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            self.log.seek(0)
            found = re.search(rb"Running on http://[^:\s]+:(\d+)", self.log.read())
            if found:
                return int(found[1])
            time.sleep(0.1)
        self.close()
        raise Failed(f"{moto()} said no port within {START_SECONDS} s")

    @property
    def endpoint(self):
        return f"http://{self.host}:{self.port}"

    def create_bucket(self, name="sparesite"):
        request = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT", data=b"")
        with urllib.request.urlopen(request, timeout=30):
            return name

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def environment(endpoint):
    """What a program needs to use the server; the credentials are moto's to ignore."""
    return {
        "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": endpoint,
    }


class Door:
    """Forwards one loopback port to a server; `shut` cuts what is open and refuses what comes."""

    def __init__(self, host, port):
        self.target = (host, port)
        self.connections = set()
        self.lock = threading.Lock()
        self.listener = None
        self.port = 0
        self.open()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    def open(self):
        if self.listener is None:
            self.listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
            self.port = self.listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def shut(self):
        listener, self.listener = self.listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self.lock:
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(listener, client), daemon=True).start()

    def _serve(self, listener, client):
        try:
            server = socket.create_connection(self.target, timeout=30)
            server.settimeout(None)
            # Little is held here, so that a client feels the line behind.
            server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        except OSError:
            client.close()
            return
        pair = {client, server}
        with self.lock:
            self.connections |= pair
            if listener is not self.listener:       # shut meanwhile
                client.shutdown(socket.SHUT_RDWR)
        back = threading.Thread(target=pump, args=(server, client), daemon=True)
        back.start()
        pump(client, server)
        back.join()
        with self.lock:
            self.connections -= pair
        client.close()
        server.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.shut()


def pump(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
