"""Where chunks lie: entries, index segments (section 8), and the choice of segments to read."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import strict_json as sj
from findings import Damaged, Unknown
from metadata import SEGMENT, MetadataObject, PartCache, open_metadata
from vault import Vault

FULL, PATCH = 0, 1
RECORD_EXTRA = 56
ENTRY = struct.Struct("<32sBBIII")
PACK_ROW = struct.Struct("<32sQ")


@dataclass(frozen=True)
class Entry:
    chunk_id: bytes
    kind: int
    depth: int
    pack: bytes
    pack_bytes: int | None
    offset: int
    length: int
    parent: bytes  # 32 zero bytes for a full record


@dataclass(frozen=True)
class PackRef:
    name: bytes
    size: int | None


class EntryTable:
    """A row of entries, kept as its bytes and the place of each: a part may hold some 350,000."""

    def __init__(self, plain: bytes, packs: Sequence[PackRef], what: str, *, sort: bool = False) -> None:
        self._plain, self._packs = plain, packs
        self._offsets = array("I")
        at, before = 0, b""
        while at < len(plain):
            if at + ENTRY.size > len(plain):
                raise Damaged(f"{what}: ends inside an entry at {at}")
            chunk_id, kind, depth, pack, offset, length = ENTRY.unpack_from(plain, at)
            if kind not in (FULL, PATCH):
                raise Unknown(f"{what}: a record of kind {kind} is not known to this reader")
            if (kind == FULL) != (depth == 0):
                raise Damaged(f"{what}: the entry at {at} has kind {kind} with depth {depth}")
            if pack >= len(packs) or length < RECORD_EXTRA:
                raise Damaged(f"{what}: the entry at {at} names pack {pack} of {len(packs)}, {length} bytes")
            order = chunk_id + struct.pack(">BII", depth, pack, offset)
            if order < before and not sort:
                raise Damaged(f"{what}: the entries are not sorted, at {at}")
            self._offsets.append(at)
            before = order
            at += ENTRY.size + (32 if kind == PATCH else 0)
        if at != len(plain):
            raise Damaged(f"{what}: ends inside an entry")
        if sort:
            self._offsets = array("I", sorted(self._offsets, key=self._id_at))

    def __len__(self) -> int:
        return len(self._offsets)

    def _id_at(self, at: int) -> bytes:
        return self._plain[at : at + 32]

    def first_id(self) -> bytes:
        return self._id_at(self._offsets[0]) if self._offsets else b""

    def find(self, chunk_id: bytes) -> list[Entry]:
        found = []
        for index in range(bisect_left(self._offsets, chunk_id, key=self._id_at), len(self._offsets)):
            at = self._offsets[index]
            its_id, kind, depth, pack, offset, length = ENTRY.unpack_from(self._plain, at)
            if its_id != chunk_id:
                break
            parent = self._plain[at + ENTRY.size : at + ENTRY.size + 32] if kind == PATCH else bytes(32)
            ref = self._packs[pack]
            found.append(Entry(chunk_id, kind, depth, ref.name, ref.size, offset, length, parent))
        return found


class Segment:
    def __init__(self, obj: MetadataObject, cache: PartCache[EntryTable]) -> None:
        self._obj, self._cache = obj, cache
        self._keys = [row.key for row in obj.rows]
        count = sj.number(obj.root, "packs", obj.what)
        if len(obj.binary) != count * PACK_ROW.size:
            raise Damaged(f"{obj.what}: {len(obj.binary)} bytes are not {count} packs")
        self.packs = [PackRef(name, size) for name, size in PACK_ROW.iter_unpack(obj.binary)]
        if sj.number(obj.root, "entries", obj.what) != sum(row.entries for row in obj.rows):
            raise Damaged(f"{obj.what}: the parts do not have as many entries as the root says")
        names = tuple(sj.number(obj.root, key, obj.what) for key in ("epoch", "first", "last"))
        if names != span_of(obj.name)[1:] or names[1] > names[2]:
            raise Damaged(f"{obj.what}: epoch, first, last are {names}, not as in the name")

    def find(self, chunk_id: bytes) -> list[Entry]:
        # An id's entries may run on from one part into the next.
        found = []
        first = max(bisect_left(self._keys, chunk_id) - 1, 0)
        for number in range(first, bisect_right(self._keys, chunk_id)):
            found += self._cache.part(self._obj, number, lambda plain, n=number: self._table(plain, n)).find(chunk_id)  # type: ignore[misc]
        return found

    def _table(self, plain: bytes, number: int) -> EntryTable:
        what, row = f"{self._obj.name}, part {number}", self._obj.rows[number]
        table = EntryTable(plain, self.packs, what)
        if len(table) != row.entries or table.first_id() != row.key:
            raise Damaged(f"{what}: not the entries that the part table announces")
        return table


def span_of(name: str) -> tuple[str, int, int, int]:
    _, writer, numbers = name.split("/")
    epoch, first, last, _ = numbers.split("-")
    return writer, int(epoch), int(first), int(last)


def open_segments(vault: Vault, cache: PartCache[EntryTable]) -> list[Segment]:
    """Every segment that holds and is not spanned by a wider one that holds.

    A revoked writer's wider segment may have been made to hide its earlier ones, so it supersedes nothing.
    """
    names = [match[0] for match in vault.store.names("index")]
    names.sort(key=lambda name: span_of(name)[2] - span_of(name)[3])  # widest first
    opened: list[Segment] = []
    spans: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for name in names:
        writer, epoch, first, last = span_of(name)
        wider = spans.setdefault((writer, epoch), [])
        if any(w[0] <= first and last <= w[1] and w != (first, last) for w in wider):
            continue
        try:
            opened.append(Segment(open_metadata(vault, name, SEGMENT), cache))
        except Damaged as error:
            vault.findings.add(f"index segment left out: {error}")
            continue
        if writer not in vault.revoked and name not in vault.damaged:
            wider.append((first, last))
    return opened
