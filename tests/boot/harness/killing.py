"""The gateway is killed at random moments of its syncs while the guest writes; then every point that it
published is brought back and judged."""

import collections
import datetime
import json
import shutil
import time

from . import invariants, kill, point, series
from .failed import Failed
from .guest import settle
from .sparesite import VM, qemu_source

GRACE = 15.0                            # seconds until a guest must be well again after a kill
RESYNC_SHARE = 0.5                      # a run that reads more of the disks than this was no delta
MOST_POSITIONS = 4                      # bitmaps on a disk: of the newest point, and of queued ones
CLOCK_SLACK = 0.05                      # between the harness hearing and the gateway reading the clock


class Live:
    """Kills of `sparesite-gateway sync` on the live source."""

    tracked = True                      # so that a run that reads everything is a resync

    def __init__(self, guest, folder, consistency, capturer):
        self.guest = guest
        self.capturer = capturer
        self.capturer.begin(guest, folder)
        self.site = self.capturer.site
        self.consistency = consistency
        self.prepare()

    def prepare(self):
        self.site.configure(qemu_source(self.guest), self.consistency, self.capturer.extra)

    def command(self, number):
        return self.site.gateway_command("sync", "--json", "--quiet")

    def expected(self, published):
        """By the instant that the point itself says: whatever was heard before it must be in it."""
        moment = captured_at(published) - time.time() + time.monotonic()
        acks = self.guest.acks
        limit = moment - CLOCK_SLACK
        quiesced = acks.quiesced_rows(moment - GRACE, moment + GRACE)
        return point.Expected(acks.newest_row(limit), acks.newest_ops(limit), published["consistency"], quiesced)


class Copies(Live):
    """Kills of a sync of copied disks: each run has a new copy, and a point has the newest before its sync."""

    tracked = False

    def __init__(self, guest, folder, consistency, capturer):
        self.taken = []
        super().__init__(guest, folder, consistency, capturer)

    def prepare(self):
        pass

    def command(self, number):
        copied = self.capturer.copy_disks(self.consistency)
        self.taken.append((time.time(), series.expected_of(self.guest, copied)))
        return super().command(number)

    def expected(self, published):
        return [expected for when, expected in self.taken if when <= captured_at(published)][-1]


def captured_at(published):
    """Seconds since the epoch; the digits after the microseconds are more than Python reads."""
    text = published["captured_at"].rstrip("Z")[:26]
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()


def run_killing(guest, subject, folder, kills, seed, vault):
    baseline = invariants.holdings(guest.monitor)
    settle(guest, 20)
    logs = folder / "runs"
    logs.mkdir()
    span = measure_span(subject, guest, vault)
    series.note(f"a delta sync takes {span:.2f} s; {kills} kills over 1.2 of it, seed {seed}")
    plan = kill.Plan(
        subject.command,
        kills,
        span * 1.2,
        seed,
        after_kill=[
            invariants.eventually(GRACE, invariants.running(guest)),
            invariants.eventually(GRACE, invariants.thawed(guest)),
            invariants.writing(guest, GRACE),
            invariants.unharmed(guest),
        ],
        after_sweep=[
            invariants.nothing_left(guest, baseline, position),
            few_positions(guest),
            invariants.drives_unchanged(guest),
        ],
        env=subject.site.env,
        good=(0, 1, 3) if vault.disturbed else (0, 3),
        logs=logs,
        rescue=lambda: invariants.rescue(guest),
    )
    runs = kill.run_kills(plan)
    vault.calm()
    plan.good = (0, 3)
    runs.append(kill.undisturbed_run(plan, kills + 1))
    summary = kill.summarise(plan, runs)
    summary["resyncs"] = resyncs(logs, sum(guest.disk(name).stat().st_blocks * 512 for name in guest.DISKS))
    if subject.tracked and summary["resyncs"] > 1:
        summary["findings"].append(f"{summary['resyncs']} undisturbed runs were resyncs, at most one may be")
    summary["points"], findings = judge_published(guest, subject, folder)
    summary["findings"] += findings + series.guest_findings(guest)
    return summary


def position(kind, name):
    """What may stay in QEMU between syncs: bitmaps that the next one may continue from."""
    return kind == "bitmap" and "/sparesite-" in name


def few_positions(guest):
    """Each costs QEMU memory and every write a little time; what is of no more use must go."""
    def check():
        nodes = [name.partition("/")[0] for name in invariants.holdings(guest.monitor).bitmaps if position("bitmap", name)]
        return [f"{count} bitmaps on node {node}" for node, count in collections.Counter(nodes).items() if count > MOST_POSITIONS]

    return check


def measure_span(subject, guest, vault):
    """The first sync is whole; the second is a delta, as those that are killed."""
    for _ in range(2):
        settle(guest, 10)
        command = subject.command(0)
        began = time.monotonic()
        subject.site.run(command, (0, 3))
    span = time.monotonic() - began
    vault.after_first_sync()
    return span


def resyncs(logs, disk_bytes):
    """Among the runs that ended by themselves, after the first of all."""
    count = 0
    for log in logs.glob("*.out"):
        try:
            (vm,) = json.loads(log.read_text() or "{}").get("vms", [{}])
        except ValueError:
            continue                    # killed while it wrote
        count += (vm.get("read_bytes") or 0) > RESYNC_SHARE * disk_bytes
    return count


def judge_published(guest, subject, folder):
    published = subject.site.points()
    findings = []
    for found in published:
        place = folder / f"published-{found['sequence']}"
        place.mkdir()
        try:
            images = subject.site.assemble(found["sequence"], place)
            texts = point.judge_point(images, subject.expected(found), folder).findings
        except Failed as error:
            texts = [f"does not come back: {error}"]
        findings += [f"{VM}@{found['sequence']}: {text}" for text in texts]
        shutil.rmtree(place)
    series.note(f"{len(published)} points were published; {len(findings)} findings in them")
    return len(published), findings
