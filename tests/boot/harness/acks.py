"""What the guest's writer said was durable, and when the host heard it."""

import dataclasses
import threading
import time

from . import qmp
from .failed import Failed


@dataclasses.dataclass(frozen=True)
class Said:
    word: str                           # row, op, quiesced, released, start, load, error
    detail: str
    guest_ns: int
    heard: float                        # our monotonic clock


def parse(line, heard):
    word, _, rest = line.partition(" ")
    detail, _, stamp = rest.rpartition(" ")
    return Said(word, detail, int(stamp), heard)


class Acks:
    """Reads the writer's port for as long as the guest lives; a reader that stops would block the writer."""

    def __init__(self, path):
        self.stream = qmp.connect(path, 20.0)
        self.stream.settimeout(None)
        self.said: list[Said] = []
        self.news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        buffer = b""
        while True:
            try:
                data = self.stream.recv(65536)
            except OSError:
                return
            if not data:
                return
            heard = time.monotonic()
            *lines, buffer = (buffer + data).split(b"\n")
            with self.news:
                self.said += [parse(line.decode(), heard) for line in lines]
                self.news.notify_all()

    def tell(self, command):
        self.stream.sendall(f"{command}\n".encode())

    def wait(self, word, seconds, since=0):
        """The first that is said of this kind, from position `since` on."""
        def found():
            return next((said for said in self.said[since:] if said.word == word), None)

        with self.news:
            if not self.news.wait_for(lambda: found() is not None, timeout=seconds):
                raise Failed(f"the guest's writer did not say {word!r} within {seconds} s; last: {self.said[-1:]}")
            return found()

    def newest_row(self, before=float("inf")):
        return max((int(s.detail) for s in self.said if s.word == "row" and s.heard <= before), default=0)

    def newest_ops(self, before=float("inf")):
        newest = {}
        for said in self.said:
            if said.word == "op" and said.heard <= before:
                disk, _, number = said.detail.partition(" ")
                newest[disk] = int(number)
        return newest

    def errors(self):
        return [said.detail for said in self.said if said.word == "error"]

    def row_times(self):
        return [said.heard for said in self.said if said.word == "row"]

    def quiet_windows(self, since, until):
        """Seconds from each `quiesced` to its `released`, by our clock: the guest's stands still in a pause."""
        found, start = [], None
        for said in self.said:
            if said.word == "quiesced":
                start = said
            elif said.word == "released" and start is not None:
                if since <= start.heard <= until:
                    found.append(said.heard - start.heard)
                start = None
        return found

    def quiesced_rows(self, since, until):
        return tuple(int(said.detail) for said in self.said if said.word == "quiesced" and since <= said.heard <= until)

    def close(self):
        self.stream.close()
