"""Reads what is on raw disk images with the file systems' own tools. ext4 needs no mount (debugfs); XFS is
mounted through a loop device, as root. Whatever replays a journal works on a copy."""

import contextlib
import dataclasses
import json
import pathlib
import re
import subprocess
import tempfile

from .failed import Failed
from .guest import run


@dataclasses.dataclass
class Found:
    """One file system of a point, and the writer's folder on it as it was read."""

    folder: pathlib.Path
    needed_replay: bool
    findings: list[str]


def status(*command):
    """Exit status and output of a tool whose status says what it found."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    return done.returncode, done.stdout.strip()


def partition(image, copy):
    """Copies the largest partition of a raw image, holes left out; a disk without a table as a whole."""
    code, table = status("sfdisk", "-J", image)
    if code != 0:
        run("cp", "--sparse=always", image, copy)
        return
    table = json.loads(table)["partitiontable"]
    sector = table.get("sectorsize", 512)
    root = max(table["partitions"], key=lambda part: part["size"])
    mib = 1 << 20
    if root["start"] * sector % mib or root["size"] * sector % mib:
        raise Failed(f"{image}: its largest partition does not lie on MiB borders")
    start, count = root["start"] * sector // mib, root["size"] * sector // mib
    run("dd", f"if={image}", f"of={copy}", "bs=1M", f"skip={start}", f"count={count}", "conv=sparse", "status=none")
    with open(copy, "r+b") as file:
        file.truncate(count * mib)


def read_ext4(copy, folder, into, at_rest):
    """`folder` is the path in the file system that is read out; the copy is changed by the replay."""
    _, header = status("debugfs", "-R", "stats -h", copy)
    needed = "needs_recovery" in header
    findings = []
    if at_rest:
        findings += whole_ext4(copy, "as it lies")
    # As a mount would: the journal, then the orphans; nothing else may be wrong then.
    code, output = status("e2fsck", "-p", copy)
    findings += judge_replay(code, output)
    findings += whole_ext4(copy, "after the replay")
    into.mkdir(parents=True)
    _, output = status("debugfs", "-R", f"rdump {folder} {into}", copy)
    read = into / pathlib.PurePath(folder).name
    if not read.is_dir():
        findings.append(f"{folder} cannot be read: {output[-400:]}")
        read.mkdir()
    return Found(read, needed, findings)


def whole_ext4(copy, when):
    code, output = status("e2fsck", "-fn", copy)
    return [f"e2fsck -fn ended with {code} {when}: {output[-400:]}"] if code != 0 else []


# What a mount does without a word: the journal is replayed, files that were deleted while open are let go.
REPLAYS = re.compile(
    r"(recovering journal|clean, \d+/\d+ files, \d+/\d+ blocks.*|(Clearing|Truncating) orphaned inode \d+ .*"
    r"|Setting free (inodes|blocks) count to \d+ \(was \d+\)|Orphan file .*)"
)


def judge_replay(code, output):
    """Of `e2fsck -p`: that it repaired something in passing would show in nothing but its words. Pure."""
    findings = [f"e2fsck -p ended with {code}: {output[-400:]}"] if code > 1 else []
    for line in output.splitlines():
        said = line.partition(": ")[2].strip() or line.strip()
        if said and not REPLAYS.fullmatch(said):
            findings.append(f"e2fsck -p did more than a replay: {said[:200]}")
    return findings


def read_xfs(copy, folder, into, at_rest):
    """At rest, the files must be readable with the log ignored."""
    needed, findings = log_needs_replay(copy)
    read = into / pathlib.PurePath(folder).name
    into.mkdir(parents=True)
    try:
        with mounted(copy, "nouuid,ro,norecovery" if at_rest else "nouuid") as root:
            run("cp", "-a", root / folder.lstrip("/"), read)
        if at_rest:
            with mounted(copy, "nouuid"):
                pass
    except Failed as error:
        findings.append(f"{folder} cannot be read: {error}")
        read.mkdir(exist_ok=True)
    code, output = status("xfs_repair", "-n", copy)
    if code != 0:
        findings.append(f"xfs_repair -n ended with {code} after the replay: {output[-400:]}")
    return Found(read, needed, findings)


def log_needs_replay(image):
    """A freeze ends with the superblock's counters in the log, on purpose (xfs_fs_freeze: so that unlinked
    inodes are found after a crash). Anything else in it is metadata that is not in its place yet."""
    code, output = status("xfs_logprint", "-t", image)
    if code != 0:
        return True, [f"xfs_logprint ended with {code}: {output[-400:]}"]
    items = re.findall(r"^([A-Z]{3,}): ", output, re.MULTILINE)
    items = [item for item in items if item != "TRANS"]
    return len(items) > output.count("SUPER Block Buffer:"), []


@contextlib.contextmanager
def mounted(image, options):
    with tempfile.TemporaryDirectory() as place:
        run("mount", "-o", f"loop,{options}", image, place)
        try:
            yield pathlib.Path(place)
        finally:
            run("umount", place)


def can_mount_xfs(folder):
    """Tried, not guessed: containers often have no loop devices."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        image = pathlib.Path(place) / "xfs"
        with open(image, "wb") as file:
            file.truncate(320 << 20)        # the least that mkfs.xfs takes is 300 MiB
        try:
            run("mkfs.xfs", "-q", image)
            with mounted(image, "nouuid"):
                return True
        except (Failed, FileNotFoundError):
            return False


def file_system(image):
    """ext4 or xfs, by its magic number."""
    with open(image, "rb") as file:
        start = file.read(2048)
    if start[:4] == b"XFSB":
        return "xfs"
    if start[0x438:0x43A] == b"\x53\xef":
        return "ext4"
    return None
