"""Starts an image in QEMU, and tells what became of it. The image is not written."""

import dataclasses
import os
import pathlib
import subprocess
import time

from harness.accel import TCG
from harness.failed import Failed
from harness.qmp import Qmp

from . import machine, signs

LIMIT_SECONDS = 480                     # a healthy guest takes 35 to 160, emulated; one that starts anew twice that
# The prompt on the serial line comes with that on the screen, or not at all.
AFTER_SCREEN_LOGIN_SECONDS = 20
# Before the kernel speaks, nobody waits for anything: what neither speaks nor reads its disk for so long is dead. On a
# machine that has no time for QEMU that proves nothing, so it must have had time to run; or, as a guest may have
# halted, three times as long must be over.
SILENT_SECONDS, SILENT_CPU_SECONDS = 30, 10
VGA_TEXT, VGA_BYTES = 0xB8000, 0x8000
# One is no failure: a guest starts anew when its root file system had to be repaired.
MOST_RESETS = 3
# QEMU 10.0.2's emulation sometimes aborts (tests/boot/run): no sign of the guest, so it is tried again.
TRIES = 3


@dataclasses.dataclass(frozen=True)
class Seen:
    """`kind`: login, screen-login, one of signs.FINAL, silent (dead before a kernel spoke), resets (again and again),
    off, limit."""

    kind: str
    seconds: float
    serial: str
    screen: str

    def tail(self, letters=1500):
        return f"{self.serial[-letters:]}\n--- screen\n{self.screen[-letters:]}".strip()

    def shows(self, text):
        return text in self.serial or text in self.screen


def boot(image, firmware, bus, folder, limit=LIMIT_SECONDS, accel=TCG):
    for left in range(TRIES - 1, -1, -1):
        try:
            with Running(image, firmware, bus, folder, accel) as running:
                return running.watch(limit)
        except Failed:
            if left == 0:
                raise


class Running:
    def __init__(self, image, firmware, bus, folder, accel):
        self.folder = folder
        self.has_text_screen = firmware == "bios"   # OVMF draws; what it says is on the serial line too
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("serial", "qmp", "screen"):
            (folder / name).unlink(missing_ok=True)
        self.command = machine.that_starts(image, firmware, bus, folder, accel)
        self.process = self.monitor = None

    def __enter__(self):
        self.began = time.monotonic()
        with open(self.folder / "qemu.log", "wb") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, start_new_session=True)
        try:
            self.monitor = Qmp(self.folder / "qmp")
        except BaseException as error:
            self.__exit__()
            raise Failed(f"{error}\n{(self.folder / 'qemu.log').read_text()[-800:]}") from error
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.monitor:
            self.monitor.close()

    def watch(self, limit):
        last, changed, worked, on_screen = None, time.monotonic(), 0.0, None
        while True:
            if self.process.poll() is not None:
                raise Failed(f"QEMU ended by itself\n{(self.folder / 'qemu.log').read_text()[-800:]}")
            serial, screen = self.serial(), self.screen()
            now = time.monotonic()
            state = (serial, screen, self.disk_reads())
            if state != last:
                last, changed, worked = state, now, self.cpu_seconds()
            if on_screen is None and signs.on_screen_only(serial, screen):
                on_screen = now
            kind = signs.final(serial, screen) or self.ended()
            if kind is None and on_screen and now - on_screen > AFTER_SCREEN_LOGIN_SECONDS:
                kind = "screen-login"
            if kind is None and not signs.kernel_runs(serial, screen) and is_dead(now - changed, self.cpu_seconds() - worked):
                kind = "silent"
            if kind is None and now - self.began > limit:
                kind = "limit"
            if kind is not None:
                return Seen(kind, now - self.began, serial, screen)
            time.sleep(0.5)

    def ended(self):
        """What QEMU tells of the guest."""
        names = [event.name for event in self.monitor.events if event.data.get("guest")]
        if names.count("RESET") >= MOST_RESETS:
            return "resets"
        return "off" if "SHUTDOWN" in names else None

    def serial(self):
        path = self.folder / "serial"
        return signs.text_of_serial(path.read_bytes()) if path.exists() else ""

    def screen(self):
        if not self.has_text_screen:
            return ""
        dump = self.folder / "screen"
        self.monitor.execute("pmemsave", val=VGA_TEXT, size=VGA_BYTES, filename=str(dump))
        return signs.text_of_screen(dump.read_bytes())

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def disk_reads(self):
        return sum(disk["stats"]["rd_bytes"] for disk in self.monitor.execute("query-blockstats") if disk.get("device") == "disk")


def is_dead(quiet, worked):
    """Pure. Of a guest without a kernel, after seconds without a sign, in which QEMU had so much of the processors."""
    return quiet > SILENT_SECONDS and (worked > SILENT_CPU_SECONDS or quiet > 3 * SILENT_SECONDS)
