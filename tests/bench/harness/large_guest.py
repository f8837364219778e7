"""A guest with much data: that of tests/boot, its disk and file system grown and filled from the bench's disk."""

import pathlib
import shutil
import subprocess
import tempfile

from .measure import Failed

DATA_MIB = 2200                         # the target asks for 2 GiB at least
SOURCE_MIB = 8192                       # of the bench's disk: a smaller one has less data
DISK_MIB = 3584
ROOT_MIB = 1                            # where the root partition begins, tests/boot/build-guest.sh
PIECE_MIB = 32


def call(*words, accept=(0,), **options):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **options)
    if done.returncode not in accept:
        raise Failed(f"{words[0]} ended with {done.returncode}: {done.stderr.strip()[-800:]}")


def pieces(source, folder):
    """Files of PIECE_MIB that are not zero, in the order of the disk, DATA_MIB in all."""
    zero = bytes(PIECE_MIB << 20)
    made = []
    with open(source, "rb") as disk:
        while len(made) * PIECE_MIB < DATA_MIB:
            data = disk.read(PIECE_MIB << 20)
            if len(data) < len(zero):
                raise Failed(f"{source} has less than {DATA_MIB} MiB of data: --mebibytes {SOURCE_MIB} has enough")
            if data != zero:
                made.append(folder / f"piece-{len(made):03}")
                made[-1].write_bytes(data)
    return made


def build(idle, source, image):
    """`image` from `idle`, a guest that boots by BIOS, with DATA_MIB of `source` in its root file system."""
    with tempfile.TemporaryDirectory(dir=image.parent) as work:
        work = pathlib.Path(work)
        root, disk = work / "root", work / "disk"
        call("dd", f"if={idle}", f"of={root}", "bs=1M", f"skip={ROOT_MIB}", "conv=sparse")
        with open(root, "r+b") as file:
            file.truncate((DISK_MIB - ROOT_MIB) << 20)
        call("e2fsck", "-fp", root, accept=(0, 1))
        call("resize2fs", root)
        names = pieces(source, work)
        commands = ["mkdir /srv/data", *(f"write {name} /srv/data/{name.name}" for name in names)]
        call("debugfs", "-w", "-f", "-", root, input="\n".join(commands) + "\n")
        call("e2fsck", "-fn", root)
        shutil.copyfile(idle, disk)
        with open(disk, "r+b") as file:
            file.truncate(ROOT_MIB << 20)
            file.truncate(DISK_MIB << 20)
        call("sfdisk", "--no-reread", "-N", "1", disk, input=", +\n")
        call("dd", f"if={root}", f"of={disk}", "bs=1M", f"seek={ROOT_MIB}", "conv=notrunc,sparse")
        disk.rename(image)
    return image
