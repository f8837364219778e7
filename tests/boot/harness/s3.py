"""An S3 stand-in that can be away. moto keeps its objects in memory, so its process stays: it can be halted, and the
door in front of it can refuse connections, answer that it is busy, or reset them in the middle of a body."""

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import urllib.request

from .failed import Failed

START_SECONDS = 60
OPEN, BUSY, RESET = "open", "busy", "reset"     # how a door behaves
MOST_OF_ASKING = 48 << 10                       # bytes of a start's requests; a pack has some hundred KiB
MOST_BEFORE_RESET = 64 << 10                    # bytes; a delta's packs and metadata are as large
BUSY_BODY = b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>SlowDown</Code><Message>away</Message></Error>"
BUSY_ANSWER = b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (
    len(BUSY_BODY),
    BUSY_BODY,
)


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

    def halt(self):
        """It answers nothing from now on; the kernel goes on taking connections in its name."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self):
        os.kill(self.process.pid, signal.SIGCONT)

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
    """Forwards one loopback port to a server, each request after `delay` seconds. `shut` cuts what is open and refuses
    what comes."""

    def __init__(self, host, port, seed=1, delay=0.0):
        self.target = (host, port)
        self.delay = delay
        self.connections = set()
        self.carried = {}               # client → bytes that came from it, while it is connected
        self.lock = threading.Lock()
        self.rng = random.Random(seed)
        self.listener = None
        self.manner = OPEN
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
        self._cut()

    def carries(self):
        """What the clients that are connected have sent."""
        with self.lock:
            return sum(self.carried.values())

    def behave(self, manner=OPEN):
        """Of connections from now on. Whoever kept one open makes a new one; what is resetting goes on until it is cut."""
        self.manner = manner
        if manner != OPEN:
            self._cut()

    def _cut(self):
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
        if self.manner == BUSY:
            return say_busy(client)
        most = self.rng.randrange(1, MOST_BEFORE_RESET) if self.manner == RESET else None
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
            self.carried[client] = 0
            if listener is not self.listener:       # shut meanwhile
                client.shutdown(socket.SHUT_RDWR)
        back = threading.Thread(target=pump, args=(server, client), daemon=True)
        back.start()
        if pump(client, server, most, lambda count: self._count(client, count)):
            linger = struct.pack("ii", 1, 0)        # the close is a reset then, for both sides
            for connection in pair:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            # The other pump sleeps in this connection, which would keep it from being closed.
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RD)
        back.join()
        with self.lock:
            self.connections -= pair
            del self.carried[client]
        client.close()
        server.close()

    def _count(self, client, count):
        with self.lock:
            self.carried[client] += count
        # What asks for an object is one piece; a connection waits alone, as over a long line.
        if self.delay:
            time.sleep(self.delay)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.shut()


def say_busy(client):
    """To whatever is asked; the rest of the request is not read."""
    with client, contextlib.suppress(OSError):
        client.settimeout(30)
        head = b""
        while b"\r\n\r\n" not in head and (data := client.recv(65536)):
            head += data
        client.sendall(BUSY_ANSWER)
        client.shutdown(socket.SHUT_WR)
        # What comes still is dropped for a moment: a reset would take the answer away.
        client.settimeout(0.2)
        while client.recv(65536):
            pass


def pump(source, sink, most=None, count=lambda count: None):
    """Until the source ends; or, with `most`, until so many bytes went through, and then it is true."""
    left = most
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            count(len(data))
            if left is not None and len(data) >= left:
                sink.sendall(data[:left])
                return True
            left = None if left is None else left - len(data)
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
    return False
