"""Judges one recovery point: raw images of all its disks, against what was acknowledged before it."""

import dataclasses
import pathlib
import shutil
import tempfile

from . import disks, judge
from .failed import Failed

FOLDERS = {"root": "/srv/writer", "data": "/writer"}
AT_REST = ("file-system", "application")


@dataclasses.dataclass
class Expected:
    row: int                            # the newest acknowledged before the capture began
    ops: dict[str, int]                 # disk → the newest operation acknowledged
    consistency: str                    # crash, file-system or application
    quiesced_at: tuple[int, ...] = ()   # the newest row each time the writer rested during the capture


@dataclasses.dataclass
class Judged:
    findings: list[str]
    newest_row: int = 0
    ops: dict[str, int] = dataclasses.field(default_factory=dict)
    replayed: dict[str, bool] = dataclasses.field(default_factory=dict)   # what had to be replayed


def judge_point(images, expected, scratch):
    """`images` are disk name → raw image, which is not written. Works in a folder under `scratch`."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="check-", dir=scratch))
    try:
        return _judge(images, expected, work)
    except Failed as error:
        return Judged([f"the point cannot be judged: {error}"])
    finally:
        shutil.rmtree(work)


def _judge(images, expected, work):
    judged = Judged([])
    found = {}
    for name, folder in FOLDERS.items():
        if name not in images:
            judged.findings.append(f"disk {name} is not in the point")
            continue
        found[name] = read_disk(images[name], folder, work / name, expected.consistency)
        judged.findings += [f"{name}: {text}" for text in found[name].findings]
        judged.replayed[name] = found[name].needed_replay
        if found[name].needed_replay and expected.consistency in AT_REST:
            judged.findings.append(f"{name}: the file system's journal needs a replay, though it was frozen")
        manifest, contents = tree(found[name].folder)
        if manifest is None:
            judged.findings.append(f"{name}: there is no file tree")
            continue
        judged.ops[name], findings = judge.judge_tree(manifest, contents, expected.ops.get(name, 0))
        judged.findings += [f"{name}: {text}" for text in findings]
    if "root" in found:
        judge_rows(found["root"].folder, expected, judged)
    if "data" in found:
        order = found["data"].folder / "order"
        content = order.read_bytes() if order.exists() else b""
        judged.findings += judge.judge_order(content, judged.newest_row)
    return judged


def judge_rows(folder, expected, judged):
    database, wal = folder / "rows.db", folder / "rows.db-wal"
    judged.replayed["database"] = wal.exists() and wal.stat().st_size > 0
    if expected.consistency == "application":
        if not expected.quiesced_at:
            judged.findings.append("root: the writer was never quiesced during the capture")
        if judged.replayed["database"]:
            judged.findings.append("root: the database's journal needs a replay, though the application was quiesced")
        # What is in the database itself is what counts, so its journal is not even offered.
        wal.unlink(missing_ok=True)
    (folder / "rows.db-shm").unlink(missing_ok=True)
    judged.newest_row, findings = judge.judge_database(database, expected.row)
    judged.findings += [f"root: {text}" for text in findings]
    if expected.consistency == "application" and judged.newest_row not in expected.quiesced_at:
        judged.findings.append(f"root: the newest row is {judged.newest_row}, but the writer rested at {expected.quiesced_at}")


def read_disk(image, folder, work, consistency):
    work.mkdir()
    copy = work / "copy"
    disks.partition(image, copy)
    kind = disks.file_system(copy)
    if kind == "ext4":
        return disks.read_ext4(copy, folder, work / "read", consistency in AT_REST)
    if kind == "xfs":
        return disks.read_xfs(copy, folder, work / "read", consistency in AT_REST)
    raise Failed(f"{image}: neither ext4 nor XFS is on it")


def tree(folder):
    """The newest generation that has a manifest: the writer begins one at each start."""
    numbers = [int(path.stem[5:]) for path in folder.glob("tree-*.manifest")]
    if not numbers:
        return None, {}
    newest = f"tree-{max(numbers)}"
    place = folder / newest
    contents = {path.name: path.read_bytes() for path in place.iterdir()} if place.is_dir() else {}
    return (folder / f"{newest}.manifest").read_bytes(), contents
