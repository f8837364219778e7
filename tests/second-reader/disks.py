"""Building a point's disks: chunk by chunk, in bounded memory (section 12)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from entries import PATCH, Entry, EntryTable, Segment, open_segments
from findings import Damaged, VaultError
from keys import mac
from layers import Layer, RunTable, StoredLayer, overlay
from metadata import LAYER, ByteCache, PartCache, open_metadata
from packs import Packs, apply_patch
from points import Disk, LayerRef, Manifest, open_manifest
from store import pack_object
from vault import BLOCK_BYTES, Vault

PARTS_BUDGET = 64 << 20
CHUNKS_BUDGET = 32 << 20
WINDOW = 4096  # positions overlaid at a time
DEPTH_MOST = 255


class Chunks:
    """Finds and opens chunks by id. All that it gives out has the id that was asked for."""

    def __init__(self, vault: Vault, manifest: Manifest) -> None:
        self._vault = vault
        self._packs = Packs(vault)
        self._segments = open_segments(vault, PartCache(PARTS_BUDGET))
        self._indexed = {pack.name for segment in self._segments for pack in segment.packs}
        self._tables: list[EntryTable] = []
        self._salvaged = False
        self._cache: ByteCache[bytes] = ByteCache(CHUNKS_BUDGET)
        self._failed: set[tuple[bytes, int, bytes]] = set()
        self._take_manifest_entries(manifest)

    def _take_manifest_entries(self, manifest: Manifest) -> None:
        self._tables.append(manifest.entries)
        self._indexed.update(pack.name for pack in manifest.packs)
        for name, packs in manifest.unindexed:
            if name == manifest.name or all(pack in self._indexed for pack in packs):
                continue
            try:
                other = open_manifest(self._vault, name)
            except Damaged as error:
                self._vault.findings.add(f"entries of unindexed packs are lost with their manifest: {error}")
                continue
            self._tables.append(other.entries)
            self._indexed.update(pack.name for pack in other.packs)

    def chunk(self, chunk_id: bytes, below: int = DEPTH_MOST + 1) -> bytes:
        """The chunk, from records of a depth less than `below`; in one frame a level, for long chains."""
        kept = self._cache.get(chunk_id)
        if kept is not None:
            return kept
        tried = 0
        for entry in self._entries(chunk_id):
            key = (entry.pack, entry.offset, entry.chunk_id + entry.parent)
            if entry.depth >= below:
                continue
            if key not in self._failed:
                try:
                    parent = self.chunk(entry.parent, entry.depth) if entry.kind == PATCH else b""
                    return self._cache.put(chunk_id, self._proved(entry, parent), self._vault.chunk_bytes)
                except Damaged as error:
                    # Remembered, so that no record is tried twice, however a hostile index links them.
                    self._failed.add(key)
                    self._vault.findings.add(str(error))
            tried += 1
        if self._salvage():
            return self.chunk(chunk_id, below)
        # The records' own errors are findings by now; joined here they would double with every level of a chain.
        raise Damaged(
            f"chunk {chunk_id.hex()}: none of the {tried} records listed for it (depth below {below}) gives it"
        )

    def _proved(self, entry: Entry, parent: bytes) -> bytes:
        payload = self._packs.pack(entry.pack).payload(entry)
        what = f"{pack_object(entry.pack)}, record at {entry.offset}"
        chunk = apply_patch(parent, payload, what) if entry.kind == PATCH else payload
        if mac(self._vault.id_key, chunk) != entry.chunk_id:
            raise Damaged(f"{what}: gives another chunk than {entry.chunk_id.hex()}")
        return chunk

    def _entries(self, chunk_id: bytes) -> list[Entry]:
        found: dict[tuple[bytes, int], Entry] = {}
        sources: list[EntryTable | Segment] = [*self._tables, *self._segments]
        for source in sources:
            try:
                for entry in source.find(chunk_id):
                    found[entry.pack, entry.offset] = entry
            except Damaged as error:
                self._vault.findings.add(f"index segment: {error}")
        # What the control log calls damaged comes last; it may hold all the same, and is proved like any other.
        damaged = self._vault.damaged
        return sorted(found.values(), key=lambda entry: (pack_object(entry.pack) in damaged, entry.depth))

    def _salvage(self) -> bool:
        """Once, when a chunk is in no list: reads the trailers of the packs that are in no list."""
        if self._salvaged:
            return False
        self._salvaged = True
        for match in self._vault.store.names("packs"):
            name = bytes.fromhex(match[2])
            if name in self._indexed:
                continue
            try:
                self._tables.append(self._packs.pack(name).trailer(name))
                self._vault.findings.add(f"{match[0]}: in no index segment or manifest; its trailer was read")
            except Damaged as error:
                self._vault.findings.add(str(error))
        self._failed.clear()
        return True


class DiskReader:
    def __init__(self, vault: Vault, chunks: Chunks, disk: Disk) -> None:
        self._chunks, self._disk, self._chunk_bytes = chunks, disk, vault.chunk_bytes
        self._parts: PartCache[RunTable] = PartCache(PARTS_BUDGET)
        self._layers = [self._layer(vault, layer) for layer in disk.layers]

    def _layer(self, vault: Vault, layer: LayerRef) -> Layer:
        if layer.inline is not None:
            return layer.inline
        assert layer.name is not None
        obj = open_metadata(vault, layer.name, LAYER)
        if obj.size != layer.size:
            raise Damaged(f"{layer.name}: {obj.size} bytes, the manifest says {layer.size}")
        return StoredLayer(obj, self._parts)

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) of every chunk that is no hole, cut at the disk's end."""
        size, chunk_bytes = self._disk.size_bytes, self._chunk_bytes
        positions = -(-size // chunk_bytes)
        for begin in range(0, positions, WINDOW):
            ids = overlay(self._layers, begin, min(begin + WINDOW, positions))
            for position, chunk_id in enumerate(ids, begin):
                if chunk_id is None:
                    continue
                offset = position * chunk_bytes
                try:
                    yield offset, self._chunks.chunk(chunk_id)[: size - offset]
                except Damaged as error:
                    raise Damaged(f"disk {self._disk.name}, offset {offset}: {error}") from None


def assemble(vault: Vault, manifest: Manifest, folder: Path) -> list[Path]:
    """Writes `<disk>.raw` for each disk; a file has its name only when it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    chunks = Chunks(vault, manifest)
    written = []
    for disk in manifest.disks:
        target = folder / f"{disk.name}.raw"
        if target.exists():
            raise VaultError(f"{target}: exists already; name another folder")
        unfinished = folder / f"{disk.name}.raw.unfinished"
        try:
            with unfinished.open("wb") as file:
                file.truncate(disk.size_bytes)
                for offset, data in DiskReader(vault, chunks, disk).chunks():
                    _write_sparse(file, offset, data)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(target)
        finally:
            unfinished.unlink(missing_ok=True)
        written.append(target)
    return written


def _write_sparse(file: BinaryIO, offset: int, data: bytes) -> None:
    """Leaves out blocks of zeros: the file is new and reads as zeros there."""
    empty = bytes(BLOCK_BYTES)
    for at in range(0, len(data), BLOCK_BYTES):
        block = data[at : at + BLOCK_BYTES]
        if block != empty[: len(block)]:
            file.seek(offset + at)
            file.write(block)
