"""What is signed: the control log and one metadata object, each made by hand here, and each way to refuse them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from findings import Damaged, Findings, Unknown, VaultError
from keys import Kit
from metadata import LAYER, SEGMENT, open_metadata
from store import Store
from vault import Vault, _read_log, open_vault

CONTROL = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
GATEWAY = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)
WRITER, VAULT_ID, METADATA_KEY = b"w" * 16, b"v" * 32, b"m" * 32
VM = "ab" * 16


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def certificate(by: Ed25519PrivateKey = CONTROL) -> bytes:
    return by.sign(b"sparesite/1 writer certificate\x00" + VAULT_ID + WRITER + public(GATEWAY))


def vault_at(folder: Path) -> Vault:
    findings = Findings()
    control_keys = [public(CONTROL)]
    return Vault(Store(folder, findings), findings, VAULT_ID, b"", 262144, b"i" * 32, {1: METADATA_KEY}, control_keys)


class Log:
    """Writes entries one behind the other; each can be spoiled."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number, self.previous = folder, 0, VAULT_ID
        (folder / "control/log").mkdir(parents=True)

    def add(
        self, entry: dict[str, Any], *, by_gateway: bool = False, critical: bool = True,
        signed_by: Ed25519PrivateKey | None = None, certified_by: Ed25519PrivateKey = CONTROL,
        previous: str | None = None,
    ) -> None:  # fmt: skip
        self.number += 1
        name = f"control/log/{self.number:010}"
        before = self.previous.hex() if previous is None else previous
        inner = {"number": self.number, "previous": before, "time": "", "critical": critical, "entry": entry}
        payload, signer = json.dumps(inner), WRITER.hex() if by_gateway else "control"
        key = signed_by or (GATEWAY if by_gateway else CONTROL)
        signature = key.sign(b"sparesite/1 signed json\x00" + VAULT_ID + name.encode() + b"\x00" + payload.encode())
        shown = (public(GATEWAY) + certificate(certified_by)).hex() if by_gateway else ""
        checked = b"\0".join([payload.encode(), signer.encode(), shown.encode(), signature])
        outer = {"payload": payload, "signer": signer, "signature": signature.hex(), "checksum": blake3(checked).hexdigest()}
        if by_gateway:
            outer["certificate"] = shown
        raw = json.dumps(outer).encode()
        (self.folder / name).write_bytes(raw)
        self.previous = blake3(raw).digest()

    def read(self) -> Vault:
        vault = vault_at(self.folder)
        _read_log(vault)
        return vault


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


EPOCH = {"kind": "epoch", "writer": WRITER.hex()}
REVOKE = {"kind": "revoke", "writer": WRITER.hex(), "trusted": {VM: "0000000001-0000000007"}}


def test_log_tells_epochs_damage_and_revocations(log: Log) -> None:
    log.add(EPOCH, by_gateway=True)
    log.add({"kind": "damage", "objects": ["packs/aa/x"]})
    log.add(REVOKE)
    vault = log.read()
    assert vault.epochs == {1: WRITER.hex()} and vault.damaged == {"packs/aa/x"}
    assert vault.mistrust(WRITER.hex(), VM, 1, 7) is None
    assert vault.mistrust(WRITER.hex(), VM, 1, 8) is not None
    assert vault.mistrust(WRITER.hex(), VM, 2, 1) is not None
    assert vault.mistrust(WRITER.hex(), "cd" * 16, 1, 1) is not None
    assert vault.mistrust("ff" * 16, VM, 9, 9) is None


@pytest.mark.parametrize(
    "spoil",
    [
        {"signed_by": GATEWAY},
        {"previous": "00" * 32},
        {"by_gateway": True},
        {"by_gateway": True, "certified_by": GATEWAY},
    ],
)
def test_void_entries_say_nothing_and_are_reported(log: Log, spoil: dict[str, Any]) -> None:
    log.add(REVOKE, **spoil)
    log.add(EPOCH, by_gateway=True)
    vault = log.read()
    assert vault.revoked == {} and vault.epochs == {2: WRITER.hex()}
    assert [text for text in vault.findings.texts if "void" in text and "0000000001" in text]


