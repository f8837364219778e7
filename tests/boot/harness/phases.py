"""What a gateway was at when it was killed, by what it left in QEMU and in its outbox. Pure."""

import dataclasses

CAPTURE, UPLOAD, OTHER = "capture", "upload", "start or end"
LEAST_SHARE = 0.1                       # of the kills, in the capture and in the upload each
LEAST_KILLS, FEW_KILLS = 100, 20        # with fewer than these one is enough, or none: chance would decide


@dataclasses.dataclass(frozen=True)
class Look:
    """Only what is the gateway's."""

    nodes: frozenset                    # in QEMU
    bitmaps: frozenset                  # in QEMU, node/name: each capture starts its own
    outbox: frozenset                   # names of packs that wait on the disk


def phase(before, now, sending):
    """`before` is from ahead of the start: what an earlier death left proves nothing of this one, but that it is being
    sent does. Where neither is proved it is the start (what others left is taken away, the vault is asked) or the end
    (the point is published)."""
    if now.nodes:
        return CAPTURE if is_capturing(before, now) else OTHER
    own = now.bitmaps - before.bitmaps
    if now.outbox and (sending or own or now.outbox != before.outbox):
        return UPLOAD
    return OTHER


def is_capturing(before, now):
    """By nodes that no earlier run left."""
    return bool(now.nodes) and bool(now.bitmaps - before.bitmaps or not before.nodes)


def judge(counts, kills):
    """Kills that seldom hit what they are to hit prove little."""
    least = int(kills * LEAST_SHARE) if kills >= LEAST_KILLS else int(kills >= FEW_KILLS)
    return [
        f"{counts.get(name, 0)} of {kills} kills hit the {name}, {least} at least are to"
        for name in (CAPTURE, UPLOAD)
        if counts.get(name, 0) < least
    ]


def pace(bytes_sent, seconds):
    """The cap at which so many bytes take so long, in kbit/s; 64 is the least that the gateway takes."""
    return max(64, round(bytes_sent * 8 / 1000 / seconds))
