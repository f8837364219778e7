"""A slow uplink: a network namespace behind a veth pair, its egress shaped by the kernel (`tc tbf`). What runs
inside is reached through it; the addresses are of RFC 2544's range for measurements. Needs root."""

import os
import pathlib
import threading
import time

from .disks import status
from .failed import Failed
from .guest import run

FRAME_HEADER = 14                       # bytes; tbf counts them
BURST = "8kb"                           # small, so that a second's rate is right and not only a minute's


class Uplink:
    def __init__(self):
        number = os.getpid() % 16000
        self.namespace, self.near, self.far = f"sparesite-{number}", f"ssn{number}", f"ssf{number}"
        network = f"198.18.{number // 64}.{number % 64 * 4}"
        stem, _, last = network.rpartition(".")
        self.near_address, self.address = f"{stem}.{int(last) + 1}", f"{stem}.{int(last) + 2}"
        if os.geteuid() != 0:
            raise Failed("an uplink in a network namespace needs root")
        run("ip", "netns", "add", self.namespace)
        try:
            self._connect()
        except Failed:
            self.close()
            raise

    def _connect(self):
        run("ip", "link", "add", self.near, "type", "veth", "peer", "name", self.far, "netns", self.namespace)
        run("ip", "address", "add", f"{self.near_address}/30", "dev", self.near)
        run("ip", "link", "set", self.near, "up")
        run("ip", "-n", self.namespace, "address", "add", f"{self.address}/30", "dev", self.far)
        run("ip", "-n", self.namespace, "link", "set", self.far, "up")
        run("ip", "-n", self.namespace, "link", "set", "lo", "up")

    def shape(self, bits_per_second):
        """From now on; before, it is as fast as the machine."""
        run("tc", "qdisc", "replace", "dev", self.near, "root", "tbf", "rate", f"{bits_per_second}bit", "burst", BURST, "latency", "400ms")

    @property
    def inside(self):
        """A command prefix."""
        return ("ip", "netns", "exec", self.namespace)

    def cut(self):
        """The line is dead: packets go nowhere, and nobody is told."""
        run("ip", "-n", self.namespace, "link", "set", self.far, "down")

    def mend(self):
        run("ip", "-n", self.namespace, "link", "set", self.far, "up")

    def sent_bytes(self):
        """What left for the other side, with IP's and TCP's headers and retransmissions, as a provider counts it: without
        the frames' own headers, which are this veth's."""
        place = pathlib.Path(f"/sys/class/net/{self.near}/statistics")
        sent, packets = (int((place / name).read_text()) for name in ("tx_bytes", "tx_packets"))
        return sent - packets * FRAME_HEADER

    def close(self):
        # A namespace that is deleted lets its links go only later; the pair is gone at once.
        status("ip", "link", "delete", self.near)
        run("ip", "netns", "delete", self.namespace)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Meter:
    """Samples what leaves through the uplink, so that a cap can be judged over any span."""

    def __init__(self, uplink, every=0.5):
        self.uplink, self.every = uplink, every
        self.samples = [(time.monotonic(), uplink.sent_bytes())]
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)

    def _sample(self):
        while not self.stop.wait(self.every):
            self.samples.append((time.monotonic(), self.uplink.sent_bytes()))

    def restart(self):
        """What went before is not counted."""
        self.samples = [(time.monotonic(), self.uplink.sent_bytes())]

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


def busiest_rate(samples, span):
    """The highest bit rate over any span of at least this many seconds; None if none is that long. Pure."""
    best = None
    start = 0
    for end in range(1, len(samples)):
        while start + 1 < end and samples[end][0] - samples[start + 1][0] >= span:
            start += 1
        seconds = samples[end][0] - samples[start][0]
        if seconds >= span:
            rate = (samples[end][1] - samples[start][1]) * 8 / seconds
            best = rate if best is None else max(best, rate)
    return best
