"""What must hold of a guest between the deaths of whoever captures it. Each returns a check: a function
without arguments that returns findings."""

import dataclasses
import time

from .failed import Failed


def eventually(seconds, check):
    """Holds if it holds at some moment within the time given."""
    def checked():
        until = time.monotonic() + seconds
        while True:
            findings = check()
            if not findings or time.monotonic() > until:
                return findings
            time.sleep(0.1)

    return checked


def thawed(guest):
    def check():
        try:
            return ["the guest's file systems are frozen"] if guest.agent.frozen(timeout=5) else []
        except Failed as error:
            return [f"whether the guest is frozen cannot be learned: {error}"]

    return check


def running(guest):
    def check():
        try:
            status = guest.monitor.execute("query-status", timeout=20)["status"]
        except Failed as error:
            return [f"the monitor does not answer: {error}"]
        return [] if status == "running" else [f"the VM is {status}"]

    return check


class Recovery:
    """A check that a guest runs and is thawed soon, and for how long it was not."""

    def __init__(self, guest, seconds):
        self.running, self.thawed, self.seconds = running(guest), thawed(guest), seconds
        self.took: list[float] = []     # each time that it was found paused or frozen

    def _ill(self):
        # The agent of a paused guest would be waited for in vain.
        return self.running() or self.thawed()

    def __call__(self):
        began = time.monotonic()
        if not self._ill():
            return []
        findings = eventually(self.seconds, self._ill)()
        self.took.append(time.monotonic() - began)
        return findings


def writing(guest, seconds):
    """A row is acknowledged after the check began."""
    def check():
        newest, until = guest.acks.newest_row(), time.monotonic() + seconds
        while guest.acks.newest_row() <= newest:
            if time.monotonic() > until:
                return [f"the writer acknowledges nothing for {seconds:g} s"]
            time.sleep(0.05)
        return []

    return check


def unharmed(guest):
    seen = len(guest.acks.errors())

    def check():
        nonlocal seen
        errors = guest.acks.errors()[seen:]
        seen += len(errors)
        return [f"the guest's writer met an error: {text}" for text in errors]

    return check


@dataclasses.dataclass(frozen=True)
class Holdings:
    """What QEMU holds beyond the machine itself, by name."""

    nodes: frozenset
    bitmaps: frozenset                  # node/bitmap
    exports: frozenset
    jobs: frozenset

    def beyond(self, other):
        for kind in ("nodes", "bitmaps", "exports", "jobs"):
            for name in sorted(getattr(self, kind) - getattr(other, kind)):
                yield kind[:-1], name


def holdings(monitor):
    nodes = monitor.execute("query-named-block-nodes", flat=True)
    return Holdings(
        frozenset(node["node-name"] for node in nodes),
        frozenset(f"{node['node-name']}/{bitmap['name']}" for node in nodes for bitmap in node.get("dirty-bitmaps", ()) if bitmap.get("name")),
        frozenset(export["id"] for export in monitor.execute("query-block-exports")),
        frozenset(job["id"] for job in monitor.execute("query-jobs")),
    )


def nothing_left(guest, baseline, allowed=lambda kind, name: False):
    """`allowed` says which are wanted: a position's bitmap on each disk, say. Kinds: node, bitmap, export, job."""
    def check():
        found = holdings(guest.monitor).beyond(baseline)
        return [f"left in QEMU: {kind} {name}" for kind, name in found if not allowed(kind, name)]

    return check


def drives_unchanged(guest):
    """Each device still reads and writes its own node, with no filter left over it."""
    def inserted():
        return {block["qdev"]: block["inserted"]["node-name"] for block in guest.monitor.execute("query-block") if "inserted" in block and block.get("qdev")}

    before = inserted()

    def check():
        return [f"device {name} has node {node} inserted, not {before.get(name)}" for name, node in inserted().items() if before.get(name) != node]

    return check


def rescue(guest):
    """Brings a guest back that somebody left paused or frozen, so that a test can go on."""
    if guest.monitor.execute("query-status")["status"] == "paused":
        guest.monitor.execute("cont")
    if guest.agent.frozen():
        guest.agent.execute("guest-fsfreeze-thaw")
