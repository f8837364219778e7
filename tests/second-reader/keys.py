"""Hashes, HPKE and the recovery kit: sections 1 and 4 of the vault format."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

import strict_json as sj
from findings import Damaged, Unknown, VaultError

# The format gives no limits for Argon2id; these keep a hostile kit from taking the machine.
ARGON2_MOST_KIB = 4 * 1024 * 1024
ARGON2_MOST_KIB_OF_PASSES = 32 * 1024 * 1024
ARGON2_MOST_PARALLELISM = 64


def digest(*pieces: bytes) -> bytes:
    hasher = blake3()
    for piece in pieces:
        hasher.update(piece)
    return hasher.digest()


def mac(key: bytes, *pieces: bytes) -> bytes:
    hasher = blake3(key=key)
    for piece in pieces:
        hasher.update(piece)
    return hasher.digest()


def kdf(context: str, key: bytes) -> bytes:
    return blake3(key, derive_key_context=context).digest()


def signature_holds(public_key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


# --- HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305 -------------------------

_KEM_SUITE = b"KEM" + bytes([0x00, 0x20])
_HPKE_SUITE = b"HPKE" + bytes([0x00, 0x20, 0x00, 0x01, 0x00, 0x03])


def _extract(suite: bytes, salt: bytes, label: bytes, key_material: bytes) -> bytes:
    return hmac.digest(salt, b"HPKE-v1" + suite + label + key_material, hashlib.sha256)


def _expand(suite: bytes, secret: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labeled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    assert length <= 32  # one round of HKDF-Expand is all that this suite needs
    return hmac.digest(secret, labeled + b"\x01", hashlib.sha256)[:length]


def hpke_key_and_nonce(private_key: bytes, enc: bytes, info: bytes) -> tuple[bytes, bytes]:
    private = X25519PrivateKey.from_private_bytes(private_key)
    shared_point = private.exchange(X25519PublicKey.from_public_bytes(enc))  # ValueError if all zero
    context = enc + private.public_key().public_bytes_raw()
    shared = _expand(_KEM_SUITE, _extract(_KEM_SUITE, b"", b"eae_prk", shared_point), b"shared_secret", context, 32)
    schedule = (
        b"\x00" + _extract(_HPKE_SUITE, b"", b"psk_id_hash", b"") + _extract(_HPKE_SUITE, b"", b"info_hash", info)
    )
    secret = _extract(_HPKE_SUITE, shared, b"secret", b"")
    return _expand(_HPKE_SUITE, secret, b"key", schedule, 32), _expand(_HPKE_SUITE, secret, b"base_nonce", schedule, 12)


def hpke_open(private_key: bytes, sealed: bytes, info: bytes, what: str, aad: bytes = b"") -> bytes:
    try:
        key, nonce = hpke_key_and_nonce(private_key, sealed[:32], info)
        return ChaCha20Poly1305(key).decrypt(nonce, sealed[32:], aad)
    except (InvalidTag, ValueError):
        raise Damaged(f"{what}: not sealed to this recovery key, or damaged") from None


# --- the recovery kit ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kit:
    vault_id: bytes
    vault_text: bytes | None  # vault/0000000001.json, if the kit carries it
    recovery_key: bytes
    control_seed: bytes

    @property
    def recovery_public(self) -> bytes:
        return X25519PrivateKey.from_private_bytes(self.recovery_key).public_key().public_bytes_raw()

    @property
    def control_public(self) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.control_seed).public_key().public_bytes_raw()


def passphrase_from(raw: bytes) -> bytes:
    """A passphrase file's content without its final line break."""
    if raw.endswith(b"\n"):
        raw = raw[:-1].removesuffix(b"\r")
    return raw


def open_kit(raw: bytes, passphrase: bytes) -> Kit:
    what = "recovery kit"
    kit = sj.parse(raw, what)
    if kit.get("kind") != "sparesite recovery kit":
        raise Unknown(f"{what}: kind {kit.get('kind')!r} is not a recovery kit")
    if sj.number(kit, "format", what) != 1:
        raise Unknown(f"{what}: format {kit['format']} is not known to this reader")
    vault_id = sj.hex_field(kit, "vault_id", what, 32)
    wrapped = sj.hex_field(kit, "wrapped", what, 80)
    argon2 = sj.field(kit, "argon2id", dict, what)
    sj.hex_field(argon2, "salt", what)
    costs = [str(sj.number(argon2, cost, what)) for cost in ("memory_kib", "iterations", "parallelism")]
    texts = (sj.field(kit, "vault_url", str, what), kit["vault_id"], *costs, argon2["salt"], kit["wrapped"])
    if digest("\0".join(texts).encode()) != sj.hex_field(kit, "checksum", what, 32):
        raise Damaged(f"{what}: the checksum does not hold; the kit is damaged (look for a mistyped digit)")
    opened = _unwrap(argon2, vault_id, wrapped, passphrase, what)
    vault_text = kit.get("vault")
    if vault_text is not None and not isinstance(vault_text, str):
        raise Damaged(f"{what}: `vault` is neither text nor null")
    return Kit(vault_id, None if vault_text is None else vault_text.encode(), opened[:32], opened[32:])


def _unwrap(argon2: dict[str, object], vault_id: bytes, wrapped: bytes, passphrase: bytes, what: str) -> bytes:
    memory = sj.number(argon2, "memory_kib", what, ARGON2_MOST_KIB)
    passes = sj.number(argon2, "iterations", what)
    if memory * passes > ARGON2_MOST_KIB_OF_PASSES:
        raise Damaged(f"{what}: {passes} passes over {memory} KiB are more than this reader spends on a kit")
    try:
        key = hash_secret_raw(
            secret=passphrase,
            salt=sj.hex_field(argon2, "salt", what),
            time_cost=passes,
            memory_cost=memory,
            parallelism=sj.number(argon2, "parallelism", what, ARGON2_MOST_PARALLELISM),
            hash_len=32,
            type=Type.ID,
            version=0x13,
        )
    except Damaged:
        raise
    except Exception as error:  # argon2-cffi has an exception class for each bad parameter
        raise Damaged(f"{what}: Argon2id with these parameters fails: {error}") from None
    try:
        return AESGCM(key).decrypt(bytes(12), wrapped, b"sparesite/1 recovery kit\0" + vault_id)
    except InvalidTag:
        raise VaultError(f"{what}: the passphrase is wrong") from None
