"""The guest agent, connected to for one exchange at a time: its socket serves one client, and ours is not the only one."""

import contextlib
import json
import random
import time

from . import qmp
from .failed import Failed


class Agent:
    def __init__(self, path):
        self.path = path

    @contextlib.contextmanager
    def connected(self, timeout=20.0):
        stream = qmp.connect(self.path, timeout)
        try:
            session = Session(self.path, stream, timeout)
            session.synchronise()
            yield session
        finally:
            stream.close()

    def execute(self, command, timeout=20.0, **arguments):
        with self.connected(timeout) as session:
            return session.execute(command, **arguments)

    def frozen(self, timeout=20.0):
        return self.execute("guest-fsfreeze-status", timeout) != "thawed"

    def wait(self, seconds):
        """Until the agent answers: it may have been restarted, or not been started yet."""
        until = time.monotonic() + seconds
        while True:
            try:
                return self.execute("guest-ping", timeout=5)
            except Failed:
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)


class Session:
    def __init__(self, path, stream, timeout):
        self.path, self.stream, self.timeout = path, stream, timeout
        self.buffer = b""

    def synchronise(self):
        """Whatever an earlier client left half sent or unread is dropped: 0xFF is in no JSON."""
        token = random.randrange(1 << 31)
        request = {"execute": "guest-sync-delimited", "arguments": {"id": token}}
        self._send(b"\xff" + json.dumps(request).encode() + b"\n")
        until = time.monotonic() + self.timeout
        while time.monotonic() < until:
            line = self._line()
            _, marked, answer = line.rpartition(b"\xff")
            if marked and json.loads(answer).get("return") == token:
                return
        raise Failed(f"{self.path}: the guest agent does not synchronise")

    def execute(self, command, **arguments):
        request = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        self._send(json.dumps(request).encode() + b"\n")
        answer = json.loads(self._line())
        if "error" in answer:
            raise Failed(f"{self.path}: {command}: {answer['error']['desc']}")
        return answer["return"]

    def _send(self, data):
        try:
            self.stream.sendall(data)
        except OSError as error:
            raise Failed(f"{self.path}: {error}") from error

    def _line(self):
        while b"\n" not in self.buffer:
            try:
                data = self.stream.recv(65536)
            except OSError as error:
                raise Failed(f"{self.path}: the guest agent does not answer: {error}") from error
            if not data:
                raise Failed(f"{self.path}: the guest agent's socket was closed")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line
