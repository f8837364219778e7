"""JSON from a stranger's hands: no key twice, every field of the type that the format gives it."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn, TypeVar

from findings import Damaged

T = TypeVar("T")
U64_MAX = 2**64 - 1
_HEX = re.compile(r"(?:[0-9a-f]{2})*\Z")


def parse(raw: bytes | str, what: str) -> dict[str, Any]:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            raise ValueError("a key stands twice in one object")
        return found

    def constant(text: str) -> NoReturn:
        raise ValueError(f"{text} is no JSON")

    try:
        value = json.loads(
            raw if isinstance(raw, str) else raw.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant
        )
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{what}: not readable as JSON: {error}") from None
    if not isinstance(value, dict):
        raise Damaged(f"{what}: not a JSON object")
    return value


def field(obj: dict[str, Any], key: str, kind: type[T], what: str) -> T:
    if key not in obj:
        raise Damaged(f"{what}: `{key}` is missing")
    value = obj[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Damaged(f"{what}: `{key}` is not of type {kind.__name__}")
    if isinstance(value, str):
        _check_unicode(value, key, what)
    return value


def _check_unicode(value: str, key: str, what: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:  # half a surrogate pair, by an escape
        raise Damaged(f"{what}: `{key}` is not Unicode text") from None


def number(obj: dict[str, Any], key: str, what: str, most: int = U64_MAX) -> int:
    value = field(obj, key, int, what)
    if not 0 <= value <= most:
        raise Damaged(f"{what}: `{key}` is {value}, allowed is 0 to {most}")
    return value


def objects(obj: dict[str, Any], key: str, what: str) -> list[dict[str, Any]]:
    value = field(obj, key, list, what)
    if not all(isinstance(item, dict) for item in value):
        raise Damaged(f"{what}: `{key}` holds something other than objects")
    return value


def texts(obj: dict[str, Any], key: str, what: str) -> list[str]:
    value = field(obj, key, list, what)
    if not all(isinstance(item, str) for item in value):
        raise Damaged(f"{what}: `{key}` holds something other than texts")
    for item in value:
        _check_unicode(item, key, what)
    return value


def hex_field(obj: dict[str, Any], key: str, what: str, length: int | None = None) -> bytes:
    text = field(obj, key, str, what)
    if not _HEX.match(text) or (length is not None and len(text) != 2 * length):
        raise Damaged(f"{what}: `{key}` is not lower-case hex of the right length")
    return bytes.fromhex(text)


def section(value: Any, binary_bytes: int, what: str) -> tuple[int, int]:
    """`[offset, length]` of a section inside a root's binary."""
    if not (isinstance(value, list) and len(value) == 2 and all(type(n) is int and n >= 0 for n in value)):
        raise Damaged(f"{what}: not an [offset, length]")
    offset, length = value
    if offset + length > binary_bytes:
        raise Damaged(f"{what}: the section {value} goes beyond the {binary_bytes} bytes that are there")
    return offset, length
