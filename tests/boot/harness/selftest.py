"""Proves on a real guest that the bench sees what it is there to see: each damage must become a finding."""

import json
import pathlib
import shutil
import sys

from . import invariants, kill, point, series
from .capture import Copy, Torn
from .disks import status
from .guest import run, settle


def run_selftest(guest, folder):
    """Returns what was not caught, or was caught though it was good."""
    guest.acks.tell("load rows=50")
    findings = []
    for capturer, consistency, must_fail in (
        (Copy(), "crash", None),
        (Copy(), "application", None),
        (Torn(1.0), "crash", "different instants"),
    ):
        taken = judged(guest, capturer, consistency, folder)
        findings += verdict(f"{capturer.name}, {consistency}", taken.judged.findings, must_fail)
    findings += damaged_points(guest, folder)
    findings += run_kill_selftest(guest, folder)
    return findings


def run_kill_selftest(guest, folder):
    """A capturer that holds a guest frozen must be found out, and one that a sweep cures must not."""
    baseline = invariants.holdings(guest.monitor)
    victim = str(pathlib.Path(__file__).with_name("victim.py"))
    settle(guest, 20)

    def killed(kills, *words):
        checks = [invariants.running(guest), invariants.thawed(guest), invariants.unharmed(guest)]
        plan = kill.Plan(
            lambda number: [sys.executable, "-B", victim, str(guest.qmp_path), str(guest.folder / "agent"), "1.2", *words],
            kills,
            span=1.8,
            seed=3,
            after_kill=[*checks, invariants.writing(guest, 5)],
            after_sweep=[invariants.nothing_left(guest, baseline)],
            sweep_every=kills,
            sweep_seconds=60,
            rescue=lambda: invariants.rescue(guest),
        )
        return " ".join(kill.summarise(plan, kill.run_kills(plan))["findings"])

    careless, swept = killed(4), killed(14, "sweep")
    findings = [f"the kill harness missed {words!r}" for words in ("ended", "left in QEMU") if words not in careless]
    findings += [f"the kill harness missed {words!r}" for words in ("frozen", "paused", "acknowledges nothing") if words not in swept]
    findings += [f"what a sweep takes away was called left: {swept}"] if "left in QEMU" in swept else []
    guest.monitor.execute("blockdev-add", driver="null-co", node_name="sparesite-left", size=1048576)
    findings += [] if invariants.nothing_left(guest, baseline)() else ["a node that was left was not found"]
    guest.monitor.execute("blockdev-del", node_name="sparesite-left")
    return findings


def judged(guest, capturer, consistency, folder):
    settle(guest, 20)
    capturer.begin(guest, folder)
    taken = series.take(guest, capturer, 1, consistency)
    series.judge_taken(capturer, taken, folder)
    return taken


def verdict(what, found, must_fail):
    series.note(f"{what}: {found or 'good'}")
    if must_fail is None:
        return [f"{what} was good, and was called bad: {found}"] if found else []
    if not any(must_fail in text for text in found):
        return [f"{what} was to be caught as {must_fail!r}, and was not: {found}"]
    return []


def damaged_points(guest, folder):
    """One good point of each kind, then harmed in one way at a time."""
    settle(guest, 20)
    crash, application = Copy(), Copy()
    findings = []
    images, expected = {}, {}
    for name, capturer in (("crash", crash), ("application", application)):
        capturer.begin(guest, folder)
        taken = series.take(guest, capturer, 1, name)
        place = folder / f"good-{name}"
        place.mkdir()
        images[name], expected[name] = capturer.restore(taken.capture, place), taken.expected
        settle(guest, 40)
    for what, kind, harm, must_fail in HARMS:
        place = folder / "harmed"
        place.mkdir()
        harmed = {name: place / image.name for name, image in images[kind].items()}
        for name, image in harmed.items():
            run("cp", "--sparse=always", images[kind][name], image)
        wanted = harm(harmed, images, expected[kind], place) or expected[kind]
        findings += verdict(what, point.judge_point(harmed, wanted, folder).findings, must_fail)
        shutil.rmtree(place)
    return findings


def old_root(harmed, images, expected, place):
    """The first disk is of the earlier point, the second of the later one."""
    run("cp", "--sparse=always", images["crash"]["root"], harmed["root"])


def lost_disk(harmed, images, expected, place):
    del harmed["data"]


def stale_point(harmed, images, expected, place):
    """The point before, given out as this one: whole, and too old."""
    for name in harmed:
        run("cp", "--sparse=always", images["crash"][name], harmed[name])
    return point.Expected(expected.row, expected.ops, "crash")


def called_application(harmed, images, expected, place):
    return point.Expected(expected.row, expected.ops, "application", (expected.row,))


def zeroed_blocks(name, path, count):
    """Zeroes the first blocks of a file as it lies in the ext4 of the first disk."""
    def harm(harmed, images, expected, place):
        start = partition_start(harmed[name])
        _, listing = status("debugfs", "-R", f"blocks {path}", f"{harmed[name]}?offset={start}")
        blocks = [int(word) for word in listing.split() if word.isdigit()][:count]
        with open(harmed[name], "r+b") as file:
            for block in blocks:
                file.seek(start + block * 4096)
                file.write(bytes(4096))

    return harm


def inode_tables(harmed, images, expected, place):
    """Random damage in the first disk's metadata: blocks 1 to 400 of an ext4 hold descriptors, bitmaps, inodes."""
    start = partition_start(harmed["root"])
    with open(harmed["root"], "r+b") as file:
        for block in range(100, 400):
            file.seek(start + block * 4096 + 7)
            file.write(b"\xa5" * 900)


def xfs_metadata(harmed, images, expected, place):
    """The headers of the second disk's first allocation group, behind the superblock."""
    with open(harmed["data"], "r+b") as file:
        file.seek(512)
        file.write(b"\xa5" * 20000)


def partition_start(image):
    _, table = status("sfdisk", "-J", image)
    return max(json.loads(table)["partitiontable"]["partitions"], key=lambda part: part["size"])["start"] * 512


HARMS = (
    ("an older first disk", "application", old_root, "different instants"),
    ("a point without its second disk", "crash", lost_disk, "is not in the point"),
    ("the point before, given out as this one", "application", stale_point, "lost"),
    ("a crash-consistent point called application-consistent", "crash", called_application, "replay"),
    ("a database with zeroed pages", "application", zeroed_blocks("root", "/srv/writer/rows.db", 3), "root: "),
    ("damage in the first disk's metadata", "application", inode_tables, "root: e2fsck"),
    ("damage in the second disk's metadata", "application", xfs_metadata, "data: "),
)
