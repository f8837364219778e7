"""What a series showed: a JSON document to keep, a table to read, and the issue's targets. Pure."""

import dataclasses

from . import timing

PAUSE_TARGET = FREEZE_TARGET = 0.100    # seconds, 95th percentile
FEW = 10                                # of fewer figures the 95th percentile is the longest one, and is only shown
READ_RATIO_TARGET = 1.2                 # bytes read by a delta over the distinct 4 KiB blocks written
READ_RATIO_LEAST = 0.9                  # what is read less was not written, or was read before the capture: in passes
HELD_SECONDS, HELD_SECONDS_PER_GIB = 1, 1   # the source checkpoint, over what changed
LATE = 0.5                              # of an interval, behind the time at which a point was due


def summarise(capturer, recipe, series, findings, rest, timed=True, notes=(), state=None):
    bad = [taken for taken in series if taken.judged.findings]
    summary = {
        "capturer": capturer.name,
        "guest": guest_of(recipe),
        "notes": list(notes),
        "points": len(series),
        "good": len(series) - len(bad),
        "findings": [*findings, *(f"point {taken.number}: {text}" for taken in bad for text in taken.judged.findings)],
        "seconds": {
            "pause": timing.distribution([sum(taken.pauses) for taken in series if taken.pauses]),
            "freeze window": timing.distribution([taken.capture.freeze_seconds for taken in series if taken.capture.freeze_seconds is not None]),
            "quiet, hook to hook": timing.distribution([sum(taken.quiet_windows) for taken in series if taken.quiet_windows]),
            "stall, crash": timing.distribution([taken.stall for taken in series if not taken.quiet_windows]),
            "stall, quiesced": timing.distribution([taken.stall for taken in series if taken.quiet_windows]),
            "gap between captures": rest["gaps_between_captures"],
            "checkpoint held": timing.distribution([taken.capture.facts["held_seconds"] for taken in series if taken.capture.facts.get("held_seconds") is not None]),
            "held, as it was seen": timing.distribution([taken.held_seen for taken in series if taken.held_seen is not None]),
            "capture": timing.distribution([taken.capture.ended - taken.capture.began for taken in series]),
            "behind its time": rest["late"],
            "second client's answer": rest["second_client"],
            "same monitor's answer": rest["client_of_the_same_monitor"],
        },
        "read_ratio": timing.distribution([read / written for read, written in read_and_written(series)]),
        "read_ratio_of_all": ratio_of_all(list(read_and_written(series))),
        "rest": rest,
        "state": state,
        "series": [one(taken) for taken in series],
    }
    summary["missed"] = missed(summary, timed) + (incomplete(summary) if capturer.enforced else [])
    return summary


def guest_of(recipe):
    return {"accel": recipe.accel, "firmware": recipe.firmware, "disk_format": recipe.disk_format, "data_fs": recipe.data_fs}


def read_and_written(series):
    """In bytes; only of deltas that say what they read, and of which is known what was written. After a sync that
    failed and was tried again, the delta is one since what that captured."""
    for taken in series:
        read = taken.capture.facts.get("read_bytes")
        if read is not None and taken.written_blocks and not was_retried(taken.capture.facts):
            yield read, taken.written_blocks * 4096


def was_retried(facts):
    return facts.get("tries", 1) > 1


def ratio_of_all(pairs):
    return sum(read for read, _ in pairs) / sum(written for _, written in pairs) if pairs else None


def one(taken):
    return {
        "number": taken.number,
        "asked": taken.capture.facts.get("asked", taken.capture.consistency),
        "consistency": taken.capture.consistency,
        "pause_seconds": taken.pauses,
        "freeze_seconds": taken.capture.freeze_seconds,
        "quiet_seconds": taken.quiet_windows,
        "stall_seconds": taken.stall,
        "capture_seconds": taken.capture.ended - taken.capture.began,
        "written_blocks": taken.written_blocks,
        "held_seen_seconds": taken.held_seen,
        "expected": dataclasses.asdict(taken.expected),
        "judged": dataclasses.asdict(taken.judged),
        "facts": taken.capture.facts,
    }


def missed(summary, timed=True):
    """The targets that were measured and not met. Untimed, without those of time, which a busy machine misses; and what
    was read is judged over all deltas together: after a few seconds of writes, a single chunk that is due to be stored
    whole (a chain ends with its 64th patch, or before its patches come to two chunks) shows as a tenth of what a delta
    reads."""
    found = late(summary) if timed else []
    ratio, what = summary["read_ratio"], "a delta" if timed else "the deltas"
    least, most = (ratio["min"], ratio["max"]) if timed else (summary["read_ratio_of_all"],) * 2
    if most is not None and most > READ_RATIO_TARGET:
        found.append(f"{what} read {most:.2f} times the blocks that were written, target {READ_RATIO_TARGET}")
    if least is not None and least < READ_RATIO_LEAST:
        found.append(f"{what} read {least:.2f} times the blocks that were written, less than {READ_RATIO_LEAST}: the rest was read another way, or is missing")
    for taken in summary["series"]:
        if taken["asked"] != taken["consistency"]:
            found.append(f"point {taken['number']} is {taken['consistency']}-consistent, {taken['asked']} was asked")
    for taken in summary["series"][1:]:
        passes, resyncs = taken["facts"].get("passes"), taken["facts"].get("resyncs")
        if passes or resyncs:
            found.append(f"point {taken['number']} is no delta: {passes} passes came before it, compared in full: {resyncs}")
    return found


