"""Where a disk's chunks are: runs, map layers (section 9) and their overlay."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Protocol

from findings import Damaged, Unknown
from metadata import MetadataObject, PartCache

HOLE, CHUNK_IDS = 0, 1
RUN = struct.Struct("<QIB")

# A stretch of positions and the chunk ids there, one behind the other; None for a hole.
Stretch = tuple[int, int, bytes | None]


class RunTable:
    """A row of runs, sorted and not overlapping."""

    def __init__(self, plain: bytes, what: str) -> None:
        self._plain = plain
        self._firsts, self._offsets = array("Q"), array("I")
        self.end, self.positions, at = 0, 0, 0
        while at < len(plain):
            if at + RUN.size > len(plain):
                raise Damaged(f"{what}: ends inside a run at {at}")
            first, count, kind = RUN.unpack_from(plain, at)
            if kind not in (HOLE, CHUNK_IDS):
                raise Unknown(f"{what}: a run of kind {kind} is not known to this reader")
            if count == 0 or first < self.end or first + count > 2**64:
                raise Damaged(f"{what}: the run at {at} is empty, overlaps the one before or is not in order")
            self._firsts.append(first)
            self._offsets.append(at)
            self.end = first + count
            self.positions += count
            at += RUN.size + (32 * count if kind == CHUNK_IDS else 0)
        if at != len(plain):
            raise Damaged(f"{what}: ends inside a run")

    def __len__(self) -> int:
        return len(self._firsts)

    def first_position(self) -> int:
        return self._firsts[0] if self._firsts else 0

    def over(self, begin: int, end: int) -> Iterator[Stretch]:
        """The runs between two positions, cut to them."""
        for index in range(max(bisect_right(self._firsts, begin) - 1, 0), len(self._firsts)):
            at = self._offsets[index]
            first, count, kind = RUN.unpack_from(self._plain, at)
            low, high = max(first, begin), min(first + count, end)
            if first >= end:
                break
            if low < high:
                ids_at = at + RUN.size + 32 * (low - first)
                ids = self._plain[ids_at : ids_at + 32 * (high - low)] if kind == CHUNK_IDS else None
                yield low, high - low, ids


class Layer(Protocol):
    def over(self, begin: int, end: int) -> Iterator[Stretch]: ...


class StoredLayer:
    """A layer that is an object of its own; parts are opened when a position asks for them."""

    def __init__(self, obj: MetadataObject, cache: PartCache[RunTable]) -> None:
        self._obj, self._cache = obj, cache
        self._firsts = [int.from_bytes(row.key[:8], "big") for row in obj.rows]
        if any(row.key[8:] != bytes(24) for row in obj.rows) or obj.binary:
            raise Damaged(f"{obj.what}: not the part table of a map layer")

    def over(self, begin: int, end: int) -> Iterator[Stretch]:
        for number in range(max(bisect_right(self._firsts, begin) - 1, 0), len(self._firsts)):
            if self._firsts[number] >= end:
                break
            runs = self._cache.part(self._obj, number, lambda plain, n=number: self._table(plain, n))  # type: ignore[misc]
            yield from runs.over(begin, end)

    def _table(self, plain: bytes, number: int) -> RunTable:
        what = f"{self._obj.name}, part {number}"
        table = RunTable(plain, what)
        if table.positions != self._obj.rows[number].entries or table.first_position() != self._firsts[number]:
            raise Damaged(f"{what}: not the runs that the part table announces")
        if number + 1 < len(self._firsts) and table.end > self._firsts[number + 1]:
            raise Damaged(f"{what}: overlaps the next part")
        return table


def overlay(layers: Sequence[Layer], begin: int, end: int) -> list[bytes | None]:
    """The chunk id of each position, newest layer first; None for a hole or a position in no layer."""
    decided = bytearray(end - begin)
    ids: list[bytes | None] = [None] * (end - begin)
    left = end - begin
    for layer in layers:
        if left == 0:
            break
        for first, count, run_ids in layer.over(begin, end):
            for number in range(count):
                place = first - begin + number
                if not decided[place]:
                    decided[place] = 1
                    left -= 1
                    ids[place] = None if run_ids is None else run_ids[32 * number : 32 * number + 32]
    return ids