def test_a_point_is_set_aside_by_its_mark_by_what_it_knew_or_by_its_place(log: Log) -> None:
    log.add(EPOCH, by_gateway=True)
    log.add({"kind": "fence", "vms": [VM], "run": "4f2a", "last": {VM: "0000000001-0000000007"}})
    vault = log.read()
    assert vault.diverged(VM, (1, 7), None, 1) is None
    assert vault.diverged(VM, (1, 8), None, 1) == 2  # by a gateway that had not heard of it
    assert vault.diverged(VM, (1, 7), None, 2) == 2  # by one that had
    assert vault.diverged(VM, (1, 7), 9, 1) == 9
    assert vault.diverged("cd" * 16, (9, 9), None, 9) is None
    log.add({"kind": "fence", "vms": [VM], "last": {VM: "?"}})  # of another run: the first one holds
    log.add({"kind": "unfence", "vms": [VM]})
    vault = log.read()
    assert vault.diverged(VM, (1, 8), None, 1) is None
    assert vault.diverged(VM, (1, 8), None, 3) == 2
    assert vault.diverged(VM, (1, 9), None, 4) is None
    assert vault.diverged(VM, (1, 8), 2, 4) == 2
    log.add({"kind": "fence", "vms": [VM], "last": {VM: "?"}})
    vault = log.read()
    assert vault.diverged(VM, (1, 9), None, 4) is None and vault.diverged(VM, (1, 9), None, 5) == 5


def test_a_writer_takes_no_epoch_for_another(log: Log) -> None:
    log.add({"kind": "epoch", "writer": "ff" * 16}, by_gateway=True)
    vault = log.read()
    assert vault.epochs == {} and any("another writer" in text for text in vault.findings.texts)


def test_unknown_kinds_are_refused_only_if_critical(log: Log) -> None:
    log.add({"kind": "moon"}, critical=False)
    assert log.read().findings.texts == {}
    log.add({"kind": "moon"})
    with pytest.raises(Unknown, match="moon"):
        log.read()


PROOF = {
    "kind": "proof", "vm": VM, "point": "0000000001-0000000007", "level": "booted", "passed": True, "target": "qemu",
    "report": "00" * 32, "software": "s", "took_seconds": 95,
}  # fmt: skip


@pytest.mark.parametrize("more", [{}, {"level": "walked"}])
def test_a_proof_changes_nothing(log: Log, more: dict[str, Any]) -> None:
    log.add(PROOF | more, critical=False)
    log.add(EPOCH, by_gateway=True)
    vault = log.read()
    assert vault.findings.texts == {} and vault.epochs == {2: WRITER.hex()}


def test_a_writer_proves_nothing(log: Log) -> None:
    log.add(PROOF, critical=False, by_gateway=True)
    log.add(EPOCH, by_gateway=True)
    vault = log.read()
    assert [text for text in vault.findings.texts if "void" in text and "proof" in text]
    assert vault.epochs == {2: WRITER.hex()}


def test_a_revocation_that_holds_but_cannot_be_read_stops_everything(log: Log) -> None:
    log.add({"kind": "revoke", "writer": WRITER.hex(), "trusted": {VM: "7"}})
    with pytest.raises(VaultError) as caught:
        log.read()
    assert not isinstance(caught.value, Damaged)


def test_a_gap_in_the_log_is_reported(log: Log) -> None:
    for _ in range(3):
        log.add(EPOCH, by_gateway=True)
    (log.folder / "control/log/0000000002").unlink()
    vault = log.read()
    assert set(vault.epochs) == {1, 3} and any("missing" in text for text in vault.findings.texts)


def test_a_vault_of_another_id_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "vault").mkdir()
    (tmp_path / "vault/0000000001.json").write_text("{}")
    with pytest.raises(Damaged, match="another vault"):
        open_vault(Store(tmp_path, Findings()), Kit(VAULT_ID, None, b"r" * 32, b"c" * 32), Findings())


# --- a metadata object -----------------------------------------------------------------------------------------------


def sealed_part(kind: int, number: int, name: str, plain: bytes) -> bytes:
    associated = VAULT_ID + bytes([kind]) + struct.pack("<I", number) + b"\0" + struct.pack("<I", len(plain))
    associated += WRITER + name.encode()
    one = blake3(METADATA_KEY, derive_key_context="sparesite/1 synthetic value").digest()
    synthetic = blake3(len(associated).to_bytes(8, "little") + associated + plain, key=one).digest()[:24]
    two = blake3(METADATA_KEY, derive_key_context="sparesite/1 sealing key").digest()
    sealed = AESGCM(blake3(synthetic, key=two).digest()).encrypt(bytes(12), plain, associated)
    return bytes(4) + struct.pack("<I", len(plain)) + synthetic + sealed


