"""The gateway is killed at random moments of its syncs while the guest writes; then every point that it
published is brought back and judged."""

import collections
import datetime
import json
import os
import pathlib
import re
import shutil
import sys
import time

from . import invariants, kill, phases, point, resyncs, series
from .capture import CONSISTENCIES
from .failed import Failed
from .guest import settle
from .sparesite import VM, qemu_source, vault_was_away

GRACE = 15.0                            # seconds until a guest must be well again after a kill
MOST_POSITIONS = 4                      # bitmaps on a disk: of the newest point, and of queued ones
CLOCK_SLACK = 0.05                      # between the harness hearing and the gateway reading the clock
LONGEST_INSTANT = 5.0                   # from the pause to the moment that a point says it is of
PUBLISHED_SHARE = 0.1                   # of the runs, at least
MEASURED = 0                            # the number of the runs before all kills, which are always a `sync`


class Live:
    """Kills of `sparesite-gateway sync` on the live source."""

    tracked = True                      # what it leaves in QEMU tells where it was, and a full comparison is a resync
    reports = True                      # its runs write a report of each VM
    undisturbed = None                  # another command, for the runs that nobody kills

    def __init__(self, guest, folder, consistency, capturer):
        self.guest = guest
        self.capturer = capturer
        self.capturer.begin(guest, folder)
        self.site = self.capturer.site
        self.consistency = consistency
        self.prepare()

    @property
    def asked(self):
        """Of the gateway."""
        return self.consistency

    def prepare(self):
        self.site.configure(qemu_source(self.guest), self.consistency, self.capturer.extra)

    def command(self, number):
        return self.site.gateway_command("sync", "--json", "--quiet")

    def expected(self, published):
        """By the instant that the point itself says: whatever was heard before the guest's last pause until then must
        be in it, and of the times that the writer rested, the last one is the point's."""
        at = captured_at(published)
        paused = last_stop(self.guest.monitor.events, at)
        offset = time.monotonic() - time.time()
        limit = (at - CLOCK_SLACK if paused is None else paused) + offset
        acks = self.guest.acks
        quiesced = acks.quiesced_rows(limit - GRACE, at + offset)[-1:]
        return point.Expected(acks.newest_row(limit), acks.newest_ops(limit), published["consistency"], quiesced)

    def look(self):
        held = invariants.holdings(self.guest.monitor)
        outbox = self.site.folder / "state" / "outbox"
        return phases.Look(
            frozenset(name for name in held.nodes if name.startswith("sparesite-")),
            frozenset(name for name in held.bitmaps if position("bitmap", name)),
            frozenset(path.name for path in outbox.iterdir()) if outbox.is_dir() else frozenset(),
        )

    def is_sending(self, pid):
        """Whether a process writes into a vault that is a folder."""
        return any(writes_below(fd, self.site.folder / "vault") for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir())


def writes_below(fd, folder):
    """Of an entry of /proc/PID/fd; its target may have no name yet, or none any more."""
    try:
        target = pathlib.Path(fd.readlink())
        info = (fd.parent.parent / "fdinfo" / fd.name).read_text()
    except OSError:
        return False
    flags = int(re.search(r"^flags:\s*(\d+)", info, re.MULTILINE)[1], 8)
    return target.is_relative_to(folder) and flags & os.O_ACCMODE != os.O_RDONLY


class Daemon(Live):
    """Kills of `sparesite-gateway run`, which captures and sends side by side; a short target keeps it at work. What was
    compared in full stands in its log."""

    reports = False

    def prepare(self):
        self.site.configure(qemu_source(self.guest), self.consistency, self.capturer.extra, rpo="2s")

    def command(self, number):
        return super().command(number) if number == MEASURED else self.site.gateway_command("run")

    def undisturbed(self, number):
        script = pathlib.Path(__file__).with_name("until_published.py")
        return [sys.executable, "-B", str(script), "2", self.site.gateway_command("run")[0], str(self.site.config)]


class Copies(Live):
    """Kills of a sync of copied disks: each run has a new copy, and a point has the newest before its sync."""

    tracked = False
    asked = "none"                      # of disks that are read as they lie

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


def last_stop(events, at):
    """When QEMU paused the guest for the instant `at`, on the machine's clock; None if it did not."""
    stops = [event.qemu_seconds for event in events if event.name == "STOP" and at - LONGEST_INSTANT <= event.qemu_seconds <= at]
    return max(stops, default=None)


