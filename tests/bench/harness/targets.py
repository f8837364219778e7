"""The targets, judged: plain functions from a run's numbers to rows."""

import dataclasses

from .measure import median

OURS = "sparesite"
PEERS = ("restic", "rustic", "borg")

INITIAL_TIMES_AS_FAST = 3.0
DELTA_OF_BOUND = 1.15
CYCLES_OF_BOUND = 1.5
SYNC_OF_READING = 1.5
ASSEMBLE_TIMES_AS_FAST = 2.0
ASSEMBLE_OF_QEMU_IMG = 1.5
MEMORY_MIB = 300
SYNTHETIC_MEMORY_MIB = 600
BOOT_OF_LOCAL = 1.5
LATE_BOOT_OF_LOCAL = 3.0
FETCHED_OF_READ = 1.0
FETCHED_OF_STORED = 0.25
NBD_OF_ASSEMBLE = 0.7
RANDOM_READS_PER_SECOND = 20_000
STREAM_OF_MINIMAL = 0.8

UNMEASURED = "not measured"


@dataclasses.dataclass
class Row:
    target: str
    required: str
    measured: str = UNMEASURED
    met: bool | None = None  # None: not measured
    detail: str = ""

    def verdict(self):
        return {True: "ok", False: "MISSED", None: UNMEASURED}[self.met]


def at_most(target, limit, value, detail="", unit="×"):
    row = Row(target, f"≤ {limit:g} {unit}", detail=detail)
    if value is not None:
        row.measured, row.met = f"{value:.2f} {unit}", value <= limit
    return row


def at_least(target, limit, value, detail=""):
    row = Row(target, f"≥ {limit:g} ×", detail=detail)
    if value is not None:
        row.measured, row.met = f"{value:.2f} ×", value >= limit
    return row


def fastest_peer(phase):
    """(name, median wall seconds) of the fastest peer that finished."""
    walls = {name: median(phase[name], "wall") for name in PEERS if phase.get(name)}
    return min(walls.items(), key=lambda item: item[1]) if walls else None


def against_fastest(target, limit, phase, limits):
    ours, fastest = phase.get(OURS), fastest_peer(phase)
    if not ours or not fastest:
        missing = OURS if not ours else "every peer"
        return at_least(target, limit, None, f"{missing} is missing")
    wall = median(ours, "wall")
    detail = f"{fastest[0]} {fastest[1]:.1f} s, ours {wall:.1f} s"
    for name, runs in limits:
        if runs:
            best = median(runs, "wall")
            detail += f"; minimal loop ({name}) {best:.1f} s, ours {wall / best:.2f} × that"
    return at_least(target, limit, fastest[1] / wall, detail)


def initial_rows(results):
    limits = results["limits"]
    names = ("store", "store, each pack fsynced")
    loops = [(name, limits.get(name)) for name in names]
    phase = results["initial"]
    return [against_fastest("initial sync, of the fastest peer", INITIAL_TIMES_AS_FAST, phase, loops)]


def delta_rows(results):
    rows = []
    for pattern, measured in results["delta"].items():
        with_ours = [m for m in measured if OURS in m["programs"]]
        added, timing, detail, timing_detail = None, None, "", ""
        if with_ours:
            added = max(
                m["programs"][OURS]["added"] / m["changed"]["bound_bytes"] for m in with_ours
            )
            wall = median([m["programs"][OURS] for m in with_ours], "wall")
            read = median([m["read"] for m in with_ours], "wall")
            timing, timing_detail = wall / read, f"reading {read:.2f} s, sync {wall:.2f} s"
        others = [m for m in measured if m["changed"]["bound_bytes"]][:1]
        for row in others:
            bound = row["changed"]["bound_bytes"]
            detail = f"bound {bound / 1e6:,.1f} MB" + "".join(
                f"; {name} {run['added'] / bound:.1f} ×"
                for name, run in row["programs"].items()
                if name != OURS
            )
        rows.append(at_most(f"{pattern}: bytes added, of the bound", DELTA_OF_BOUND, added, detail))
        target = f"{pattern}: sync without change tracking, of reading the file"
        rows.append(at_most(target, SYNC_OF_READING, timing, timing_detail))
    return rows


def cycle_rows(results):
    rows = []
    for pattern in ("cycle-uniform", "cycle-zipf"):
        cycles = [c for c in results["cycles"].get(pattern, []) if not c["anchor"]]
        bound = sum(c["changed"]["bound_bytes"] for c in cycles)
        value, detail = None, ""
        if bound:
            added = sum(c["added"] for c in cycles)
            anchors = len(results["cycles"][pattern]) - len(cycles)
            value = added / bound
            detail = f"{len(cycles)} cycles and {anchors} with anchors; {added / 1e6:,.1f} MB"
            detail += f" added, bound {bound / 1e6:,.1f} MB"
            last = results["assemble after cycles"].get(pattern)
            detail += f"; assembled in {last['wall']:.1f} s" if last else "; NOT assembled"
        target = f"{pattern}: bytes added, of the sum of the bounds"
        rows.append(at_most(target, CYCLES_OF_BOUND, value, detail))
    return rows