def layer(
    plain_part: bytes, *, kind: int = 3, version: int = 1, by: Ed25519PrivateKey = CONTROL,
    announced_hash: bytes | None = None, tag: str | None = None,
) -> tuple[str, bytes]:  # fmt: skip
    prefix = f"maps/{WRITER.hex()}/"
    part = sealed_part(kind, 0, prefix, plain_part)
    text = b'{"parts": 1, "positions": 4}'
    row = bytes(32) + struct.pack("<II", len(part), 1) + (announced_hash or blake3(part).digest())
    root_plain = struct.pack("<I", len(text)) + text + row
    tag_key = blake3(METADATA_KEY, derive_key_context="sparesite/1 object tag").digest()
    name = prefix + (tag or blake3(root_plain, key=tag_key).digest()[:16].hex())
    root = sealed_part(kind, 0xFFFFFFFF, prefix, root_plain)
    header = b"SPSTMETA" + struct.pack("<HBBI", version, kind, 0, 1) + WRITER + public(GATEWAY) + certificate(by)
    proof = blake3(header + root).digest()
    message = b"sparesite/1 metadata\x00" + VAULT_ID + struct.pack("<H", len(name)) + name.encode() + proof
    body = header + part + root + struct.pack("<QI", 128 + len(part), len(root)) + GATEWAY.sign(message)
    return name, body + blake3(body).digest()


RUN = struct.pack("<QIB", 0, 4, 0)


def put(folder: Path, name: str, raw: bytes) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(raw)


def test_layer_known_answer(tmp_path: Path) -> None:
    name, raw = layer(RUN)
    put(tmp_path, name, raw)
    opened = open_metadata(vault_at(tmp_path), name, LAYER)
    assert opened.root == {"parts": 1, "positions": 4} and opened.part(0) == RUN


def test_every_flipped_byte_is_refused(tmp_path: Path) -> None:
    name, raw = layer(RUN)
    for at in range(0, len(raw), 3):
        put(tmp_path, name, raw[:at] + bytes([raw[at] ^ 0x10]) + raw[at + 1 :])
        with pytest.raises(Damaged):
            open_metadata(vault_at(tmp_path), name, LAYER)


@pytest.mark.parametrize("at", [8, 12, 40, 148, 200, 300, -140, -76, -68, -10])
def test_a_forger_who_mends_the_checksum_is_refused(tmp_path: Path, at: int) -> None:
    name, raw = layer(RUN)
    body = bytearray(raw[:-32])
    body[at] ^= 1
    put(tmp_path, name, bytes(body) + blake3(bytes(body)).digest())
    with pytest.raises((Damaged, Unknown)):
        open_metadata(vault_at(tmp_path), name, LAYER).part(0)


def test_a_part_that_the_root_does_not_know_is_refused(tmp_path: Path) -> None:
    # Sealed under the right key, for the right place: only the root's hash tells.
    name, raw = layer(RUN, announced_hash=b"h" * 32)
    put(tmp_path, name, raw)
    with pytest.raises(Damaged, match="another hash"):
        open_metadata(vault_at(tmp_path), name, LAYER).part(0)


def test_a_tag_that_is_not_the_content_s_is_refused(tmp_path: Path) -> None:
    # Signed by the writer itself, under a name of its choice.
    name, raw = layer(RUN, tag="0" * 32)
    put(tmp_path, name, raw)
    with pytest.raises(Damaged, match="has the tag"):
        open_metadata(vault_at(tmp_path), name, LAYER)


def test_another_name_certificate_kind_or_format_is_refused(tmp_path: Path) -> None:
    name, raw = layer(RUN)
    put(tmp_path, name[:-1] + "x", raw)
    other = name[:-1] + ("0" if name[-1] != "0" else "1")
    put(tmp_path, other, raw)
    for wrong in (name[:-1] + "x", other, f"maps/{'0' * 32}/{name[-32:]}", "../" + name):
        with pytest.raises(Damaged):
            open_metadata(vault_at(tmp_path), wrong, LAYER)
    put(tmp_path, *layer(RUN, by=GATEWAY))
    with pytest.raises(Damaged, match="did not certify"):
        open_metadata(vault_at(tmp_path), name, LAYER)
    with pytest.raises(Damaged, match="index/"):
        open_metadata(vault_at(tmp_path), name, SEGMENT)
    for changed in (layer(RUN, kind=5), layer(RUN, version=2)):
        put(tmp_path, *changed)
        with pytest.raises(Unknown):
            open_metadata(vault_at(tmp_path), changed[0], LAYER)
