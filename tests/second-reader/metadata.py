"""Metadata objects, the common shape of manifests, segments and layers: section 7 of the vault format."""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import strict_json as sj
from findings import Damaged, Unknown
from keys import digest, kdf, mac, signature_holds
from sealing import PART_EXTRA, PART_MOST_PLAIN, open_part
from store import OpenObject, match_name
from vault import Vault

MANIFEST, SEGMENT, LAYER, TRAILER = 1, 2, 3, 4
ROOT = 0xFFFFFFFF
ROOT_MOST_PLAIN = 256 << 20
HEADER = struct.Struct("<8sHBBI16s32s64s")
TAIL = struct.Struct("<QI64s32s")
ROW = struct.Struct("<32sII32s")
FOLDERS = {MANIFEST: "points", SEGMENT: "index", LAYER: "maps"}

V = TypeVar("V")


class ByteCache(Generic[V]):
    """Keeps what was used last, up to a number of bytes."""

    def __init__(self, budget: int) -> None:
        self._budget, self._used = budget, 0
        self._kept: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()

    def get(self, key: Hashable) -> V | None:
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def put(self, key: Hashable, value: V, size: int) -> V:
        if key not in self._kept:
            self._kept[key] = (value, size)
            self._used += size
            while self._used > self._budget and len(self._kept) > 1:
                _, (_, dropped) = self._kept.popitem(last=False)
                self._used -= dropped
        return value


@dataclass(frozen=True)
class Row:
    key: bytes
    offset: int
    length: int
    entries: int
    hash: bytes


@dataclass(frozen=True)
class MetadataObject:
    """One that held: certificate, signature, checksum, tag and root were checked on opening."""

    vault: Vault
    name: str
    kind: int
    writer: bytes
    key: bytes
    root: dict[str, Any]
    binary: bytes  # behind the part table
    rows: list[Row]
    size: int

    @property
    def what(self) -> str:
        return f"{self.name}, root"

    def part(self, number: int) -> bytes:
        row = self.rows[number]
        with self.vault.store.open(self.name) as opened:
            sealed = opened.range(row.offset, row.length)
        if digest(sealed) != row.hash:
            raise Damaged(f"{self.name}, part {number}: the root has another hash for it")
        return _open(self.vault, self.key, sealed, self.kind, number, self.writer, self.name)


def sealing_name(kind: int, name: str) -> str:
    """The name in a part's associated data: without the tag, which comes from the root."""
    return name if kind in (MANIFEST, TRAILER) else name[:-32]


def _open(vault: Vault, key: bytes, sealed: bytes, kind: int, number: int, writer: bytes, name: str) -> bytes:
    most = ROOT_MOST_PLAIN if number == ROOT else PART_MOST_PLAIN
    return open_part(
        key,
        sealed,
        vault_id=vault.vault_id,
        kind=kind,
        number=number,
        writer=writer,
        name=sealing_name(kind, name),
        most_plain=most,
    )


