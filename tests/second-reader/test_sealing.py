"""Section 5 by hand: each step written out here again, on literal bytes, and what must not open."""

from __future__ import annotations

import struct

import pytest
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from findings import Damaged, Unknown
from sealing import decode, open_part, open_sealed

KEY = bytes(range(32))
CONTENT = b"some content, some content, some content"


def seal_by_hand(associated: bytes, payload: bytes) -> bytes:
    synthetic_key = blake3(KEY, derive_key_context="sparesite/1 synthetic value").digest()
    message = len(associated).to_bytes(8, "little") + associated + payload
    synthetic = blake3(message, key=synthetic_key).digest()[:24]
    sealing_key = blake3(KEY, derive_key_context="sparesite/1 sealing key").digest()
    key = blake3(synthetic, key=sealing_key).digest()
    return synthetic + AESGCM(key).encrypt(b"\0" * 12, payload, associated)


def test_open_known_answer() -> None:
    sealed = seal_by_hand(b"where it lies", CONTENT)
    assert len(sealed) == 24 + len(CONTENT) + 16
    assert open_sealed(KEY, b"where it lies", sealed, "x") == CONTENT


def test_every_flipped_byte_and_another_place_is_refused() -> None:
    sealed = seal_by_hand(b"a", CONTENT)
    for at in range(len(sealed)):
        with pytest.raises(Damaged):
            open_sealed(KEY, b"a", sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], "x")
    with pytest.raises(Damaged):
        open_sealed(KEY, b"b", sealed, "x")
    with pytest.raises(Damaged):
        open_sealed(KEY, b"a", sealed[:39], "x")


def test_a_synthetic_value_of_other_content_is_refused() -> None:
    # Well authenticated by AES-GCM, under a key that was derived from a free choice of s.
    synthetic = b"z" * 24
    key = blake3(synthetic, key=blake3(KEY, derive_key_context="sparesite/1 sealing key").digest()).digest()
    with pytest.raises(Damaged, match="synthetic"):
        open_sealed(KEY, b"a", synthetic + AESGCM(key).encrypt(bytes(12), CONTENT, b"a"), "x")


def test_zstd_is_exactly_one_frame_of_the_announced_length() -> None:
    frame = zstandard.compress(CONTENT)
    assert decode(1, frame, len(CONTENT), "x") == CONTENT
    hostile = [frame + frame, frame + b"\0", frame[:-1], b"", b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + frame, frame[4:]]
    for coded in hostile:
        with pytest.raises(Damaged, match="x: "):
            decode(1, coded, len(CONTENT), "x")
    for length in (0, len(CONTENT) - 1, len(CONTENT) + 1):
        with pytest.raises(Damaged):
            decode(1, frame, length, "x")


def test_zstd_checksum_is_heeded() -> None:
    frame = zstandard.ZstdCompressor(write_checksum=True).compress(CONTENT)
    assert decode(1, frame, len(CONTENT), "x") == CONTENT
    with pytest.raises(Damaged):
        decode(1, frame[:-1] + bytes([frame[-1] ^ 1]), len(CONTENT), "x")


def test_a_bomb_gives_no_more_than_announced() -> None:
    # A frame without content size, of 4096 run-length blocks: 16 KiB that would become 512 MiB.
    block = ((131072 << 3) | 2).to_bytes(3, "little") + b"\0"
    last = ((131072 << 3) | 3).to_bytes(3, "little") + b"\0"
    bomb = zstandard.FRAME_HEADER + b"\x00\x38" + block * 4095 + last
    with pytest.raises(Damaged, match="4097 bytes, 4096 were announced"):
        decode(1, bomb, 4096, "x")


def test_unknown_codec_is_named() -> None:
    with pytest.raises(Unknown, match="codec 2"):
        decode(2, b"", 0, "x")


def part_by_hand(codec: int, payload: bytes, plain_length: int, number: int = 3) -> bytes:
    associated = (
        b"V" * 32 + b"\x02" + struct.pack("<I", number) + bytes([codec]) + struct.pack("<I", plain_length)
        + b"W" * 16 + b"index/w/1-2-3-"
    )  # fmt: skip
    return bytes([codec, 0, 0, 0]) + struct.pack("<I", plain_length) + seal_by_hand(associated, payload)


def opened(part: bytes, number: int = 3, most: int = 1000) -> bytes:
    return open_part(
        KEY, part, vault_id=b"V" * 32, kind=2, number=number, writer=b"W" * 16, name="index/w/1-2-3-", most_plain=most
    )


def test_part_known_answer() -> None:
    assert opened(part_by_hand(0, CONTENT, len(CONTENT))) == CONTENT
    assert opened(part_by_hand(1, zstandard.compress(bytes(900)), 900)) == bytes(900)


def test_part_is_bound_to_its_place_and_limits() -> None:
    good = part_by_hand(0, CONTENT, len(CONTENT))
    with pytest.raises(Damaged):
        opened(good, number=4)
    with pytest.raises(Damaged, match="at most 39"):
        opened(good, most=39)
    with pytest.raises(Unknown, match="reserved"):
        opened(good[:2] + b"\x01" + good[3:])
    with pytest.raises(Unknown, match="codec 9"):
        opened(part_by_hand(9, CONTENT, len(CONTENT)))
    with pytest.raises(Damaged, match="41 were announced"):
        opened(part_by_hand(0, CONTENT, 41))