def incomplete(summary):
    """What was not measured was not met."""
    series, seconds = summary["series"], summary["seconds"]
    quiesced = sum(taken["asked"] != "crash" for taken in series)
    retried = sum(was_retried(taken["facts"]) for taken in series[1:])
    found = [
        f"{name}: {count} of {wanted} figures were measured"
        for name, count, wanted in (
            ("pause", seconds["pause"]["count"], len(series)),
            ("freeze window", seconds["freeze window"]["count"], quiesced),
            ("checkpoint held", seconds["checkpoint held"]["count"], len(series) - 1),
            ("read / written", summary["read_ratio"]["count"], len(series) - 1 - retried),
            ("passes and resyncs", sum(None not in (taken["facts"].get("passes"), taken["facts"].get("resyncs")) for taken in series), len(series)),
        )
        if count < wanted
    ]
    for client in ("second_client", "client_of_the_same_monitor"):
        if not summary["rest"][client]["count"]:
            found.append(f"{client}: it was never answered")
    if not (summary["state"] or {}).get("bytes"):
        found.append("the state directory's size was not measured")
    if not seconds["held, as it was seen"]["max"]:
        found.append("the harness saw no filter over any disk: how long the checkpoints were held is only the gateway's word")
    return found


def late(summary):
    found = []
    for name, target in (("pause", PAUSE_TARGET), ("freeze window", FREEZE_TARGET)):
        count, p95 = (summary["seconds"][name][key] for key in ("count", "p95"))
        if count >= FEW and p95 > target:
            found.append(f"{name}: 95th percentile {p95 * 1000:.0f} ms, target {target * 1000:.0f} ms")
    latest, interval = summary["seconds"]["behind its time"]["max"], summary["rest"]["interval_asked"]
    if None not in (latest, interval) and latest > LATE * interval:
        found.append(f"a point was {latest:.1f} s late, one every {interval:.0f} s was asked")
    for taken in summary["series"]:
        # By the gateway's clock and by the harness's: the longer one counts.
        held = max(taken["facts"].get("held_seconds") or 0.0, taken["held_seen_seconds"] or 0.0)
        if taken["written_blocks"] is None:
            continue
        target = HELD_SECONDS + HELD_SECONDS_PER_GIB * taken["written_blocks"] * 4096 / 2**30
        if held > target:
            found.append(f"point {taken['number']}: the checkpoint was held for {held:.2f} s, target {target:.2f} s")
    return found


def table(summary):
    guest = summary["guest"]
    lines = [
        f"{summary['good']} of {summary['points']} points good · capturer {summary['capturer']} · "
        f"{guest['accel']} · {guest['firmware']} · {guest['disk_format']} · ext4 + {guest['data_fs']} · "
        f"{summary['rest']['rows']} rows in {summary['rest']['seconds']:.0f} s",
        f"{'milliseconds':<24}{'count':>7}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}",
    ]
    for name, spread in summary["seconds"].items():
        if spread["count"]:
            lines.append(f"{name:<24}{spread['count']:>7}" + "".join(f"{spread[key] * 1000:>9.1f}" for key in ("p50", "p95", "p99", "max")))
    written = timing.distribution([taken["written_blocks"] for taken in summary["series"] if taken["written_blocks"] is not None])
    if written["count"]:
        lines.append(f"{'written 4 KiB blocks':<24}{written['count']:>7}" + "".join(f"{written[key]:>9}" for key in ("p50", "p95", "p99", "max")))
    ratio = summary["read_ratio"]
    if ratio["count"]:
        lines.append(f"{'read / written':<24}{ratio['count']:>7}" + "".join(f"{ratio[key]:>9.2f}" for key in ("p50", "p95", "p99", "max")))
    if summary["state"]:
        size, disks = summary["state"]["bytes"], summary["state"]["data_bytes"]
        lines.append(f"state directory: {size / 1e6:.1f} MB, {size / disks * 2**40 / 1e9:.1f} GB per TiB of data")
    lines += [f"note: {text}" for text in summary["notes"]]
    lines += [f"finding: {text}" for text in summary["findings"]]
    lines += [f"missed: {text}" for text in summary["missed"]]
    return "\n".join(lines)
