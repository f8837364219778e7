"""A guest's disk image that is edited as it lies: nothing is mounted, no loop device is used."""

import os
import pathlib
import subprocess
import tempfile

from harness.failed import Failed
from harness.guest import run

MIB = 1 << 20
# Where tests/boot/build-guest.sh puts things. Not asked of the table, which may be what is broken.
ROOT_MIB = {"idle": 1, "writer": 17}
ESP_MIB = 2


class Image:
    def __init__(self, path, base):
        self.path = pathlib.Path(path)
        self.base = base
        self.root = f"{self.path}?offset={ROOT_MIB[base] * MIB}"

    # --- the disk itself

    def size(self):
        return self.path.stat().st_size

    def write(self, offset, data):
        with open(self.path, "r+b") as file:
            file.seek(offset)
            file.write(data)

    def zero(self, offset, length):
        self.write(offset, bytes(length))

    def table(self, option, *words):
        """sfdisk on the partition table."""
        run("sfdisk", "--quiet", option, self.path, *words)

    # --- the root file system, by debugfs

    def edit(self, *commands):
        """debugfs ends well whatever fails, and says so on stderr only."""
        text = "".join(f"{command}\n" for command in commands)
        done = subprocess.run(["debugfs", "-w", "-f", "-", self.root], input=text, capture_output=True, text=True)
        said = [line for line in done.stderr.splitlines() if line and not line.startswith("debugfs 1.")]
        if done.returncode or said:
            raise Failed(f"debugfs: {'; '.join(commands)}: {said or done.returncode}")
        return done.stdout

    def folder(self, path):
        """The names in a folder."""
        said = run("debugfs", "-R", f"ls -p {path}", self.root)
        found = [line.split("/")[5] for line in said.splitlines() if line.count("/") >= 6]
        return [name for name in found if name not in (".", "..")]

    def read(self, path):
        with tempfile.TemporaryDirectory() as place:
            copy = pathlib.Path(place) / "file"
            run("debugfs", "-R", f"dump {path} {copy}", self.root)
            if not copy.exists():
                raise Failed(f"{path} is not on {self.path}")
            return copy.read_bytes()

    def put(self, path, data):
        """A new file, mode 644."""
        with tempfile.TemporaryDirectory() as place:
            source = pathlib.Path(place) / "file"
            source.write_bytes(data if isinstance(data, bytes) else data.encode())
            os.chmod(source, 0o644)
            self.edit(f"write {source} {path}")

    def overwrite(self, path, data):
        self.edit(f"rm {path}")
        self.put(path, data)

    def replace(self, path, old, new):
        """In a text file; what is not there cannot have been the recipe's."""
        text = self.read(path).decode()
        if old not in text:
            raise Failed(f"{path} has no {old!r}")
        self.overwrite(path, text.replace(old, new))

    def append(self, path, text):
        self.overwrite(path, self.read(path) + text.encode())

    def free_blocks(self):
        said = run("debugfs", "-R", "stats -h", self.root)
        return int(next(line for line in said.splitlines() if line.startswith("Free blocks:")).split(":")[1])

    # --- the EFI system partition, by mtools

    def esp(self, tool, *words):
        run(tool, "-i", f"{self.path}@@{ESP_MIB}M", *words)
