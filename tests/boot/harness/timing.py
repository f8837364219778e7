"""Distributions: percentiles, and the gaps that a guest's user would notice. Pure."""

import math


def percentile(values, share):
    """Nearest rank: a value that was measured, never one between two. None if there is none."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def distribution(values):
    return {
        "count": len(values),
        "min": min(values, default=None),
        "p50": percentile(values, 0.50),
        "p95": percentile(values, 0.95),
        "p99": percentile(values, 0.99),
        "max": max(values, default=None),
    }


def gaps(times):
    return [later - earlier for earlier, later in zip(times, times[1:])]


def largest_gap(times, since, until):
    """The longest time without an acknowledgement that overlaps a span. A writer that never came back
    counts up to the end of the span."""
    known = [t for t in times if t <= since][-1:] + [t for t in times if since < t]
    if not known:
        return until - since
    worst = 0.0
    for earlier, later in zip(known, [*known[1:], until]):
        if earlier <= until and later > earlier:
            worst = max(worst, later - earlier)
    return worst


def gaps_outside(times, spans):
    """Gaps that no span touches: how the writer does when nobody captures."""
    return [
        later - earlier
        for earlier, later in zip(times, times[1:])
        if not any(earlier <= end and later >= begin for begin, end in spans)
    ]
