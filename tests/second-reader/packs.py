"""Packs and the records in them: section 6 of the vault format."""

from __future__ import annotations

import struct
from collections import OrderedDict

from entries import FULL, PATCH, RECORD_EXTRA, Entry, EntryTable, PackRef
from findings import Damaged, Unknown
from keys import hpke_open
from metadata import open_trailer
from sealing import PART_EXTRA, PART_MOST_PLAIN, decode, open_sealed
from store import OpenObject, pack_object
from vault import BLOCK_BYTES, Vault

PACK_HEADER = struct.Struct("<8sHHI")
PACK_FOOTER = struct.Struct("<II16s8s")
RECORD_HEADER = struct.Struct("<BBBBBBHII")
SEALED_DATA_KEY = 80
PACK_MOST = 1 << 30
OPEN_PACKS = 64


def apply_patch(parent: bytes, payload: bytes, what: str) -> bytes:
    """`changed ‖ zero ‖ blocks` laid over the parent chunk."""
    blocks = len(parent) // BLOCK_BYTES
    bitmap_bytes = blocks // 8
    changed = int.from_bytes(payload[:bitmap_bytes], "little")
    zero = int.from_bytes(payload[bitmap_bytes : 2 * bitmap_bytes], "little")
    if zero & ~changed:
        raise Damaged(f"{what}: a block is said to be zero but not to be changed")
    if len(payload) != 2 * bitmap_bytes + (changed & ~zero).bit_count() * BLOCK_BYTES:
        raise Damaged(f"{what}: {len(payload)} bytes do not fit the blocks that it changes")
    chunk, at = bytearray(parent), 2 * bitmap_bytes
    for block in range(blocks):
        if not changed >> block & 1:
            continue
        place = slice(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)
        if zero >> block & 1:
            chunk[place] = bytes(BLOCK_BYTES)
        else:
            chunk[place] = payload[at : at + BLOCK_BYTES]
            at += BLOCK_BYTES
    return bytes(chunk)


class Pack:
    """An open pack. `whole` tells whether its bytes are those that its name promises."""

    def __init__(self, vault: Vault, name: bytes, whole: bool | None = None) -> None:
        self._vault, self.name = vault, pack_object(name)
        self._opened: OpenObject = vault.store.open(self.name)
        size = self._opened.size
        if not PACK_HEADER.size + SEALED_DATA_KEY + PART_EXTRA + PACK_FOOTER.size <= size <= PACK_MOST:
            raise Damaged(f"{self.name}: {size} bytes are no pack")
        self.whole = self._opened.digest(size) == name if whole is None else whole
        if not self.whole:
            vault.findings.add(f"{self.name}: damaged: its bytes are not those that its name promises")
        magic, version, self._keys, reserved = PACK_HEADER.unpack(self._opened.range(0, PACK_HEADER.size))
        trailer, self._trailer_key, self._writer, end = PACK_FOOTER.unpack(
            self._opened.range(size - PACK_FOOTER.size, PACK_FOOTER.size)
        )
        self._records_at = PACK_HEADER.size + self._keys * SEALED_DATA_KEY
        self._records_end = size - PACK_FOOTER.size - trailer
        self._require(magic == b"SPSTPACK" and end == b"SPSTPEND", "not a pack")
        self._known(version == 1 and reserved == 0, f"format {version}, reserved {reserved}; known: 1, 0")
        self._require(1 <= self._keys <= 16 and self._records_at <= self._records_end, "the sizes do not fit")
        self._data_keys: dict[int, bytes] = {}

    @property
    def size(self) -> int:
        return self._opened.size

    def close(self) -> None:
        self._opened.close()

    def _require(self, holds: bool, text: str) -> None:
        if not holds:
            raise Damaged(f"{self.name}: {text}")

    def _known(self, holds: bool, text: str) -> None:
        """An unknown number is refused for good, unless the pack is damaged: then it is one more damage."""
        if not holds:
            raise (Unknown if self.whole else Damaged)(f"{self.name}: {text}")

    def _data_key(self, number: int) -> bytes:
        self._require(number < self._keys, f"there is no data key {number}")
        if number not in self._data_keys:
            sealed = self._opened.range(PACK_HEADER.size + number * SEALED_DATA_KEY, SEALED_DATA_KEY)
            info = b"sparesite/1 data key\0" + self._vault.vault_id
            what = f"{self.name}, data key {number}"
            self._data_keys[number] = hpke_open(self._vault.recovery_key, sealed, info, what)
        return self._data_keys[number]

    def payload(self, entry: Entry) -> bytes:
        """Opens and decodes the record of an entry."""
        what = f"{self.name}, record at {entry.offset}"
        self._require(entry.pack_bytes in (None, self.size), f"is not of the {entry.pack_bytes} bytes announced")
        inside = self._records_at <= entry.offset and entry.offset + entry.length <= self._records_end
        self._require(inside, f"the record {entry.offset}+{entry.length} is not among the records")
        record = self._opened.range(entry.offset, entry.length)
        kind, codec, cipher, id_kind, depth, data_key, reserved, plain_length, coded_length = RECORD_HEADER.unpack_from(
            record
        )
        numbers = f"record at {entry.offset}: kind {kind}, codec {codec}, cipher {cipher}, id algorithm {id_kind}"
        known = kind in (FULL, PATCH) and codec <= 1 and cipher == 1 and id_kind == 1 and reserved == 0
        self._known(known, f"{numbers}, reserved {reserved}: not all known to this reader")
        as_announced = (kind, depth, coded_length + RECORD_EXTRA) == (entry.kind, entry.depth, entry.length)
        self._require(as_announced, f"record at {entry.offset}: kind, depth or length are not as its entry says")
        chunk_bytes = self._vault.chunk_bytes
        most = chunk_bytes if kind == FULL else chunk_bytes + 2 * (chunk_bytes // BLOCK_BYTES // 8)
        fits = plain_length == most if kind == FULL else plain_length <= most
        self._require(fits, f"record at {entry.offset}: {plain_length} bytes do not fit a chunk")
        associated = self._vault.vault_id + record[:5] + struct.pack("<I", plain_length) + entry.chunk_id + entry.parent
        coded = open_sealed(self._data_key(data_key), associated, record[RECORD_HEADER.size :], what)
        return decode(codec, coded, plain_length, what)

    def trailer(self, name: bytes) -> EntryTable:
        """The pack's own list of its records, for the case that no segment has it."""
        sealed = self._opened.range(self._records_end, self.size - PACK_FOOTER.size - self._records_end)
        self._require(len(sealed) <= PART_MOST_PLAIN + PART_EXTRA, "the trailer is too long")
        plain = open_trailer(self._vault, self._opened, sealed, self._trailer_key, self._writer)
        return EntryTable(plain, [PackRef(name, self.size)], f"{self.name}, trailer", sort=True)


class Packs:
    """Opens packs when asked for; a few stay open, and each is hashed once."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._open: OrderedDict[bytes, Pack] = OrderedDict()
        self._whole: dict[bytes, bool] = {}

    def pack(self, name: bytes) -> Pack:
        if name in self._open:
            self._open.move_to_end(name)
            return self._open[name]
        pack = Pack(self._vault, name, self._whole.get(name))
        self._whole[name] = pack.whole
        self._open[name] = pack
        if len(self._open) > OPEN_PACKS:
            self._open.popitem(last=False)[1].close()
        return pack