def open_metadata(vault: Vault, name: str, kind: int) -> MetadataObject:
    match = match_name(name)
    if not name.startswith(FOLDERS[kind] + "/"):
        raise Damaged(f"{name}: a name under {FOLDERS[kind]}/ was expected")
    with vault.store.open(name) as opened:
        if opened.size < HEADER.size + TAIL.size:
            raise Damaged(f"{name}: {opened.size} bytes are too few for a metadata object")
        header = opened.range(0, HEADER.size)
        root_at, root_length, signature, checksum = TAIL.unpack(opened.range(opened.size - TAIL.size, TAIL.size))
        magic, version, its_kind, reserved, key_number, writer, public_key, certificate = HEADER.unpack(header)
        if magic != b"SPSTMETA" or opened.digest(opened.size - 32) != checksum:
            raise Damaged(f"{name}: not a metadata object, or the checksum does not hold")
        if version != 1 or its_kind != kind or reserved != 0:
            raise Unknown(f"{name}: format {version}, kind {its_kind}, reserved byte {reserved}; known: 1, {kind}, 0")
        if root_at + root_length != opened.size - TAIL.size or root_length > ROOT_MOST_PLAIN + PART_EXTRA:
            raise Damaged(f"{name}: the root is not where the tail says")
        sealed_root = opened.range(root_at, root_length)
        size = opened.size
    _check_signature(vault, name, header, sealed_root, signature, writer, public_key, certificate)
    if kind in (SEGMENT, LAYER) and match[1] != writer.hex():
        raise Damaged(f"{name}: written by {writer.hex()}, under another writer's name")
    key = vault.metadata_key(key_number, name)
    plain = _open(vault, key, sealed_root, kind, ROOT, writer, name)
    tag = mac(kdf("sparesite/1 object tag", key), plain)[:16].hex()
    if kind in (SEGMENT, LAYER) and tag != name[-32:]:
        raise Damaged(f"{name}: its content has the tag {tag}")
    root, rows, binary = _split_root(plain, root_at, f"{name}, root")
    return MetadataObject(vault, name, kind, writer, key, root, binary, rows, size)


def _check_signature(
    vault: Vault,
    name: str,
    header: bytes,
    sealed_root: bytes,
    signature: bytes,
    writer: bytes,
    public_key: bytes,
    certificate: bytes,
) -> None:
    if not vault.certified(writer, public_key, certificate):
        raise Damaged(f"{name}: the control key did not certify writer {writer.hex()}")
    start = b"sparesite/1 metadata\0" + vault.vault_id + struct.pack("<H", len(name)) + name.encode()
    if not signature_holds(public_key, signature, start + digest(header, sealed_root)):
        raise Damaged(f"{name}: the signature of writer {writer.hex()} does not hold")


def _split_root(plain: bytes, root_at: int, what: str) -> tuple[dict[str, Any], list[Row], bytes]:
    json_end = 4 + int.from_bytes(plain[:4], "little")
    if len(plain) < 4 or json_end > len(plain):
        raise Damaged(f"{what}: the JSON is longer than the root")
    root = sj.parse(plain[4:json_end], what)
    parts = sj.number(root, "parts", what)
    table_end = json_end + parts * ROW.size
    if table_end > len(plain):
        raise Damaged(f"{what}: a table of {parts} parts is longer than the root")
    rows: list[Row] = []
    at = HEADER.size
    for key, length, entries, hash_ in ROW.iter_unpack(plain[json_end:table_end]):
        if not PART_EXTRA <= length <= PART_MOST_PLAIN + PART_EXTRA:
            raise Damaged(f"{what}: part {len(rows)} has the length {length}")
        if rows and key < rows[-1].key:
            raise Damaged(f"{what}: the part table is not sorted")
        rows.append(Row(key, at, length, entries, hash_))
        at += length
    if at != root_at:
        raise Damaged(f"{what}: the parts end at {at}, the root begins at {root_at}")
    return root, rows, plain[table_end:]


class PartCache(Generic[V]):
    """Opened and parsed parts of many objects, within one budget of bytes."""

    def __init__(self, budget: int) -> None:
        self._cache: ByteCache[V] = ByteCache(budget)

    def part(self, obj: MetadataObject, number: int, read: Callable[[bytes], V]) -> V:
        key = (obj.name, number)
        kept = self._cache.get(key)
        if kept is not None:
            return kept
        plain = obj.part(number)
        return self._cache.put(key, read(plain), len(plain))


def open_trailer(vault: Vault, opened: OpenObject, sealed: bytes, key_number: int, writer: bytes) -> bytes:
    """A pack's trailer is one part, of kind 4, number 0, under the name `packs/` (section 6)."""
    key = vault.metadata_key(key_number, opened.name)
    try:
        return _open(vault, key, sealed, TRAILER, 0, writer, "packs/")
    except Damaged as error:
        raise Damaged(f"{opened.name}: trailer: {error}") from None
