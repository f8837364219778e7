"""A vault that lies in a directory: its objects by name, and the names that section 2 allows."""

from __future__ import annotations

import os
import re
from pathlib import Path

from blake3 import blake3

from findings import Damaged, Findings

_HEX32, _TEN = r"[0-9a-f]{32}", r"[0-9]{10}"
PATTERNS = {
    "vault": re.compile(rf"vault/({_TEN})\.json"),
    "packs": re.compile(r"packs/(?P<two>[0-9a-f]{2})/((?P=two)[0-9a-f]{62})"),
    "index": re.compile(rf"index/({_HEX32})/({_TEN})-({_TEN})-({_TEN})-({_HEX32})"),
    "maps": re.compile(rf"maps/({_HEX32})/({_HEX32})"),
    "points": re.compile(rf"points/({_HEX32})/({_TEN})-({_TEN})"),
    "control": re.compile(rf"control/log/({_TEN})|control/runs/[0-9a-f]{{32}}/{_TEN}/{_TEN}"),
}
READ_AT_ONCE = 1 << 20


def match_name(name: str) -> re.Match[str]:
    pattern = PATTERNS.get(name.split("/", 1)[0])
    match = pattern.fullmatch(name) if pattern else None
    if match is None:
        raise Damaged(f"{name!r} is not the name of an object that a vault of format 1 holds")
    return match


def pack_object(pack: bytes) -> str:
    return f"packs/{pack.hex()[:2]}/{pack.hex()}"


class Store:
    def __init__(self, root: Path, findings: Findings) -> None:
        self.root = root
        self.findings = findings

    def names(self, prefix: str) -> list[re.Match[str]]:
        """Objects below a prefix, in the order of their names. Other files are reported and left alone."""
        found = []
        for folder, _, files in os.walk(self.root / prefix):
            for file in files:
                name = str((Path(folder) / file).relative_to(self.root))
                try:
                    found.append(match_name(name))
                except Damaged as error:
                    self.findings.add(str(error))
        return sorted(found, key=lambda match: match[0])

    def has(self, name: str) -> bool:
        match_name(name)
        return (self.root / name).is_file()

    def open(self, name: str) -> OpenObject:
        match_name(name)
        try:
            return OpenObject(name, os.open(self.root / name, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            raise Damaged(f"{name}: cannot be read from {self.root}: {error.strerror}") from None

    def read(self, name: str, most: int) -> bytes:
        with self.open(name) as opened:
            if opened.size > most:
                raise Damaged(f"{name}: {opened.size} bytes, at most {most} are allowed")
            return opened.range(0, opened.size)


class OpenObject:
    """An object open for reading of ranges; closed by `with`, or when nothing holds it any longer."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self._fd = fd
        self.size = os.fstat(fd).st_size

    def __enter__(self) -> OpenObject:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def range(self, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise Damaged(f"{self.name}: bytes {offset}+{length} are beyond its end ({self.size})")
        pieces = []
        while length > 0:
            try:
                piece = os.pread(self._fd, length, offset)
            except OSError as error:
                raise Damaged(f"{self.name}: reading {length} bytes at {offset}: {error.strerror}") from None
            if not piece:
                raise Damaged(f"{self.name}: ends before byte {offset + length}")
            pieces.append(piece)
            offset, length = offset + len(piece), length - len(piece)
        return b"".join(pieces)

    def digest(self, length: int) -> bytes:
        """HASH of the first bytes, never more than a little of them in memory."""
        hasher = blake3()
        for offset in range(0, length, READ_AT_ONCE):
            hasher.update(self.range(offset, min(READ_AT_ONCE, length - offset)))
        return hasher.digest()