def run_killing(guest, subject, folder, kills, seed, vault):
    baseline = invariants.holdings(guest.monitor)
    settle(guest, 20)
    logs = folder / "runs"
    logs.mkdir()
    span, capture_span = measure_spans(subject, guest, vault)
    measured = len(subject.site.points())
    series.note(f"a delta sync takes {span:.2f} s; its capture {capture_span:.2f} s; kills over 1.2 of either by turns, {kills} in all, seed {seed}")
    recovery = invariants.Recovery(guest, GRACE)
    plan = kill.Plan(
        subject.command,
        kills,
        span * 1.2,
        seed,
        after_kill=[recovery, invariants.writing(guest, GRACE), invariants.unharmed(guest)],
        after_sweep=[
            invariants.nothing_left(guest, baseline, position),
            few_positions(guest),
            invariants.drives_unchanged(guest),
        ],
        env={**subject.site.env, "RUST_LOG": "info"},
        excused=vault_was_away if vault.disturbed else lambda status, stderr: False,
        logs=logs,
        rescue=lambda: invariants.rescue(guest),
        undisturbed=subject.undisturbed,
    )
    if subject.tracked:
        plan.begun, plan.begun_span = (lambda before: phases.is_capturing(before, subject.look())), capture_span * 1.2
        plan.look, plan.glimpse, plan.phase = subject.look, vault.is_sending or subject.is_sending, phases.phase
    vault.disturb()
    runs = kill.run_kills(plan)
    vault.calm()
    plan.excused = lambda status, stderr: False
    runs.append(kill.undisturbed_run(plan, len(runs) + 1))
    summary = kill.summarise(plan, runs)
    summary["stood still or frozen after a kill"] = {"times": len(recovery.took), "longest_seconds": max(recovery.took, default=0.0)}
    if subject.tracked:
        summary["resyncs"] = resyncs.count((said(logs, run), is_over(run, said(logs, run))) for run in runs)
        summary["findings"] += resyncs.judge(summary["resyncs"]) + phases.judge(summary["phases"], kills)
        summary["findings"] += silent_of_resyncs(logs) if subject.reports else []
    judge_published(guest, subject, folder, summary, (measured, len(runs)))
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


def measure_spans(subject, guest, vault):
    """The first sync is whole; the second is a delta, as those that are killed. A vault in a folder takes it in no time,
    and no kill would hit the upload: it is slowed down until it takes as long as the rest. The capture's span, of the
    whole: from the freeze until QEMU is let go."""
    def sync():
        settle(guest, 10)
        command = subject.command(MEASURED)
        began = time.monotonic()
        report = json.loads(subject.site.run(command, (0, 3)))
        (vm,) = report["vms"]
        captured = sum(vm.get(name) or 0.0 for name in ("quiesced_seconds", "held_seconds"))
        return time.monotonic() - began, captured, report["bytes_sent"]

    sync()
    vault.after_first_sync()
    subject.prepare()
    span, captured, sent = sync()
    if subject.tracked and not vault.is_paced:
        vault.pace(phases.pace(sent, span))
        subject.prepare()
        span, captured, _ = sync()
    return span, captured


def said(logs, run):
    stdout, stderr = ((logs / f"{run.kind}-{run.number}.{end}").read_text(errors="replace") for end in ("out", "err"))
    return resyncs.of_run(stdout, stderr)


def is_over(run, disks):
    """Whether a resync that was at work is: a point was made, or one was on its way without passes."""
    return run.status in (0, 3) or (run.phase == phases.UPLOAD and not disks)


def silent_of_resyncs(logs):
    """A report without the fields would say nothing of any resync."""
    reports = [path.read_text() for path in sorted(logs.glob(f"{kill.UNDISTURBED}-*.out"))]
    vms = [vm for text in reports if text for vm in json.loads(text)["vms"]]
    silent = [vm for vm in vms if resyncs.of_report(vm) is None]
    return [f"{len(silent)} of {len(vms)} reports say nothing of passes and resyncs"] if silent or not vms else []


def judge_published(guest, subject, folder, summary, before_and_runs):
    """Every point that was published, brought back; and the vault as a whole."""
    published = subject.site.points()
    findings = judge_count(len(published), *before_and_runs)
    for found in published:
        place = folder / f"published-{found['sequence']}"
        place.mkdir()
        texts = judge_consistency(found["consistency"], subject.asked)
        try:
            images = subject.site.assemble(found["sequence"], place)
            texts += point.judge_point(images, subject.expected(found), folder).findings
        except Failed as error:
            texts.append(f"does not come back: {error}")
        findings += [f"{VM}@{found['sequence']}: {text}" for text in texts]
        shutil.rmtree(place)
    try:
        subject.capturer.end()
    except Failed as error:
        findings.append(f"the vault is not whole: {error}")
    series.note(f"{len(published)} points were published; {len(findings)} findings in them")
    summary["points"] = len(published)
    summary["findings"] += findings + series.guest_findings(guest)


def judge_count(published, before, runs):
    """`before` were published before the first kill."""
    least = runs * PUBLISHED_SHARE
    made = published - before
    return [f"{made} points of {runs} runs were published, {least:g} at least are to"] if made < least else []


def judge_consistency(has, asked):
    ranks = ("none", *CONSISTENCIES)
    return [f"it is {has}-consistent, {asked} was asked"] if ranks.index(has) < ranks.index(asked) else []
