"""What the signed JSON objects say: section 3. The vault's numbers (keys, sizes) and the control log."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import strict_json as sj
from findings import Damaged, Findings, Unknown, VaultError
from keys import Kit, digest, hpke_open, kdf, mac, signature_holds
from store import Store, match_name

SIGNED_JSON_MOST = 16 << 20
BLOCK_BYTES = 4096


@dataclass(frozen=True)
class SignedJson:
    name: str
    payload: dict[str, Any]
    payload_text: bytes
    signer: str
    certificate: bytes | None  # public key (32) ‖ certificate (64)
    signature: bytes

    @staticmethod
    def parse(name: str, raw: bytes) -> SignedJson:
        outer = sj.parse(raw, name)
        payload, signer = sj.field(outer, "payload", str, name), sj.field(outer, "signer", str, name)
        signature = sj.hex_field(outer, "signature", name, 64)
        payload_text, signer_text = payload.encode(), signer.encode()
        certificate_text = sj.field(outer, "certificate", str, name).encode() if "certificate" in outer else b""
        checked = (payload_text, b"\0", signer_text, b"\0", certificate_text, b"\0", signature)
        if digest(*checked) != sj.hex_field(outer, "checksum", name, 32):
            raise Damaged(f"{name}: the checksum does not hold")
        if ("certificate" in outer) != (signer != "control"):
            raise Damaged(f"{name}: a certificate is there exactly when the signer is a writer")
        certificate = sj.hex_field(outer, "certificate", name, 96) if "certificate" in outer else None
        return SignedJson(name, sj.parse(payload, f"{name}, payload"), payload_text, signer, certificate, signature)

    def holds(self, vault_id: bytes, public_key: bytes) -> bool:
        start = b"sparesite/1 signed json\0" + vault_id + self.name.encode() + b"\0"
        return signature_holds(public_key, self.signature, start + self.payload_text)


@dataclass
class Revocation:
    entry: int
    trusted: dict[str, tuple[int, int]]  # <vm> → the last (epoch, sequence) that is trusted


@dataclass
class Fence:
    entry: int
    last: tuple[int, int] | None  # the VM's newest (epoch, sequence) that it follows on
    until: int | None = None  # the entry that took it away

    def was_known_at(self, log: int) -> bool:
        return self.entry <= log and (self.until is None or log < self.until)


@dataclass
class Vault:
    """Everything a reader must know before it opens a metadata object."""

    store: Store
    findings: Findings
    vault_id: bytes
    recovery_key: bytes
    chunk_bytes: int
    id_key: bytes
    metadata_keys: dict[int, bytes]
    control_keys: list[bytes]  # of every vault number, oldest first
    log_length: int = 0
    revoked: dict[str, list[Revocation]] = field(default_factory=dict)
    epochs: dict[int, str] = field(default_factory=dict)  # epoch → the writer that took it
    damaged: set[str] = field(default_factory=set)
    fences: dict[str, list[Fence]] = field(default_factory=dict)  # by <vm>, in their order

    def vm_id(self, vm: str) -> str:
        return mac(kdf("sparesite/1 vm name", self.id_key), vm.encode())[:16].hex()

    def certified(self, writer: bytes, public_key: bytes, certificate: bytes) -> bool:
        message = b"sparesite/1 writer certificate\0" + self.vault_id + writer + public_key
        return any(signature_holds(key, certificate, message) for key in self.control_keys)

    def metadata_key(self, number: int, what: str) -> bytes:
        if number not in self.metadata_keys:
            raise Unknown(f"{what}: metadata key {number} is not in the vault's list")
        return self.metadata_keys[number]

    def standing_fence(self, vm_id: str) -> Fence | None:
        fences = self.fences.get(vm_id, [])
        return fences[-1] if fences and fences[-1].until is None else None

    def diverged(self, vm_id: str, point: tuple[int, int], marked: int | None, log: int) -> int | None:
        """The entry of the fence for which a point is set aside, or None."""
        if marked is not None:
            return marked
        for fence in self.fences.get(vm_id, []):
            if fence.was_known_at(log):
                return fence.entry
        standing = self.standing_fence(vm_id)
        if standing and standing.last and point > standing.last:
            return standing.entry
        return None

    def mistrust(self, writer: str, vm_id: str, epoch: int, sequence: int) -> str | None:
        """Why a point is not to be trusted, or None."""
        for revocation in self.revoked.get(writer, []):
            last = revocation.trusted.get(vm_id)
            if last is None or (epoch, sequence) > last:
                return f"its writer {writer} was revoked by control log entry {revocation.entry}"
        return None


def open_vault(store: Store, kit: Kit, findings: Findings) -> Vault:
    objects = _vault_numbers(store, kit, findings)
    last, what = objects[-1].payload, objects[-1].name
    if sj.hex_field(last, "recovery_key", what, 32) != kit.recovery_public:
        raise VaultError(f"{what} names another recovery key than the kit holds: take the vault's newest kit")
    if sj.hex_field(last, "control_key", what, 32) != kit.control_public:
        raise VaultError(f"{what} names another control key than the kit holds: take the vault's newest kit")
    id_keys, metadata_keys = _open_keys(last, what, kit)
    if list(id_keys) != [1] or not metadata_keys:
        raise Damaged(f"{what}: there must be one id key, of number 1, and at least one metadata key")
    control_keys = [sj.hex_field(signed.payload, "control_key", signed.name, 32) for signed in objects]
    vault = Vault(
        store, findings, kit.vault_id, kit.recovery_key, last["chunk_bytes"], id_keys[1], metadata_keys, control_keys
    )
    _read_log(vault)
    return vault


def _vault_numbers(store: Store, kit: Kit, findings: Findings) -> list[SignedJson]:
    there = [int(match[1]) for match in store.names("vault")]
    first = "vault/0000000001.json"
    raw = store.read(first, SIGNED_JSON_MOST) if 1 in there else b""
    if digest(raw) != kit.vault_id:
        if kit.vault_text is None or digest(kit.vault_text) != kit.vault_id:
            raise Damaged(f"{first}: missing, damaged, or of another vault than the kit's")
        findings.add(f"{first} is missing, damaged or of another vault; taken from the kit")
        raw = kit.vault_text
    if max([1, *there]) != len(set(there) | {1}):
        raise Damaged(f"vault/: numbers {sorted(there)} have a gap; the newest cannot be reached")
    found: list[SignedJson] = []
    for number in range(1, max([1, *there]) + 1):
        name = f"vault/{number:010}.json"
        previous = None if number == 1 else digest(raw).hex()
        raw = raw if number == 1 else store.read(name, SIGNED_JSON_MOST)
        signed = SignedJson.parse(name, raw)
        _check_vault_number(signed, number, previous, found[-1].payload if found else signed.payload)
        found.append(signed)
    return found


def _check_vault_number(signed: SignedJson, number: int, previous: str | None, before: dict[str, Any]) -> None:
    payload, name = signed.payload, signed.name
    if sj.number(payload, "format", name) != 1:
        raise Unknown(f"{name}: vault format {payload['format']} is not known to this reader")
    if features := sj.texts(payload, "required_features", name):
        raise Unknown(f"{name}: required features not known to this reader: {', '.join(features)}")
    if sj.number(payload, "number", name) != number or payload.get("previous", "") != previous:
        raise Damaged(f"{name}: does not follow on the number before it")
    control_key = sj.hex_field(before, "control_key", name, 32)
    if signed.signer != "control" or not signed.holds(bytes(32), control_key):
        raise Damaged(f"{name}: the control key's signature does not hold")
    if sj.number(payload, "block_bytes", name) != BLOCK_BYTES:
        raise Unknown(f"{name}: blocks of {payload['block_bytes']} bytes are not known to this reader")
    chunk_bytes = sj.number(payload, "chunk_bytes", name)
    if not 64 << 10 <= chunk_bytes <= 4 << 20 or chunk_bytes & (chunk_bytes - 1):
        raise Unknown(f"{name}: chunks of {chunk_bytes} bytes are not known to this reader")
    if chunk_bytes != before["chunk_bytes"]:
        raise Damaged(f"{name}: the chunk size changes from {before['chunk_bytes']} to {chunk_bytes}")


def _open_keys(payload: dict[str, Any], what: str, kit: Kit) -> tuple[dict[int, bytes], dict[int, bytes]]:
    nonce = sj.hex_field(payload, "nonce", what, 16)
    opened: dict[str, dict[int, bytes]] = {"id": {}, "metadata": {}}
    for item in sj.objects(payload, "keys", what):
        kind, number = sj.field(item, "kind", str, what), sj.number(item, "number", what, 2**32 - 1)
        if kind not in opened:
            raise Unknown(f"{what}: a key of kind {kind!r} is not known to this reader")
        if number == 0 or number in opened[kind]:
            raise Damaged(f"{what}: {kind} key {number} is listed twice or is number 0")
        info = b"sparesite/1 shared key\0" + kind.encode() + struct.pack("<I", number) + nonce
        sealed = sj.hex_field(item, "sealed", what, 80)
        opened[kind][number] = hpke_open(kit.recovery_key, sealed, info, f"{what}, {kind} key {number}")
    return opened["id"], opened["metadata"]


# --- the control log -------------------------------------------------------------------------------------------------


def _read_log(vault: Vault) -> None:
    there = {int(match[1]) for match in vault.store.names("control/log")}
    before: bytes | None = vault.vault_id
    vault.log_length = max(there, default=0)
    for number in range(1, vault.log_length + 1):
        name = f"control/log/{number:010}"
        if number not in there:
            vault.findings.add(f"{name}: missing, though later entries exist: a revocation may be lost")
            before = None
            continue
        raw = vault.store.read(name, SIGNED_JSON_MOST)
        try:
            _heed(vault, SignedJson.parse(name, raw), number, before)
            before = digest(raw)
        except Damaged as error:
            vault.findings.add(f"void log entry: {error}")
            before = None


def _heed(vault: Vault, signed: SignedJson, number: int, previous: bytes | None) -> None:
    name = signed.name
    if not _signer_holds(vault, signed):
        raise Damaged(f"{name}: the signature of {signed.signer} does not hold")
    # Behind a missing or void entry the chain begins anew: nobody can know what it should follow on.
    follows = previous is None or signed.payload.get("previous") == previous.hex()
    if sj.number(signed.payload, "number", name) != number or not follows:
        raise Damaged(f"{name}: does not follow on the entry before it")
    critical = sj.field(signed.payload, "critical", bool, name)
    entry = sj.field(signed.payload, "entry", dict, name)
    kind = sj.field(entry, "kind", str, name)
    if kind in ("writer", "revoke", "fence", "unfence", "damage", "proof") and signed.signer != "control":
        raise Damaged(f"{name}: {kind!r} is the control key's right, not {signed.signer}'s")
    if kind == "epoch":
        if sj.field(entry, "writer", str, name) != signed.signer:
            raise Damaged(f"{name}: {signed.signer} takes an epoch for another writer")
        vault.epochs[number] = signed.signer
    elif kind == "revoke":
        _revoke(vault, entry, number, name)
    elif kind == "damage":
        for damaged in sj.texts(entry, "objects", name):
            vault.damaged.add(damaged)
            vault.findings.add(f"{damaged} is lost or damaged, says {name}")
    elif kind in ("fence", "unfence"):
        _fence(vault, entry, number, name)
    elif kind not in ("writer", "proof") and critical:
        # Also the kinds that the format reserves: it gives them no meaning yet.
        raise Unknown(f"{name}: a critical entry of kind {kind!r} is not known to this reader")


def _signer_holds(vault: Vault, signed: SignedJson) -> bool:
    if signed.signer == "control":
        return any(signed.holds(vault.vault_id, key) for key in vault.control_keys)
    assert signed.certificate is not None
    public_key, certificate = signed.certificate[:32], signed.certificate[32:]
    writer = sj.hex_field({"signer": signed.signer}, "signer", signed.name, 16)
    return vault.certified(writer, public_key, certificate) and signed.holds(vault.vault_id, public_key)


def _fence(vault: Vault, entry: dict[str, Any], number: int, name: str) -> None:
    for vm_id in sj.texts(entry, "vms", name):
        standing = vault.standing_fence(vm_id)
        if entry["kind"] == "unfence":
            if standing:
                standing.until = number
        elif not standing:
            last = sj.field(entry, "last", dict, name).get(vm_id) if "last" in entry else None
            vault.fences.setdefault(vm_id, []).append(Fence(number, _followed(vm_id, last)))


def _followed(vm_id: str, last: Any) -> tuple[int, int] | None:
    try:
        match = match_name(f"points/{vm_id}/{last}")
    except Damaged:  # absent, or no point's number: it says nothing
        return None
    return int(match[2]), int(match[3])


def _revoke(vault: Vault, entry: dict[str, Any], number: int, name: str) -> None:
    trusted = {}
    try:
        for vm_id, last in sj.field(entry, "trusted", dict, name).items():
            match = match_name(f"points/{vm_id}/{last}")
            trusted[vm_id] = (int(match[2]), int(match[3]))
        writer = sj.hex_field(entry, "writer", name, 16).hex()
    except Damaged as error:  # a revocation that holds but is not understood must not be passed over
        raise VaultError(str(error)) from None
    vault.revoked.setdefault(writer, []).append(Revocation(number, trusted))
