"""A running guest with two disks: the system's (ext4) and a second one (XFS or ext4)."""

import dataclasses
import pathlib
import shutil
import subprocess
import time

from . import writes
from .acks import Acks
from .agent import Agent
from .failed import Failed
from .qmp import Qmp

DATA_MIB = 512
BOOT_SECONDS = 300                      # emulated and on a busy machine; 25 is usual
OVMF = pathlib.Path("/usr/share/OVMF")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a guest is made of; `folder` holds its disks and sockets."""

    folder: pathlib.Path
    image: pathlib.Path                 # as tests/boot/build-guest.sh made it, variant writer
    accel: str = "tcg,thread=multi"
    firmware: str = "bios"              # or uefi
    disk_format: str = "qcow2"          # or raw
    data_fs: str = "xfs"                # or ext4
    memory_mib: int = 512


def run(*command):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failed(f"{command[0]} ended with {done.returncode}: {' '.join(map(str, command))}\n{done.stderr.strip()[-800:]}")
    return done.stdout


class Guest:
    DISKS = ("root", "data")

    def __init__(self, recipe):
        self.recipe = recipe
        self.folder = recipe.folder
        self.process = None
        self.acks = self.monitor = None
        self.agent = Agent(self.folder / "agent")
        # The harness has the second monitor; the first is the product's.
        self.trace = self.folder / "writes"
        self.qmp_path, self.own_qmp_path = self.folder / "qmp", self.folder / "qmp-harness"

    def disk(self, name):
        return self.folder / f"{name}.{self.recipe.disk_format}"

    def create(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        data = self.folder / "data.new"
        with open(data, "wb") as file:
            file.truncate(DATA_MIB << 20)
        if self.recipe.data_fs == "xfs":
            run("mkfs.xfs", "-q", "-L", "data", data)
        else:
            run("mke2fs", "-q", "-t", "ext4", "-L", "data", data)
        for name, source in (("root", self.recipe.image), ("data", data)):
            run("qemu-img", "convert", "-O", self.recipe.disk_format, source, self.disk(name))
        data.unlink()
        if self.recipe.firmware == "uefi":
            shutil.copy(OVMF / "OVMF_VARS_4M.fd", self.folder / "vars.fd")

    def command(self):
        recipe = self.recipe
        words = ["qemu-system-x86_64", "-name", "bench", "-accel", recipe.accel, "-smp", "2", "-m", str(recipe.memory_mib)]
        words += ["-machine", "q35", "-display", "none", "-nic", "none", "-no-reboot", "-nodefaults"]
        words += ["-serial", f"file:{self.folder / 'serial'}"]
        words += ["-msg", "timestamp=on", "-trace", writes.EVENT, "-D", self.trace]
        for path in (self.qmp_path, self.own_qmp_path):
            words += ["-qmp", f"unix:{path},server=on,wait=off"]
        if recipe.firmware == "uefi":
            words += ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF / 'OVMF_CODE_4M.fd'}"]
            words += ["-drive", f"if=pflash,format=raw,file={self.folder / 'vars.fd'}"]
        for index, name in enumerate(self.DISKS):
            node = f"driver={recipe.disk_format},node-name={name},discard=unmap"
            words += ["-blockdev", f"{node},file.driver=file,file.filename={self.disk(name)},file.discard=unmap"]
            words += ["-device", f"virtio-blk-pci,drive={name},id=disk-{name},bootindex={index + 1}"]
        words += ["-device", "virtio-serial-pci"]
        for name, port in (("agent", "org.qemu.guest_agent.0"), ("writer", "sparesite.writer")):
            words += ["-chardev", f"socket,id={name},path={self.folder / name},server=on,wait=off"]
            words += ["-device", f"virtserialport,chardev={name},name={port}"]
        return words

    def start(self):
        for name in ("qmp", "qmp-harness", "agent", "writer", "serial"):
            (self.folder / name).unlink(missing_ok=True)
        with open(self.folder / "qemu.log", "ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, start_new_session=True)
        try:
            self.monitor = Qmp(self.own_qmp_path)
            self.acks = Acks(self.folder / "writer")
        except Failed as error:
            raise Failed(f"{error}\n{self.log_tail()}") from error

    def wait_writing(self, seconds=BOOT_SECONDS):
        until = time.monotonic() + seconds
        while True:
            try:
                return self.acks.wait("row", 1)
            except Failed as error:
                if not self.alive() or time.monotonic() > until:
                    state = "still runs" if self.alive() else f"ended with {self.process.poll()}"
                    raise Failed(f"{error}, after {seconds:g} s at most; QEMU {state}\n{self.log_tail()}") from error

    def log_tail(self):
        tails = []
        for name in ("qemu.log", "serial"):
            path = self.folder / name
            if path.exists():
                tails.append(path.read_bytes()[-1500:].decode(errors="replace"))
        return "\n".join(tails)

    def serial(self):
        return (self.folder / "serial").read_bytes().decode(errors="replace")

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def power_off(self, seconds=120):
        """Asks the guest to shut down, as a clean end of its disks."""
        self.monitor.execute("system_powerdown")
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed(f"the guest did not shut down within {seconds} s\n{self.log_tail()}") from None

    def kill(self):
        """As if the power went; QEMU's own files are flushed by `quit`, the guest's are not."""
        if self.alive():
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for part in (self.monitor, self.acks):
            if part is not None:
                part.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


def settle(guest, rows, seconds=60):
    """Until the writer has made this many rows more, so that a measurement does not begin in the boot."""
    goal = guest.acks.newest_row() + rows
    until = time.monotonic() + seconds
    while guest.acks.newest_row() < goal:
        if time.monotonic() > until or not guest.alive():
            raise Failed(f"the writer did not reach row {goal} within {seconds} s\n{guest.log_tail()}")
        time.sleep(0.1)
