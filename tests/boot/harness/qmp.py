"""One client of a QEMU monitor: commands, and the events that came meanwhile with the time they came."""

import dataclasses
import json
import queue
import socket
import threading
import time

from .failed import Failed

ANSWER_SECONDS = 60


@dataclasses.dataclass(frozen=True)
class Event:
    name: str
    qemu_seconds: float                 # QEMU's wall clock
    received: float                     # our monotonic clock
    data: dict


class Qmp:
    def __init__(self, path, timeout=20.0):
        self.path = path
        self.socket = connect(path, timeout)
        self.events: list[Event] = []
        self.answers: queue.Queue = queue.Queue()
        self.lock = threading.Lock()
        self.lines = self.socket.makefile("rb")
        try:
            self._greet()
        except (OSError, ValueError) as error:
            self.socket.close()
            raise Failed(f"{path}: no QMP greeting: {error!r}; is another client connected?") from error
        self.socket.settimeout(None)
        threading.Thread(target=self._read, daemon=True).start()
        self.execute("qmp_capabilities")

    def _greet(self):
        """Events may come before the greeting."""
        greeting = {"event": None}
        while "event" in greeting:
            greeting = json.loads(self.lines.readline())
        if "QMP" not in greeting:
            raise ValueError(greeting)

    def _read(self):
        try:
            for line in self.lines:
                message = json.loads(line)
                if "event" in message:
                    stamp = message["timestamp"]
                    seconds = stamp["seconds"] + stamp["microseconds"] / 1e6
                    self.events.append(Event(message["event"], seconds, time.monotonic(), message.get("data", {})))
                else:
                    self.answers.put(message)
        except (OSError, ValueError):
            pass
        self.answers.put({"error": {"class": "Closed", "desc": "the monitor closed the connection"}})

    def execute(self, command, timeout=ANSWER_SECONDS, **arguments):
        request = {"execute": command}
        if arguments:
            request["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
        with self.lock:
            try:
                self.socket.sendall(json.dumps(request).encode() + b"\n")
                answer = self.answers.get(timeout=timeout)
            except (OSError, queue.Empty) as error:
                raise Failed(f"{self.path}: {command}: no answer: {error!r}") from error
        if "error" in answer:
            raise Failed(f"{self.path}: {command}: {answer['error']['desc']}")
        return answer["return"]

    def close(self):
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()


def connect(path, timeout):
    """Connects to a socket that QEMU may not have made yet."""
    until = time.monotonic() + timeout
    while True:
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.settimeout(timeout)
        try:
            stream.connect(str(path))
            return stream
        except OSError as error:
            stream.close()
            if time.monotonic() > until:
                raise Failed(f"{path}: {error}") from error
            time.sleep(0.05)


def pauses(events, since=0.0, until=float("inf")):
    """Seconds from each STOP to the RESUME after it, for those that were received in the span."""
    found, stopped = [], None
    for event in events:
        if event.name == "STOP":
            stopped = event
        elif event.name == "RESUME" and stopped is not None:
            if since <= stopped.received <= until:
                found.append(event.qemu_seconds - stopped.qemu_seconds)
            stopped = None
    return found
