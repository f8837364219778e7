"""Judges what was found on a point's disks against what the writer had acknowledged. Pure: a finding is a
sentence, and no findings means good."""

import pathlib
import re
import sqlite3
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "guest"))
import ledger  # noqa: E402  the guest's own file, which lies beside the harness

GUEST_ALARMS = re.compile(
    r"I/O error|Buffer I/O|EXT4-fs (error|warning)|Remounting filesystem read-only|XFS \([^)]*\): .*(error|Corruption|shutdown)"
    r"|blocked for more than|\bOops\b|Kernel panic|soft lockup",
    re.IGNORECASE,
)


def judge_rows(rows, acknowledged):
    """`rows` are (n, at, body, sum) in order of n; every row up to `acknowledged` must be there."""
    findings, previous, expected = [], "", 1
    for n, at, body, check in rows:
        if n != expected:
            findings.append(f"row {expected} is missing: {n} comes next")
            break
        if check != ledger.row_sum(previous, n, at, body):
            findings.append(f"row {n} does not match its checksum")
            break
        previous, expected = check, n + 1
    newest = expected - 1
    if not findings and newest < acknowledged:
        findings.append(f"rows {newest + 1} to {acknowledged} were acknowledged before the capture and are lost")
    return newest, findings


def judge_database(path, acknowledged):
    """Opens a database file (its WAL beside it, if it has one), asks SQLite, then every row."""
    try:
        database = sqlite3.connect(path)
        try:
            verdict = database.execute("PRAGMA integrity_check").fetchone()[0]
            rows = database.execute("SELECT n, at, body, sum FROM rows ORDER BY n")
            newest, findings = judge_rows(rows, acknowledged)
        finally:
            database.close()
    except (sqlite3.Error, TypeError) as error:
        return 0, [f"the database does not open: {error}"]
    if verdict != "ok":
        findings.insert(0, f"the database's integrity check says: {verdict}")
    return newest, findings


def judge_order(order, newest_row):
    """All disks show one instant: after ≤ newest row ≤ before, and before is at most one ahead of after."""
    try:
        before = ledger.parse_order(order[: ledger.ORDER_SLOT]) or 0
        after = ledger.parse_order(order[ledger.ORDER_SLOT : 2 * ledger.ORDER_SLOT]) or 0
    except ValueError as error:
        return [str(error)]
    findings = []
    if newest_row > before:
        findings.append(f"the disks show different instants: row {newest_row} is on the first, the second knows only {before}")
    if after > newest_row:
        findings.append(f"the disks show different instants: the second saw row {after} committed, the first has only {newest_row}")
    if not findings and before - after > 1:
        findings.append(f"the second disk is torn: before is {before}, after is {after}")
    return findings


def judge_file(name, content, allowed):
    """`allowed` are the (seed, size) that a file may have; between two of one seed, any length is right."""
    for seed in {seed for seed, _ in allowed}:
        sizes = [size for other, size in allowed if other == seed]
        if min(sizes) <= len(content) <= max(sizes) and content == ledger.stream(seed, len(content)):
            return []
    return [f"file {name} of {len(content)} bytes is none of {sorted(allowed)}"]


def judge_tree(manifest, contents, acknowledged):
    """`contents` are name → bytes. At most one operation may be half done: the manifest names it."""
    try:
        entries = ledger.parse_manifest(manifest)
        files, flying, last = ledger.fold(entries)
        after = ledger.apply(files, flying) if flying else files
    except (ValueError, KeyError) as error:
        return 0, [f"the manifest cannot be replayed: {error}"]
    findings = []
    if last < acknowledged:
        findings.append(f"operations {last + 1} to {acknowledged} were acknowledged before the capture and are lost")
    for name in sorted(files.keys() | after.keys()):
        allowed = {state[name] for state in (files, after) if name in state}
        if name in contents:
            findings += judge_file(name, contents[name], allowed)
        elif name in files and name in after:
            findings.append(f"file {name} is missing")
    if flying and flying["do"] == "rename":
        there = [name for name in (flying["name"], flying["to"]) if name in contents]
        if len(there) != 1:
            findings.append(f"a rename from {flying['name']} to {flying['to']} left {there}")
    temporary = {f".new-{flying['op']}"} if flying and flying["do"] == "put" else set()
    for name in sorted(contents.keys() - files.keys() - after.keys() - temporary):
        findings.append(f"file {name} is in no manifest entry")
    return last, findings


def judge_serial(console):
    """What the guest's kernel complained of; a capture must not be noticed."""
    return [line.strip()[:200] for line in console.splitlines() if GUEST_ALARMS.search(line)]
