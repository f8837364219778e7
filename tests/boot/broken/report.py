"""What was said of each broken guest and what was seen of it, beside the table. Pure."""

import dataclasses

from . import predict
from .boot import Seen
from .variants import Variant


@dataclasses.dataclass
class Result:
    variant: Variant
    predicted: dict | None = None       # as of predict.predict
    predict_seconds: float | None = None
    seen: Seen | None = None
    failed: str = ""                    # it could not be tried


def mismatches(result):
    """What differs from the table, in words. That the table agrees with itself is a test's affair."""
    found = []
    if result.predicted is not None:
        found += predict.disagreements(result.variant, result.predicted)
    if result.seen is not None:
        variant, seen = result.variant, result.seen
        if seen.kind != variant.seen:
            found.append(f"seen: {seen.kind}, not {variant.seen}")
        elif not seen.shows(variant.shows):
            found.append(f"seen: {seen.kind}, but its console has no {variant.shows!r}")
    return found


def line(result):
    """For a person who waits."""
    if result.failed:
        return f"FAILED {result.variant.name}: {result.failed}"
    wrong = mismatches(result)
    parts = []
    if result.predicted is not None:
        parts.append(f"predicted in {result.predict_seconds:.0f} s")
    if result.seen is not None:
        parts.append(f"{result.seen.kind} after {result.seen.seconds:.0f} s")
    text = f"{'WRONG ' if wrong else 'good  '} {result.variant.name}: {', '.join(parts)}"
    for each in wrong:
        text += f"\n       {each}"
    if any(each.startswith("seen") for each in wrong):
        text += "\n" + result.seen.tail()
    return text


def table(results):
    rows = [("variant", "preflight (qemu)", "seen", "s", "")]
    for result in results:
        said = result.predicted.get("qemu", ("", {}))[0] if result.predicted is not None else ""
        seen = result.seen.kind if result.seen else ""
        seconds = f"{result.seen.seconds:.0f}" if result.seen else ""
        rows.append((result.variant.name, said, seen, seconds, "failed" if result.failed else "; ".join(mismatches(result)) or "good"))
    good = sum(row[-1] == "good" for row in rows)
    return columns(rows) + f"\n{good} of {len(results)} as the table has it"


def listing(variants):
    rows = [("variant", "firmware", "bus", "made", "preflight (qemu)", "codes", "seen", "why")]
    for variant in variants:
        codes = " ".join(variant.qemu.codes)
        rows.append((variant.name, variant.firmware, variant.bus, variant.how, variant.qemu.verdict, codes, variant.seen, variant.why))
    return columns(rows)


def columns(rows):
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def document(result):
    variant, seen = result.variant, result.seen
    return {
        "variant": variant.name,
        "how": variant.how,
        "firmware": variant.firmware,
        "bus": variant.bus,
        "expected": {"verdict": variant.qemu.verdict, "codes": list(variant.qemu.codes), "seen": variant.seen},
        "predicted": None if result.predicted is None else {
            target: {"verdict": verdict, "codes": codes} for target, (verdict, codes) in result.predicted.items()
        },
        "seen": None if seen is None else {"kind": seen.kind, "seconds": round(seen.seconds, 1)},
        "failed": result.failed or None,
        "mismatches": mismatches(result),
    }
