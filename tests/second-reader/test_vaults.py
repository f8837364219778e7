"""Whole vaults: every one that was ever kept, and one fresh from the built programs.

The programs are looked for in the directory that SPARESITE_BIN names; without it, that test is left out.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent / "fixtures" / "golden"
FIXTURES = sorted(path for path in GOLDEN.glob("*/") if path.is_dir())


def hash_of(path: Path) -> str:
    hasher = blake3()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            hasher.update(piece)
    return hasher.hexdigest()


def second_reader(folder: Path, vault: Path, *arguments: str) -> str:
    """Runs the reader as a person would. A finding is a failure here: these vaults have nothing wrong."""
    command = [sys.executable, str(HERE / "second_reader.py"), "--kit", str(folder / "kit.json")]
    command += ["--passphrase-file", str(folder / "passphrase.txt"), "--vault", str(vault), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr}"
    return done.stdout


def assembled(folder: Path, vault: Path, point: str, output: Path) -> dict[str, Path]:
    second_reader(folder, vault, "assemble", point, "--output", str(output))
    return {path.name: path for path in output.iterdir()}


def test_there_are_golden_vaults() -> None:
    assert FIXTURES, f"{GOLDEN} has no vault of an earlier release"


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.name)
def test_golden_vault(fixture: Path, tmp_path: Path) -> None:
    expected = json.loads((fixture / "expected.json").read_text())["points"]
    assert expected, f"{fixture}: expected.json names no point"
    listed = json.loads(second_reader(fixture, fixture / "bucket", "points"))["points"]

    def short(points: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        return sorted(
            (point["vm"], point["sequence"], sorted((disk["name"], disk["size_bytes"]) for disk in point["disks"]))
            for point in points
        )

    assert short(listed) == short(expected)
    for point in expected:
        wanted = f"{point['vm']}@{point['sequence']}"
        files = assembled(fixture, fixture / "bucket", wanted, tmp_path / wanted)
        found = {name: (path.stat().st_size, hash_of(path)) for name, path in files.items()}
        assert found == {f"{d['name']}.raw": (d["size_bytes"], d["blake3"]) for d in point["disks"]}, wanted


# --- a vault fresh from the programs ---------------------------------------------------------------------------------

DISK_BYTES = (6 << 20) + 12 * 512  # the last chunk is not a whole one
CONFIG = """\
state = "{folder}/state"

[vault]
url = "file://{folder}/bucket"
key = "{folder}/gateway.key"

[[policy]]
name = "test"
rpo = "1h"
consistency = "none"

[[vm]]
name = "vm1"
policy = "test"
source = {{ disks = ["{folder}/root.raw"] }}
"""


def first_version(seed: random.Random) -> bytearray:
    """Random chunks, a chunk twice, one that compresses, and holes."""
    disk = bytearray(DISK_BYTES)
    disk[0 : 1 << 20] = seed.randbytes(1 << 20)
    disk[2 << 20 : 3 << 20] = disk[0 : 1 << 20]
    disk[3 << 20 : (3 << 20) + 300_000] = b"the same line again\n" * 15_000
    disk[-5000:] = seed.randbytes(5000)
    return disk


def change(disk: bytearray, seed: random.Random) -> None:
    """Some blocks, a cleared block, a chunk that becomes a hole, a hole that becomes a chunk, the very end."""
    disk[100:200] = seed.randbytes(100)
    disk[300_000:310_000] = seed.randbytes(10_000)
    disk[524288 + 8192 : 524288 + 12288] = bytes(4096)
    disk[2 << 20 : (2 << 20) + 262144] = bytes(262144)
    disk[5 << 20 : (5 << 20) + 262144] = seed.randbytes(262144)
    disk[-1:] = b"\xff"


def gateway(programs: Path, folder: Path, *arguments: str) -> None:
    command = [str(programs / "sparesite-gateway"), "--config", str(folder / "g.toml"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"


@pytest.mark.skipif("SPARESITE_BIN" not in os.environ, reason="SPARESITE_BIN does not name the built programs")
def test_fresh_vault(tmp_path: Path) -> None:
    programs, seed = Path(os.environ["SPARESITE_BIN"]), random.Random(1)
    (tmp_path / "g.toml").write_text(CONFIG.format(folder=tmp_path))
    (tmp_path / "passphrase.txt").write_text("a long passphrase for a short test\n")
    (tmp_path / "root.raw").write_bytes(disk := first_version(seed))
    kept = [bytes(disk)]
    gateway(
        programs, tmp_path, "init", "--vault", f"file://{tmp_path}/bucket", "--key", str(tmp_path / "gateway.key"),
        "--kit", str(tmp_path / "kit.json"), "--passphrase-file", str(tmp_path / "passphrase.txt"),
    )  # fmt: skip
    gateway(programs, tmp_path, "sync")
    change(disk, seed)
    (tmp_path / "root.raw").write_bytes(disk)
    kept.append(bytes(disk))
    gateway(programs, tmp_path, "sync")

    points = json.loads(second_reader(tmp_path, tmp_path / "bucket", "points"))["points"]
    points.sort(key=lambda point: (point["epoch"], point["sequence"]))
    assert [point["vm"] for point in points] == ["vm1", "vm1"]
    for point, copy in zip(points, kept, strict=True):
        assert [disk["size_bytes"] for disk in point["disks"]] == [DISK_BYTES]
        output = tmp_path / f"out-{point['sequence']}"
        [path] = assembled(tmp_path, tmp_path / "bucket", f"vm1@{point['sequence']}", output).values()
        assert path.read_bytes() == copy, f"point {point['sequence']} is not the disk that was kept"
    [newest] = assembled(tmp_path, tmp_path / "bucket", "vm1", tmp_path / "newest").values()
    assert newest.read_bytes() == kept[1]
