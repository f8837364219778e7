"""What the guest's writer leaves on its disks, so that a judge can tell later what must be there.

Shared by the writer in the guest and by the judge on the host; pure, standard library only.
"""

import hashlib
import json
import struct
import zlib

ORDER_SLOT = 4096                       # bytes between the two order records, so that no write covers both
ORDER_RECORD = struct.Struct("<8sQQ")   # magic, row number, wall clock in ns; a CRC follows
ORDER_MAGIC = b"ROWORDER"
BEFORE, AFTER = 0, 1                    # written before and after the row is committed on the other disk

SCHEMA = "CREATE TABLE rows (n INTEGER PRIMARY KEY, at INTEGER NOT NULL, body BLOB NOT NULL, sum TEXT NOT NULL)"


def stream(seed, size):
    """The first `size` bytes of a file's content: any shorter content is a prefix of a longer one."""
    return hashlib.shake_128(seed.encode()).digest(size)


def row_sum(previous, n, at, body):
    """Chains each row to the one before it, so that a lost or exchanged row shows."""
    return hashlib.sha256(f"{previous}|{n}|{at}|".encode() + body).hexdigest()


def pack_order(n, at):
    record = ORDER_RECORD.pack(ORDER_MAGIC, n, at)
    return record + struct.pack("<I", zlib.crc32(record))


def parse_order(slot):
    """The row number of an order record; None if there is none; ValueError if it is torn."""
    size = ORDER_RECORD.size
    if not any(slot[: size + 4]):
        return None
    magic, n, _ = ORDER_RECORD.unpack_from(slot)
    (crc,) = struct.unpack_from("<I", slot, size)
    if magic != ORDER_MAGIC or crc != zlib.crc32(slot[:size]):
        raise ValueError("an order record is torn")
    return n


def pack_entry(entry):
    line = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    return f"{zlib.crc32(line.encode()):08x} {line}\n".encode()


def parse_manifest(data):
    """The entries of a manifest. What follows the last line end may be torn by a crash and is dropped;
    a whole line that is wrong is a ValueError."""
    entries = []
    whole, _, _ = data.rpartition(b"\n")
    for number, line in enumerate(whole.split(b"\n") if whole else [], 1):
        crc, _, text = line.partition(b" ")
        try:
            right = int(crc, 16) == zlib.crc32(text)
        except ValueError:
            right = False
        if not right:
            raise ValueError(f"line {number} of the manifest is damaged")
        entries.append(json.loads(text))
    return entries


def apply(files, entry):
    """What the tree holds after one operation: name → (seed, size)."""
    after = dict(files)
    name = entry["name"]
    if entry["do"] == "put" or entry["do"] == "append":
        after[name] = (entry["seed"], entry["size"])
    elif entry["do"] == "rename":
        after[entry["to"]] = after.pop(name)
    elif entry["do"] == "delete":
        del after[name]
    else:
        raise ValueError(f"the manifest has an unknown operation {entry['do']!r}")
    return after


def fold(entries):
    """Replays a manifest: the files after the last finished operation, the operation in flight (or
    None), and the number of the last finished one."""
    files, flying, last = {}, None, 0
    for entry in entries:
        if entry["phase"] == "will":
            if flying is not None:
                raise ValueError(f"operation {entry['op']} began before {flying['op']} ended")
            flying = entry
        else:
            if flying is None or flying["op"] != entry["op"]:
                raise ValueError(f"operation {entry['op']} ended without a beginning")
            files, last, flying = apply(files, flying), entry["op"], None
    return files, flying, last
