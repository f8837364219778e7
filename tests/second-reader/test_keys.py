"""HPKE against RFC 9180, appendix A.2.1; the recovery kit against one made step by step here."""

from __future__ import annotations

import json
from typing import Any

import pytest
from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from findings import Damaged, Unknown, VaultError
from keys import hpke_key_and_nonce, hpke_open, open_kit, passphrase_from

RECEIVER = bytes.fromhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb")
ENC = bytes.fromhex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a")
INFO = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
CIPHERTEXT = bytes.fromhex("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28")


def test_hpke_key_schedule_is_the_rfc_s() -> None:
    key, nonce = hpke_key_and_nonce(RECEIVER, ENC, INFO)
    assert key.hex() == "ad2744de8e17f4ebba575b3f5f5a8fa1f69c2a07f6e7500bc60ca6e3e3ec1c91"
    assert nonce.hex() == "5c4d98150661b848853b547f"


def test_hpke_opens_the_rfc_s_first_message() -> None:
    assert hpke_open(RECEIVER, ENC + CIPHERTEXT, INFO, "vector", aad=b"Count-0") == b"Beauty is truth, truth beauty"


@pytest.mark.parametrize("sealed", [b"", ENC, bytes(80), ENC + CIPHERTEXT[:-1], ENC + bytes(1) + CIPHERTEXT[1:]])
def test_hpke_refuses_what_was_not_sealed(sealed: bytes) -> None:
    with pytest.raises(Damaged, match="vector"):
        hpke_open(RECEIVER, sealed, INFO, "vector", aad=b"Count-0")


def test_hpke_is_bound_to_its_info() -> None:
    with pytest.raises(Damaged):
        hpke_open(RECEIVER, ENC + CIPHERTEXT, INFO + b"x", "vector", aad=b"Count-0")


PASSPHRASE = "grüner wal".encode()
VAULT_ID = bytes(range(32))


def argon2(memory_kib: int, iterations: int, parallelism: int) -> dict[str, Any]:
    salt = bytes(range(16)).hex()
    return {"memory_kib": memory_kib, "iterations": iterations, "parallelism": parallelism, "salt": salt}


def kit_json() -> dict[str, Any]:
    salt = bytes(range(16))
    key = hash_secret_raw(PASSPHRASE, salt, time_cost=1, memory_cost=64, parallelism=1, hash_len=32, type=Type.ID)
    secrets = b"R" * 32 + b"C" * 32
    wrapped = AESGCM(key).encrypt(bytes(12), secrets, b"sparesite/1 recovery kit\x00" + VAULT_ID)
    kit: dict[str, Any] = {
        "kind": "sparesite recovery kit",
        "format": 1,
        "vault_url": "file:///v",
        "region": None,
        "vault_id": VAULT_ID.hex(),
        "created": "2026-01-01T00:00:00Z",
        "argon2id": argon2(64, 1, 1),
        "wrapped": wrapped.hex(),
        "vault": None,
    }
    text = f"file:///v\0{VAULT_ID.hex()}\x0064\x001\x001\0{salt.hex()}\0{wrapped.hex()}"
    return kit | {"checksum": blake3(text.encode()).hexdigest()}


def test_kit_opens() -> None:
    kit = open_kit(json.dumps(kit_json()).encode(), passphrase_from(PASSPHRASE + b"\r\n"))
    assert (kit.recovery_key, kit.control_seed, kit.vault_id) == (b"R" * 32, b"C" * 32, VAULT_ID)


def test_kit_tells_a_wrong_passphrase_from_damage() -> None:
    kit = kit_json()
    with pytest.raises(VaultError, match="passphrase is wrong"):
        open_kit(json.dumps(kit).encode(), b"other")
    kit["wrapped"] = "00" * 80
    with pytest.raises(Damaged, match="checksum"):
        open_kit(json.dumps(kit).encode(), PASSPHRASE)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"format": 2}, Unknown),
        ({"kind": "sparesite gateway key"}, Unknown),
        ({"format": True}, Damaged),
        ({"vault": 7}, Damaged),
        ({"argon2id": argon2(2**40, 1, 1)}, Damaged),
        ({"argon2id": argon2(2**22, 9, 1)}, Damaged),
        ({"argon2id": argon2(0, 0, 0)}, Damaged),
    ],
)
def test_kit_refuses(change: dict[str, Any], error: type[VaultError]) -> None:
    with pytest.raises(error):
        open_kit(json.dumps(kit_json() | change).encode(), PASSPHRASE)
