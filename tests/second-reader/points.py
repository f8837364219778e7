"""Recovery points and their manifests: section 10 of the vault format."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import strict_json as sj
from entries import EntryTable, PackRef
from findings import Damaged, Unknown, VaultError
from layers import RunTable
from metadata import MANIFEST, MetadataObject, open_metadata
from store import match_name
from vault import Vault

DISK_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
CONSISTENCIES = ("none", "crash", "file-system", "application")


@dataclass(frozen=True)
class LayerRef:
    name: str | None  # of the object; None for an inline layer
    size: int
    inline: RunTable | None


@dataclass(frozen=True)
class Disk:
    name: str
    size_bytes: int
    excluded: bool
    layers: list[LayerRef]


@dataclass(frozen=True)
class Manifest:
    obj: MetadataObject
    vm: str
    vm_id: str
    epoch: int
    sequence: int
    captured_at: str
    consistency: str
    disks: list[Disk]
    packs: list[PackRef]
    entries: EntryTable
    unindexed: list[tuple[str, list[bytes]]]
    mistrust: str | None
    diverged: int | None  # the log's entry of the fence that it is set aside for

    @property
    def name(self) -> str:
        return self.obj.name


def open_manifest(vault: Vault, name: str) -> Manifest:
    obj = open_metadata(vault, name, MANIFEST)
    root, what, match = obj.root, obj.what, match_name(name)
    if obj.rows:
        raise Damaged(f"{what}: a manifest has no parts")
    vm, vm_id = sj.field(root, "vm", str, what), sj.field(root, "vm_id", str, what)
    epoch, sequence = sj.number(root, "epoch", what), sj.number(root, "sequence", what)
    if (vm_id, epoch, sequence) != (match[1], int(match[2]), int(match[3])) or vault.vm_id(vm) != vm_id:
        raise Damaged(f"{what}: is of VM {vm!r}, epoch {epoch}, sequence {sequence}: not as in its name")
    consistency = sj.field(root, "consistency", str, what)
    if consistency not in CONSISTENCIES:
        raise Unknown(f"{what}: consistency {consistency!r} is not known to this reader")
    packs = [
        PackRef(sj.hex_field(pack, "name", what, 32), sj.number(pack, "size", what))
        for pack in sj.objects(root, "packs", what)
    ]
    offset, length = sj.section(root.get("entries"), len(obj.binary), f"{what}, `entries`")
    entries = EntryTable(obj.binary[offset : offset + length], packs, f"{what}, entries")
    disks = [_disk(disk, obj) for disk in sj.objects(root, "disks", what)]
    if len({disk.name for disk in disks}) != len(disks):
        raise Damaged(f"{what}: two disks have one name")
    mistrust = vault.mistrust(obj.writer.hex(), vm_id, epoch, sequence)
    captured_at = sj.field(root, "captured_at", str, what)
    marked = sj.number(root, "diverged", what) if root.get("diverged") is not None else None
    diverged = vault.diverged(vm_id, (epoch, sequence), marked, sj.number(root, "log", what))
    unindexed = _unindexed(obj)
    _check_surroundings(vault, obj, epoch)
    return Manifest(
        obj, vm, vm_id, epoch, sequence, captured_at, consistency, disks, packs, entries, unindexed, mistrust, diverged
    )


def _disk(disk: dict[str, Any], obj: MetadataObject) -> Disk:
    what = obj.what
    name = sj.field(disk, "name", str, what)
    if not DISK_NAME.fullmatch(name):
        raise Damaged(f"{what}: a disk's name {name!r} is not fit for a file")
    layers = []
    for layer in sj.objects(disk, "layers", what):
        if layer.keys() == {"inline"}:
            offset, length = sj.section(layer["inline"], len(obj.binary), f"{what}, disk {name}")
            runs = RunTable(obj.binary[offset : offset + length], f"{what}, disk {name}, inline layer")
            layers.append(LayerRef(None, length, runs))
        elif layer.keys() == {"object", "size"}:
            layers.append(LayerRef(sj.field(layer, "object", str, what), sj.number(layer, "size", what), None))
        else:
            raise Unknown(f"{what}, disk {name}: a layer of {sorted(layer)} is not known to this reader")
    excluded = sj.field(disk, "excluded", bool, what)
    if excluded and layers:
        raise Damaged(f"{what}: the excluded disk {name} has layers")
    return Disk(name, sj.number(disk, "size_bytes", what, 2**63 - 1), excluded, layers)


def _unindexed(obj: MetadataObject) -> list[tuple[str, list[bytes]]]:
    found = []
    for item in sj.objects(obj.root, "unindexed", obj.what):
        packs = [sj.hex_field({"packs": pack}, "packs", obj.what, 32) for pack in sj.texts(item, "packs", obj.what)]
        found.append((sj.field(item, "object", str, obj.what), packs))
    return found


def _check_surroundings(vault: Vault, obj: MetadataObject, epoch: int) -> None:
    """What the manifest says of the vault around it. The point itself may hold all the same."""
    if vault.epochs.get(epoch) != obj.writer.hex():
        vault.findings.add(f"{obj.name}: the control log does not say that its writer took epoch {epoch}")
    if sj.number(obj.root, "log", obj.what) > vault.log_length:
        vault.findings.add(f"control log: {obj.name} knew entry {obj.root['log']}; the log's end is lost")
    if obj.name in vault.damaged:
        vault.findings.add(f"{obj.name}: the control log calls it damaged, but it holds")
    previous = obj.root.get("previous")
    if previous is not None and not isinstance(previous, dict):
        raise Damaged(f"{obj.what}: `previous` is neither null nor an object")
    named = [] if previous is None else [(sj.field(previous, "object", str, obj.what), previous)]
    for item in sj.objects(obj.root, "newest", obj.what):
        at = f"{sj.number(item, 'epoch', obj.what):010}-{sj.number(item, 'sequence', obj.what):010}"
        named.append((f"points/{sj.field(item, 'vm_id', str, obj.what)}/{at}", item))
    for name, item in named:
        expected = sj.hex_field(item, "hash", obj.what, 32)
        if vault.store.has(name) and _object_hash(vault, name) != expected:
            vault.findings.add(f"{name}: not the object that {obj.name} knew under this name")


def _object_hash(vault: Vault, name: str) -> bytes:
    with vault.store.open(name) as opened:
        return opened.digest(opened.size)


def read_points(vault: Vault, vm_id: str | None = None) -> Iterator[Manifest]:
    """The points of a VM, or of all, newest first. One that does not hold does not exist, and is reported."""
    names = [match[0] for match in vault.store.names("points" if vm_id is None else f"points/{vm_id}")]
    for name in sorted(names, key=lambda name: (name[:39], [-int(n) for n in name[40:].split("-")])):
        try:
            yield open_manifest(vault, name)
        except Damaged as error:
            vault.findings.add(f"no recovery point: {error}")


def choose_point(vault: Vault, vm: str, sequence: int | None) -> Manifest:
    """The newest trusted point that is not diverged, or the one of a sequence number."""
    candidates: list[Manifest] = []
    for manifest in read_points(vault, vault.vm_id(vm)):
        if sequence not in (None, manifest.sequence):
            continue
        if manifest.mistrust:
            vault.findings.add(f"{manifest.name}: not trusted: {manifest.mistrust}")
            continue
        if sequence is None:
            if manifest.diverged is not None:
                continue
            return manifest
        candidates.append(manifest)
    wanted = vm if sequence is None else f"{vm}@{sequence}"
    if not candidates:
        raise VaultError(f"{wanted}: there is no such recovery point that holds and is trusted")
    if len(candidates) > 1:
        raise VaultError(f"{wanted}: several points have this number: {', '.join(m.name for m in candidates)}")
    return candidates[0]
