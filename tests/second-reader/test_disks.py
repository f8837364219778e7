"""Patches, runs, entries, overlay and the choice among records: plain functions, hostile input included."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from disks import Chunks, _write_sparse
from entries import FULL, PATCH, Entry, EntryTable, PackRef
from findings import Damaged, Findings, Unknown
from keys import mac
from layers import RunTable, overlay
from metadata import ByteCache
from packs import apply_patch

BLOCK = 4096
CHUNK_BYTES = 16 * BLOCK


def block(letter: str) -> bytes:
    return letter.encode() * BLOCK


# --- patches ---------------------------------------------------------------------------------------------------------


def test_patch_replaces_clears_and_keeps() -> None:
    parent = b"".join(block(letter) for letter in "abcdefghijklmnop")
    # Blocks 1, 9 and 15 change; of these 9 becomes zero.
    payload = bytes([0b00000010, 0b10000010]) + bytes([0, 0b00000010]) + block("X") + block("Y")
    result = apply_patch(parent, payload, "x")
    expected = list("abcdefghijklmnop")
    expected[1], expected[9], expected[15] = "X", "\0", "Y"
    assert result == b"".join(block(letter) for letter in expected)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"\1", "do not fit"),
        (bytes([1, 0, 0, 0]), "do not fit"),
        (bytes([1, 0, 0, 0]) + bytes(BLOCK + 1), "do not fit"),
        (bytes([1, 0, 1, 0]) + bytes(BLOCK), "do not fit"),
        (bytes([0, 0, 1, 0]), "not to be changed"),
        (bytes([255, 255, 0, 0]) + bytes(15 * BLOCK), "do not fit"),
        (bytes([0, 0, 0]), "do not fit"),
    ],
)
def test_hostile_patches_are_refused(payload: bytes, text: str) -> None:
    with pytest.raises(Damaged, match=text):
        apply_patch(bytes(CHUNK_BYTES), payload, "x")


# --- runs and overlay ------------------------------------------------------------------------------------------------


def chunk_id(letter: str) -> bytes:
    return letter.encode() * 32


def run(first: int, count: int, letters: str | None) -> bytes:
    kind, ids = (0, b"") if letters is None else (1, b"".join(map(chunk_id, letters)))
    return struct.pack("<QIB", first, count, kind) + ids


def test_runs_are_cut_to_what_is_asked() -> None:
    table = RunTable(run(2, 3, "abc") + run(5, 10, None) + run(2**63, 1, "z"), "x")
    assert list(table.over(0, 2)) == []
    assert list(table.over(3, 6)) == [(3, 2, chunk_id("b") + chunk_id("c")), (5, 1, None)]
    assert list(table.over(2**63, 2**63 + 9)) == [(2**63, 1, chunk_id("z"))]


@pytest.mark.parametrize(
    "plain",
    [
        run(0, 1, "a")[:-1],
        run(0, 1, "a") + b"\0",
        run(0, 2, "a"),
        run(0, 2**32 - 1, "a"),
        run(0, 0, None),
        run(5, 1, None) + run(4, 1, None),
        run(5, 2, None) + run(6, 1, None),
        run(2**64 - 1, 2, None),
    ],
)
def test_hostile_runs_are_refused(plain: bytes) -> None:
    with pytest.raises(Damaged, match="x: "):
        RunTable(plain, "x")


def test_unknown_run_is_named() -> None:
    with pytest.raises(Unknown, match="kind 2"):
        RunTable(struct.pack("<QIB", 0, 1, 2), "x")


def test_overlay_newest_first_and_a_hole_decides_too() -> None:
    newest = RunTable(run(1, 1, "N") + run(3, 2, None), "newest")
    middle = RunTable(run(0, 4, "mmmm"), "middle")
    oldest = RunTable(run(2, 5, "ooooo"), "oldest")
    expected = [chunk_id("m"), chunk_id("N"), chunk_id("m"), None, None, chunk_id("o"), chunk_id("o"), None]
    layers = [newest, middle, oldest]
    assert overlay(layers, 0, 8) == expected
    assert [overlay(layers, at, at + 1)[0] for at in range(8)] == expected


# --- entries ---------------------------------------------------------------------------------------------------------


def entry(letter: str, kind: int, depth: int, pack: int = 0, offset: int = 96, parent: str = "") -> bytes:
    start = chunk_id(letter) + struct.pack("<BBIII", kind, depth, pack, offset, 60)
    return start + (chunk_id(parent) if parent else b"")


PACKS = [PackRef(b"P" * 32, 1000), PackRef(b"Q" * 32, 2000)]


def test_entries_are_found_by_id() -> None:
    plain = entry("a", FULL, 0) + entry("b", FULL, 0) + entry("b", PATCH, 3, 1, 500, "a") + entry("c", FULL, 0, 1)
    table = EntryTable(plain, PACKS, "x")
    assert [(e.depth, e.pack, e.pack_bytes, e.offset, e.parent) for e in table.find(chunk_id("b"))] == [
        (0, b"P" * 32, 1000, 96, bytes(32)),
        (3, b"Q" * 32, 2000, 500, chunk_id("a")),
    ]
    assert len(table) == 4 and table.find(chunk_id("d")) == []


@pytest.mark.parametrize(
    "plain",
    [
        entry("a", FULL, 0)[:-1],
        entry("a", PATCH, 1),
        entry("a", FULL, 1),
        entry("a", PATCH, 0, parent="b"),
        entry("a", FULL, 0, pack=2),
        entry("b", FULL, 0) + entry("a", FULL, 0),
        entry("a", FULL, 0, offset=200) + entry("a", FULL, 0, offset=100),
        chunk_id("a") + struct.pack("<BBIII", FULL, 0, 0, 96, 55),
    ],
)
def test_hostile_entries_are_refused(plain: bytes) -> None:
    with pytest.raises(Damaged, match="x: "):
        EntryTable(plain, PACKS, "x")


def test_unknown_record_kind_is_named() -> None:
    with pytest.raises(Unknown, match="kind 2"):
        EntryTable(entry("a", 2, 0), PACKS, "x")


# --- the choice among records ----------------------------------------------------------------------------------------

ID_KEY = b"I" * 32


class FakePacks:
    """Gives a payload for an offset, counts, and is damaged where nothing is."""

    def __init__(self, payloads: dict[int, bytes]) -> None:
        self.payloads, self.asked = payloads, list[int]()

    def pack(self, name: bytes) -> FakePacks:
        return self

    def payload(self, asked: Entry) -> bytes:
        self.asked.append(asked.offset)
        if asked.offset not in self.payloads:
            raise Damaged(f"record at {asked.offset}: nothing there")
        return self.payloads[asked.offset]


class FakeVault:
    id_key, chunk_bytes = ID_KEY, CHUNK_BYTES

    def __init__(self) -> None:
        self.findings, self.damaged = Findings(), set[str]()


class FixedChunks(Chunks):
    def __init__(self, found: list[Entry], payloads: dict[int, bytes]) -> None:
        self.packs, self._found = FakePacks(payloads), found
        self._packs: Any = self.packs
        self._vault: Any = FakeVault()
        self._segments, self._tables = [], []
        self._failed, self._cache, self._salvaged = set(), ByteCache(0), True
        table: Any = self
        self._tables.append(table)

    def find(self, wanted: bytes) -> list[Entry]:
        return [e for e in self._found if e.chunk_id == wanted]


def record(chunk: bytes, depth: int, offset: int, parent: bytes | None = None, pack: bytes = b"P" * 32) -> Entry:
    parent_id = bytes(32) if parent is None else mac(ID_KEY, parent)
    kind = FULL if parent is None else PATCH
    return Entry(mac(ID_KEY, chunk), kind, depth, pack, None, offset, 60, parent_id)


A = block("a") * 16
B = block("b") + A[BLOCK:]
C = block("c") + A[BLOCK:]


def to(letter: str) -> bytes:
    return bytes([1, 0, 0, 0]) + block(letter)


def test_smallest_depth_first() -> None:
    chunks = FixedChunks([record(B, 5, 2, A), record(B, 0, 1), record(A, 0, 3)], {1: B, 2: to("b"), 3: A})
    assert chunks.chunk(mac(ID_KEY, B)) == B
    assert chunks.packs.asked == [1]


def test_next_record_when_one_is_damaged_or_of_other_content() -> None:
    chunks = FixedChunks(
        [record(B, 0, 1), record(B, 0, 9), record(B, 5, 2, A), record(A, 0, 3)], {1: A, 2: to("b"), 3: A}
    )
    assert chunks.chunk(mac(ID_KEY, B)) == B
    assert chunks.packs.asked == [1, 9, 3, 2]


def test_a_pack_that_the_log_calls_damaged_comes_last() -> None:
    chunks = FixedChunks(
        [record(B, 0, 1), record(B, 4, 2, A, b"Q" * 32), record(A, 0, 3, pack=b"Q" * 32)], {2: to("b"), 3: A}
    )
    chunks._vault.damaged.add(f"packs/50/{'50' * 32}")
    assert chunks.chunk(mac(ID_KEY, B)) == B
    assert 1 not in chunks.packs.asked


def test_a_patch_lies_only_over_a_smaller_depth() -> None:
    # B over C over B, at the same depth or rising: without the rule this would never end.
    for depth in (1, 2):
        chunks = FixedChunks([record(B, 1, 1, C), record(C, depth, 2, B)], {1: to("b"), 2: to("c")})
        with pytest.raises(Damaged, match=mac(ID_KEY, C).hex()):
            chunks.chunk(mac(ID_KEY, C))


def test_chains_of_depth_255_are_read() -> None:
    versions = [A[:-2] + struct.pack("<H", number) for number in range(256)]
    found = [record(versions[0], 0, 0)]
    found += [record(versions[n], n, n, versions[n - 1]) for n in range(1, 256)]
    payloads = {n: bytes([0, 128, 0, 0]) + versions[n][-BLOCK:] for n in range(1, 256)} | {0: versions[0]}
    assert FixedChunks(found, payloads).chunk(mac(ID_KEY, versions[255])) == versions[255]


def test_a_web_of_bad_records_is_tried_once_each() -> None:
    # 40 levels with 8 records each, none good: 8^40 ways if a failure were forgotten.
    versions = [A[:-2] + struct.pack("<H", number) for number in range(41)]
    found = [
        record(versions[n], n, 100 * n + way, versions[n - 1] if n > 0 else None) for n in range(41) for way in range(8)
    ]
    chunks = FixedChunks(found, {})
    with pytest.raises(Damaged):
        chunks.chunk(mac(ID_KEY, versions[40]))
    assert len(chunks.packs.asked) == 8


def test_sparse_writing_leaves_out_zero_blocks(tmp_path: Path) -> None:
    data = bytes(64 * BLOCK) + block("x") + bytes(64 * BLOCK) + b"end"
    with (tmp_path / "d.raw").open("wb") as file:
        file.truncate(BLOCK + len(data))
        _write_sparse(file, BLOCK, data)
    assert (tmp_path / "d.raw").read_bytes() == bytes(BLOCK) + data
    assert (tmp_path / "d.raw").stat().st_blocks * 512 < len(data) // 4
