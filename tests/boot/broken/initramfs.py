"""An initramfs taken apart and put together again without some of its files. Nothing is unpacked to disk, so neither
root nor device nodes are needed. Pure, but for the tools that decompress."""

import re
import subprocess
import zlib

from harness.failed import Failed

HEADER = 110                            # of a record of cpio "newc": magic and 13 numbers of 8 hex digits
TRAILER = "TRAILER!!!"
TOOLS = {b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz"}


def records(data, start=0):
    """(name, first byte, end) of each record until the trailer, which is the last one given."""
    at = start
    while True:
        header = data[at:at + HEADER]
        if header[:6] not in (b"070701", b"070702"):
            raise Failed(f"no cpio record at byte {at}: {header[:6]!r}")
        size, name_length = (int(header[6 + 8 * field:14 + 8 * field], 16) for field in (6, 11))
        name = data[at + HEADER:at + HEADER + name_length - 1].decode()
        end = padded(padded(at + HEADER + name_length, start) + size, start)
        yield name, at, end
        if name == TRAILER:
            return
        at = end


def padded(at, start):
    return at + (start - at) % 4


def early_length(data):
    """The uncompressed archives in front, as microcode comes in, with their padding. None: the whole is uncompressed."""
    at = 0
    while data[at:at + 5] == b"07070":
        for _, _, end in records(data, at):
            at = end
        while data[at:at + 1] == b"\0":
            at += 1
    return at if at < len(data) else None


def decompress(data):
    if data[:2] == b"\x1f\x8b":
        return zlib.decompress(data, wbits=31)
    for magic, tool in TOOLS.items():
        if data.startswith(magic):
            return subprocess.run([tool, "-dc"], input=data, stdout=subprocess.PIPE, check=True).stdout
    raise Failed(f"an initramfs of unknown compression: {data[:6]!r}")


def without(data, pattern):
    """The same initramfs without the files whose whole path matches. gzip, as each kernel of a distribution takes it."""
    early = early_length(data)
    front, archive = (b"", data) if early is None else (data[:early], decompress(data[early:]))
    kept, left = leave_out(archive, pattern)
    if not left:
        raise Failed(f"no file of the initramfs matches {pattern}")
    packer = zlib.compressobj(1, wbits=31)
    return front + packer.compress(kept) + packer.flush()


def leave_out(archive, pattern):
    """The archive without what matches, and the names that were left out."""
    parts, left = [], []
    for name, start, end in records(archive):
        if re.fullmatch(pattern, name):
            left.append(name)
        else:
            parts.append(archive[start:end])
    return b"".join(parts), left


def names(data):
    early = early_length(data)
    archive = data if early is None else decompress(data[early:])
    return [name for name, _, _ in records(archive)][:-1]