def assemble_rows(results):
    phase = results["assemble"]
    loops = [(name, results["limits"].get(name)) for name in ("load", "copy")]
    target = "assemble, of the fastest peer"
    rows = [against_fastest(target, ASSEMBLE_TIMES_AS_FAST, phase, loops)]
    ours, convert = phase.get(OURS), phase.get("qemu-img convert")
    value, detail = None, ""
    if convert:
        detail = f"qemu-img {median(convert, 'wall'):.1f} s"
    if ours and convert:
        value = median(ours, "wall") / median(convert, "wall")
    target = "assemble, of `qemu-img convert`"
    return [*rows, at_most(target, ASSEMBLE_OF_QEMU_IMG, value, detail)]


def memory_rows(results):
    gateway = [run["rss_mib"] for run in results["initial"].get(OURS, [])]
    gateway += [
        row["programs"][OURS]["rss_mib"]
        for rows in results["delta"].values()
        for row in rows
        if OURS in row["programs"]
    ]
    for cycles in results["cycles"].values():
        gateway += [cycle["rss_mib"] for cycle in cycles]
    restore = [run["rss_mib"] for run in results["assemble"].get(OURS, [])]
    synthetic = results["synthetic"]
    limits = (
        ("memory: sparesite-gateway", MEMORY_MIB, max(gateway, default=None)),
        ("memory: sparesite-restore", MEMORY_MIB, max(restore, default=None)),
    )
    rows = [at_most(name, limit, value, unit="MiB") for name, limit, value in limits]
    kinds = (
        (("sync", "first sync"), "sync"),
        (("rebuild",), "rebuilding the state"),
        (("open",), "opening a recovery point"),
    )
    for names, what in kinds:
        runs = [synthetic[name] for name in names if name in synthetic]
        value = max((run["rss_mib"] for run in runs), default=None)
        target = f"memory: {what}, 4 TiB with 16 million chunks"
        detail = f"{max(run['wall'] for run in runs):.1f} s" if runs else ""
        rows.append(at_most(target, SYNTHETIC_MEMORY_MIB, value, detail, unit="MiB"))
    return rows


def request_rows(results):
    rows = []
    for what in ("requests", "bytes"):
        row = Row(f"{what} reported, of what the store saw", "equal")
        stores = results["requests"]
        if stores:
            pairs = {n: (s[f"reported_{what}"], s[f"seen_{what}"]) for n, s in stores.items()}
            row.met = all(reported == seen for reported, seen in pairs.values())
            row.measured = "; ".join(f"{n} {r:,} of {s:,}" for n, (r, s) in pairs.items())
        rows.append(row)
    return rows


def serving_rows(results):
    return [*boot_rows(results["serving"]), *read_rows(results["serving"])]


def boot_rows(figures):
    rows = []
    boots = figures.get("boots", [])
    local = median([row["local"] for row in boots], "seconds") if boots else None
    for name, limit, what in (
        ("vault", BOOT_OF_LOCAL, "boot to login from S3, of a local raw file"),
        ("late", LATE_BOOT_OF_LOCAL, "the same with 50 ms more for each request"),
    ):
        value, detail = None, ""
        if boots:
            seconds = median([row[name] for row in boots], "seconds")
            value, detail = seconds / local, f"{seconds:.1f} s, local {local:.1f} s"
        rows.append(at_most(what, limit, value, detail))
    large = figures.get("large")
    for whole, limit, what in (
        ("read_bytes", FETCHED_OF_READ, "guest with 2 GiB of data: fetched until login, of what it read"),
        ("stored_bytes", FETCHED_OF_STORED, "fetched until login, of what is stored of it"),
    ):
        value, detail = None, ""
        if large:
            value = large["fetched_bytes"] / large[whole]
            detail = f"{large['fetched_bytes'] / 1e6:,.0f} of {large[whole] / 1e6:,.0f} MB"
        rows.append(at_most(what, limit, value, detail))
    return rows


def read_rows(figures):
    sequential = figures.get("sequential")
    value, detail = None, ""
    if sequential:
        nbd, assemble = (median([row[name] for row in sequential], "wall") for name in ("nbd", "assemble"))
        value, detail = assemble / nbd, f"nbdcopy {nbd:.1f} s, assemble {assemble:.1f} s"
    rows = [at_least("sequential read through NBD, of assemble's rate", NBD_OF_ASSEMBLE, value, detail)]
    row = Row("4 KiB random reads, warm, depth 16, one connection", f"≥ {RANDOM_READS_PER_SECOND:,} a second")
    random = figures.get("random")
    if random:
        row.met = random["per_second"] >= RANDOM_READS_PER_SECOND
        row.measured = f"{random['per_second']:,.0f} a second"
        row.detail = f"99th percentile {random['p99_milliseconds']:.2f} ms"
    return [*rows, row]


def block_rows(results):
    rows = results["blocks"].get("rows", [])
    value, detail = None, ""
    if rows:
        minimal, stream = (median(rows, name) for name in ("minimal", "stream"))
        value, detail = minimal / stream, f"minimal client {minimal:.1f} s, stream {stream:.1f} s"
    return [at_least("blocks into a snapshot, of what a minimal client sends", STREAM_OF_MINIMAL, value, detail)]


JUDGES = {
    "initial": initial_rows,
    "delta": delta_rows,
    "cycles": cycle_rows,
    "assemble": assemble_rows,
    "memory": memory_rows,
    "requests": request_rows,
    "serving": serving_rows,
    "blocks": block_rows,
}


def judge(results, phases):
    return [row for phase in phases for row in JUDGES[phase](results)]
