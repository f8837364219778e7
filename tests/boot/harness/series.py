"""A series of captures at an interval while the guest writes; each point restored and judged."""

import dataclasses
import shutil
import sys
import time

from . import judge, point, qmp, timing, writes
from .capture import Capture
from .failed import Failed
from .guest import settle
from .poller import ANSWER_WITHIN, HoldWatch, Poller, anew, through
from .qmp import ANSWER_SECONDS
from .vaults import Vault

LINGER = 1.0                            # seconds after a capture that its stall may still show in
CRASH, APPLICATION = "crash", "application"
BULK_SECONDS = 300                      # for some hundred MiB of changes, emulated


@dataclasses.dataclass
class Taken:
    """One capture with what the guest knew of it, and later its judgement."""

    number: int
    capture: Capture
    expected: point.Expected
    pauses: list[float]
    quiet_windows: list[float]
    stall: float
    judged: point.Judged | None = None
    frozen_at: float | None = None      # the instant of its state, on QEMU's clock
    written_blocks: int | None = None   # distinct 4 KiB blocks written since the point before
    held_seen: float | None = None      # seconds for which the harness saw a filter of the gateway's


def note(text):
    print(text, file=sys.stderr, flush=True)


def stops(guest, capture):
    return [event for event in guest.monitor.events if event.name == "STOP" and capture.began <= event.received <= capture.ended]


def expected_of(guest, capture):
    """Whatever was heard before the capture began must be in the point; what was heard before QEMU paused
    too, since a paused guest says nothing."""
    limit = min((event.received for event in stops(guest, capture)), default=capture.began)
    quiesced = guest.acks.quiesced_rows(capture.began, capture.ended)
    return point.Expected(guest.acks.newest_row(limit), guest.acks.newest_ops(limit), capture.consistency, quiesced)


def take(guest, capturer, number, consistency):
    capture = capturer.capture(consistency)
    time.sleep(LINGER)
    span = (capture.began, capture.ended + LINGER)
    return Taken(
        number,
        capture,
        expected_of(guest, capture),
        qmp.pauses(guest.monitor.events, capture.began, capture.ended),
        guest.acks.quiet_windows(capture.began, capture.ended),
        timing.largest_gap(guest.acks.row_times(), *span),
        frozen_at=max((event.qemu_seconds for event in stops(guest, capture)), default=None),
    )


def judge_taken(capturer, taken, folder):
    """Restores a point and judges it."""
    place = folder / f"point-{taken.number}"
    place.mkdir()
    try:
        images = capturer.restore(taken.capture, place)
        taken.judged = point.judge_point(images, taken.expected, folder)
    except Failed as error:
        taken.judged = point.Judged([f"the point does not come back: {error}"])
    finally:
        shutil.rmtree(place)


def count_writes(guest, series):
    """What was written between each two points, as far as both instants are known."""
    trace = guest.trace.read_text(errors="replace").splitlines()
    for before, taken in zip(series, series[1:]):
        if before.frozen_at is not None and taken.frozen_at is not None:
            taken.written_blocks = writes.written_blocks(trace, before.frozen_at, taken.frozen_at)


def consistency_of(number, wanted):
    return (CRASH, APPLICATION)[number % 2] if wanted == "mixed" else wanted


def change(guest, mib):
    """So much is written to the second disk before it returns."""
    def written():
        stats = guest.monitor.execute("query-blockstats")
        return next(disk["stats"]["wr_bytes"] for disk in stats if disk.get("qdev", "").startswith("/machine/peripheral/disk-data"))

    goal, until = written() + (mib << 20), time.monotonic() + BULK_SECONDS
    guest.acks.tell("load bulk=100")
    while written() < goal:
        if time.monotonic() > until:
            raise Failed(f"the guest did not write {mib} MiB within {BULK_SECONDS} s")
        time.sleep(0.2)
    since = len(guest.acks.said)
    guest.acks.tell("load bulk=0")
    guest.acks.wait("load", 20, since)
    settle(guest, 10)


def run_series(guest, capturer, folder, points, interval, wanted, vault=None, bulk_mib=0, timed=True):
    """Returns what was taken, and what is wrong beyond the points themselves. With `bulk_mib`, a last point comes after
    so much change."""
    series, findings = [], []
    vault = vault or Vault()

    def look(taken):
        judge_taken(capturer, taken, folder)
        note(f"point {taken.number}: {'good' if not taken.judged.findings else taken.judged.findings}")

    def one_more():
        if not guest.alive():
            raise Failed(f"the guest died\n{guest.log_tail()}")
        series.append(take(guest, capturer, len(series) + 1, consistency_of(len(series), wanted)))
        series[-1].held_seen = watch.held(series[-1].capture.began, series[-1].capture.ended)
        if not capturer.keeps:
            look(series[-1])

    capturer.begin(guest, folder)
    settle(guest, 20)
    began = time.monotonic()
    within = ANSWER_WITHIN if timed else ANSWER_SECONDS
    pollers = (
        Poller(through(guest.monitor), "the second monitor's client", within),
        Poller(anew(guest.qmp_path), "the other client of the gateway's monitor", within),
    )
    with pollers[0], pollers[1], HoldWatch(guest.monitor) as watch:
        for number in range(points):
            time.sleep(max(0.0, began + number * interval - time.monotonic()))
            one_more()
            if number == 0:
                vault.after_first_sync()
                vault.disturb()
        if bulk_mib:
            change(guest, bulk_mib)
            one_more()
        vault.calm()
    ended = time.monotonic()
    if capturer.keeps:
        for taken in series:
            look(taken)
    count_writes(guest, series)
    capturer.end()
    findings += [problem for poller in pollers for problem in poller.problems]
    findings += guest_findings(guest)
    return series, findings, measure_rest(guest, series, (points, interval, not (vault.is_paced or vault.disturbs)), (began, ended), pollers)


def guest_findings(guest):
    """What the guest itself suffered."""
    findings = [f"the writer met an error: {text}" for text in guest.acks.errors()]
    findings += [f"the guest's kernel complained: {line}" for line in judge.judge_serial(guest.serial())]
    try:
        settle(guest, 3, seconds=30)
    except Failed as error:
        findings.append(f"after the captures: {error}")
    if guest.monitor.execute("query-status")["status"] != "running":
        findings.append("the VM is not running after the captures")
    if guest.agent.frozen():
        findings.append("the guest's file systems are still frozen after the captures")
    return findings


def measure_rest(guest, series, asked, span, pollers):
    (points, interval, judged), (began, ended) = asked, span
    spans = [(taken.capture.began - 0.1, taken.capture.ended + LINGER) for taken in series]
    times = [at for at in guest.acks.row_times() if began <= at <= ended]
    return {
        "seconds": ended - began,
        "rows": len(times),
        "gaps_between_captures": timing.distribution(timing.gaps_outside(times, spans)),
        # None where the vault comes and goes, or is slow: a sync is over when its point is sent.
        "interval_asked": interval if judged else None,
        # Not the one after much change, which waits for that.
        "late": timing.distribution([taken.capture.began - began - number * interval for number, taken in enumerate(series[:points])]),
        "second_client": timing.distribution(pollers[0].answers),
        "client_of_the_same_monitor": timing.distribution(pollers[1].answers),
    }
