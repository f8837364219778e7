"""The host's own tools: a second monitor client that asks every second and must always be answered."""

import threading
import time

from .failed import Failed

ANSWER_WITHIN = 5.0                     # what such tools wait for, before they call a VM unresponsive


class Poller:
    def __init__(self, monitor, every=1.0):
        self.monitor, self.every = monitor, every
        self.answers: list[float] = []  # seconds each answer took
        self.problems: list[str] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._poll, daemon=True)

    def _poll(self):
        while not self.stop.wait(self.every):
            began = time.monotonic()
            try:
                self.monitor.execute("query-status", timeout=60)
                self.monitor.execute("query-named-block-nodes", timeout=60, flat=True)
            except Failed as error:
                if not self.stop.is_set():
                    self.problems.append(str(error))
                return
            took = time.monotonic() - began
            self.answers.append(took)
            if took > ANSWER_WITHIN:
                self.problems.append(f"the second monitor client waited {took:.1f} s for an answer")

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join(65)
