"""The run as Markdown: what was measured, then the targets."""

from .measure import median
from .targets import PEERS, OURS


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def cell(runs, what, form, scale=1):
    return form.format(median(runs, what) / scale) if runs else "–"


def program_row(results, name, phases):
    label = f"{name} {results['versions'].get(name, '')}".strip()
    if name not in results["versions"]:
        return [label, "not in this run", *["–"] * (1 + 2 * len(results["delta"]) + 2)]
    initial = results["initial"].get(name, [])
    cells = [label, f"{cell(initial, 'wall', '{:.1f}')} ({cell(initial, 'cpu', '{:.0f}')})"]
    cells.append(cell(initial, "added", "{:,.0f}", 1e6))
    everything = list(initial)
    for rows in results["delta"].values():
        runs = [row["programs"][name] for row in rows if name in row["programs"]]
        cells += [cell(runs, "added", "{:,.1f}", 1e6), cell(runs, "wall", "{:.1f}")]
        everything += runs
    assembled = results["assemble"].get(name, [])
    cells.append(cell(assembled, "wall", "{:.1f}"))
    everything += assembled
    cells.append(f"{max(run['rss_mib'] for run in everything):.0f}" if everything else "–")
    return cells


def bound_row(results):
    cells = ["**bound**, `cat`", "", ""]
    for rows in results["delta"].values():
        runs = [{"bound": row["changed"]["bound_bytes"], **row["read"]} for row in rows]
        cells += [cell(runs, "bound", "{:,.1f}", 1e6), cell(runs, "wall", "{:.2f}")]
    convert = results["assemble"].get("qemu-img convert", [])
    return [*cells, f"{cell(convert, 'wall', '{:.1f}')} (`qemu-img convert`)", ""]


def markdown(results, rows, phases):
    disk = results["disk"]
    lines = [
        f"# Bench, {results['when']}",
        "",
        f"Disk of seed {disk['seed']}: {disk['disk_bytes'] / 2**30:g} GiB with"
        f" {disk['data_bytes'] / 1e9:.2f} GB of data, {disk['real_bytes'] / 1e9:.2f} GB of it"
        f" real files. {results['machine']}. Local repositories, encrypted, page cache warm;"
        f" medians of {results['runs']} (ours) and {results['peer_runs']} (peers).",
        "",
    ]
    if {"initial", "delta", "assemble"} & set(phases):
        head = ["", "initial, s (CPU s)", "stored, MB"]
        for pattern in results["delta"]:
            head += [f"{pattern} added, MB", f"{pattern} sync, s"]
        head += ["assemble, s", "peak RSS, MiB"]
        names = [OURS, *PEERS]
        body = [program_row(results, name, phases) for name in names] + [bound_row(results)]
        lines += [*table(head, body), ""]
    if results["limits"]:
        limits = [
            [name, f"{median(runs, 'wall'):.2f}", f"{median(runs, 'bytes_out') / 1e6:,.0f}"]
            for name, runs in results["limits"].items()
        ]
        lines += ["The same work in a minimal loop, two threads:", ""]
        lines += [*table(["", "s", "MB out"], limits), ""]
    judged = [[r.target, r.required, r.measured, r.verdict(), r.detail] for r in rows]
    lines += table(["target", "required", "measured", "", ""], judged)
    if results["failures"]:
        lines += ["", "Failed:", "", *[f"- {failure}" for failure in results["failures"]]]
    return "\n".join(lines) + "\n"
