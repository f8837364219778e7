"""What the demo does to its disk, and what it measures without asking Sparesite.

    table   FILE MIB SEED            makes a file of 8 KiB pages, as a database has
    write   DISK OFFSET BLOCKS SEED COUNT
                                     overwrites COUNT random 8 KiB pages of the file whose 4 KiB
                                     blocks `debugfs blocks` listed in BLOCKS, for a file system at OFFSET
    changed A B                      counts the 4 KiB blocks in which two raw disks differ
    stored  FOLDER                   counts the objects of a vault in a directory, and their bytes
    report  JSON                     prints what `sync --json` said
"""

import json
import os
import random
import sys

BLOCK = 4096
PAGE = 8192
STRIDE = 1 << 20


def page(rng):
    """8 KiB that compress to about a half, as rows do."""
    return b"".join(rng.randbytes(32) + bytes(rng.choices(b"0123456789 ", k=32)) for _ in range(PAGE // 64))


def table(path, mib, seed):
    rng = random.Random(int(seed))
    with open(path, "wb") as out:
        for _ in range(int(mib) * STRIDE // PAGE):
            out.write(page(rng))


def write(disk, offset, listing, seed, count):
    rng = random.Random(int(seed))
    with open(listing, encoding="ascii") as lines:
        blocks = [int(word) for word in lines.read().split()]
    pages = range(0, len(blocks) - 1, PAGE // BLOCK)
    with open(disk, "r+b") as out:
        for first in rng.sample(pages, int(count)):
            content = page(rng)
            for part in range(PAGE // BLOCK):
                out.seek(int(offset) + blocks[first + part] * BLOCK)
                out.write(content[part * BLOCK : (part + 1) * BLOCK])


def changed(left, right):
    blocks = 0
    with open(left, "rb") as a, open(right, "rb") as b:
        while True:
            x, y = a.read(STRIDE), b.read(STRIDE)
            if not x and not y:
                break
            if x != y:
                end = max(len(x), len(y))
                blocks += sum(x[at : at + BLOCK] != y[at : at + BLOCK] for at in range(0, end, BLOCK))
    print(f"{blocks:,} blocks of 4 KiB, {blocks * BLOCK / 1e6:.1f} MB")


def stored(folder):
    sizes = [os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names]
    print(f"{sum(sizes)} {len(sizes)}")


def readable(name, value):
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if "bytes" in name and value >= 1_000_000:
        return f"{value / 1e6:,.1f} MB"
    return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}"


def lines(value, path=""):
    """Every leaf of a JSON document, as its path and its value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from lines(inner, f"{path} {key}".strip())
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from lines(inner, path if len(value) == 1 else f"{path} {number}".strip())
    elif value is not None:
        yield path, value


def report(path):
    with open(path, encoding="utf-8") as document:
        for name, value in lines(json.load(document)):
            print(f"    {name.replace('_', ' '):<44} {readable(name, value):>16}")


COMMANDS = {"table": table, "write": write, "changed": changed, "stored": stored, "report": report}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    COMMANDS[sys.argv[1]](*sys.argv[2:])
