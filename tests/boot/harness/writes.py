"""Which blocks the guest wrote between two instants, as QEMU's own trace of its block back ends tells: what a
delta has to be measured against. Comparing contents would miss what was written as it already was. Pure."""

import re

BLOCK = 4096
EVENT = "blk_co_pwritev"
# 31648@1795383354.915278:blk_co_pwritev blk 0x55dc5a1ce3f0 bs 0x55dc5a068480 offset 4096 bytes 8192 flags 0x0
LINE = re.compile(r"\d+@(\d+\.\d+):" + EVENT + r" blk (0x[0-9a-f]+) bs \S+ offset (\d+) bytes (\d+) ")


def written_blocks(trace, since, until):
    """How many distinct 4 KiB blocks of all disks were written, on QEMU's clock."""
    blocks = set()
    for line in trace:
        found = LINE.match(line)
        if found and since < float(found[1]) <= until:
            disk, offset, count = found[2], int(found[3]), int(found[4])
            blocks.update((disk, block) for block in range(offset // BLOCK, (offset + count + BLOCK - 1) // BLOCK))
    return len(blocks)
