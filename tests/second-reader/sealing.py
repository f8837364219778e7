"""Opening what is sealed under a symmetric key, and undoing the codec: section 5 of the vault format."""

from __future__ import annotations

import struct

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from findings import Damaged, Unknown
from keys import kdf, mac

SEALED_EXTRA = 24 + 16
PART_EXTRA = 8 + SEALED_EXTRA
PART_MOST_PLAIN = 16 << 20


def open_sealed(key: bytes, associated: bytes, sealed: bytes, what: str) -> bytes:
    """`s ‖ C ‖ T` → the coded payload."""
    if len(sealed) < SEALED_EXTRA:
        raise Damaged(f"{what}: too short to be sealed")
    synthetic, ciphertext = sealed[:24], sealed[24:]
    try:
        coded = AESGCM(mac(kdf("sparesite/1 sealing key", key), synthetic)).decrypt(bytes(12), ciphertext, associated)
    except InvalidTag:
        raise Damaged(f"{what}: cannot be opened: damaged, of another vault, or moved from its place") from None
    # AES-GCM does not commit to its key; the synthetic value does.
    length = struct.pack("<Q", len(associated))
    if mac(kdf("sparesite/1 synthetic value", key), length, associated, coded)[:24] != synthetic:
        raise Damaged(f"{what}: the synthetic value does not belong to the content")
    return coded


def decode(codec: int, coded: bytes, plain_length: int, what: str) -> bytes:
    if codec == 0:
        plain = coded
    elif codec == 1:
        plain = _decode_zstd(coded, plain_length, what)
    else:
        raise Unknown(f"{what}: codec {codec} is not known to this reader")
    if len(plain) != plain_length:
        raise Damaged(f"{what}: {len(plain)} bytes, {plain_length} were announced")
    return plain


def _decode_zstd(coded: bytes, plain_length: int, what: str) -> bytes:
    """One frame and nothing behind it; never more output than announced, whatever the frame claims."""
    try:
        if zstandard.get_frame_parameters(coded).dict_id != 0:
            raise Damaged(f"{what}: the zstd frame asks for a dictionary")
        if _zstd_frame_length(coded) != len(coded):
            raise Damaged(f"{what}: not exactly one zstd frame")
        return zstandard.ZstdDecompressor().stream_reader(coded).read(plain_length + 1)
    except (zstandard.ZstdError, ValueError) as error:
        raise Damaged(f"{what}: zstd: {error}") from None


def _zstd_frame_length(coded: bytes) -> int:
    """Walks the block headers (RFC 8878, 3.1.1), since the library stops at a frame's end without a word."""
    at = zstandard.frame_header_size(coded)
    last = False
    while not last:
        if at + 3 > len(coded):
            return -1
        header = int.from_bytes(coded[at : at + 3], "little")
        last, run = bool(header & 1), (header >> 1) & 3 == 1
        at += 3 + (1 if run else header >> 3)
    return at + (4 if zstandard.get_frame_parameters(coded).has_checksum else 0)


def part_associated(
    vault_id: bytes, kind: int, number: int, codec: int, plain_length: int, writer: bytes, name: str
) -> bytes:
    return vault_id + struct.pack("<BIBI", kind, number, codec, plain_length) + writer + name.encode()


def open_part(
    key: bytes, part: bytes, *, vault_id: bytes, kind: int, number: int, writer: bytes, name: str, most_plain: int
) -> bytes:
    """A sealed part of a metadata object (section 7) → its plaintext."""
    what = f"{name}, part {'root' if number == 0xFFFFFFFF else number}"
    if len(part) < PART_EXTRA:
        raise Damaged(f"{what}: too short")
    codec, reserved, plain_length = struct.unpack_from("<B3sI", part)
    if reserved != bytes(3):
        raise Unknown(f"{what}: a reserved byte is not zero")
    if codec > 1:
        raise Unknown(f"{what}: codec {codec} is not known to this reader")
    if plain_length > most_plain:
        raise Damaged(f"{what}: {plain_length} bytes announced, at most {most_plain} are allowed")
    associated = part_associated(vault_id, kind, number, codec, plain_length, writer, name)
    return decode(codec, open_sealed(key, associated, part[8:], what), plain_length, what)
