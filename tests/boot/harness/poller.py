"""What the harness sees meanwhile: that the host's own tools are answered, through a monitor of their own and through the
gateway's, and for how long a filter of ours lies over a disk."""

import threading
import time

from .failed import Failed
from .qmp import Qmp

ANSWER_WITHIN = 5.0                     # what such tools wait for, before they call a VM unresponsive


def through(monitor):
    """Asks what a host's tool asks, of a monitor that is its own."""
    def ask():
        monitor.execute("query-status", timeout=60)
        monitor.execute("query-named-block-nodes", timeout=60, flat=True)

    return ask


def anew(path):
    """Asks as a tool does that shares the monitor: it serves one client at a time, so it waits for its turn."""
    def ask():
        monitor = Qmp(path, timeout=60)
        try:
            monitor.execute("query-status", timeout=60)
        finally:
            monitor.close()

    return ask


class Poller:
    def __init__(self, ask, who, within=ANSWER_WITHIN, every=1.0):
        self.ask, self.who, self.within, self.every = ask, who, within, every
        self.answers: list[float] = []  # seconds each answer took
        self.problems: list[str] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._poll, daemon=True)

    def _poll(self):
        while not self.stop.wait(self.every):
            began = time.monotonic()
            try:
                self.ask()
            except Failed as error:
                if not self.stop.is_set():
                    self.problems.append(f"{self.who}: {error}")
                return
            took = time.monotonic() - began
            self.answers.append(took)
            if took > self.within:
                self.problems.append(f"{self.who} waited {took:.1f} s for an answer")

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join(65)


class HoldWatch:
    """For how long a filter of ours was seen inserted over any device: a lower bound, by a clock that is not the
    gateway's."""

    def __init__(self, monitor, every=0.05):
        self.monitor, self.every = monitor, every
        self.seen: list[tuple[float, bool]] = []        # when, and whether one was there
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self):
        while not self.stop.wait(self.every):
            try:
                blocks = self.monitor.execute("query-block")
            except Failed:
                return                  # the poller says so
            nodes = (block.get("inserted", {}).get("node-name", "") for block in blocks)
            self.seen.append((time.monotonic(), any(node.startswith("sparesite-") for node in nodes)))

    def held(self, since, until):
        return longest_held([(at, there) for at, there in self.seen if since <= at <= until])

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join(65)


def longest_held(seen):
    """From the first to the last look of one stretch that saw it. None if nobody looked. Pure."""
    longest, first = 0.0, None
    for at, there in seen:
        first = (at if first is None else first) if there else None
        longest = max(longest, at - first) if there else longest
    return longest if seen else None
