"""What captures a running guest and gives its disks back. The bench judges any `Capturer`; `Copy` needs
nothing of Sparesite and proves the bench, `Torn` must be caught."""

import dataclasses
import pathlib
import shutil
import time
import typing

from .guest import Guest, run

CONSISTENCIES = ("crash", "file-system", "application")


@dataclasses.dataclass
class Capture:
    """One capture, by our monotonic clock. Whatever was acknowledged before `began` must be in it."""

    key: str                            # the capturer's own name of it
    consistency: str                    # what it has, not what was asked
    began: float
    ended: float
    freeze_seconds: float | None = None # from the agent's answer to the freeze until the thaw is sent
    facts: dict = dataclasses.field(default_factory=dict)


class Capturer(typing.Protocol):
    name: str
    keeps: bool                         # whether points can be restored after further captures, cheaply
    enforced: bool                      # whether the targets apply

    def begin(self, guest: Guest, folder: pathlib.Path) -> None: ...

    def capture(self, consistency: str) -> Capture: ...

    def restore(self, capture: Capture, folder: pathlib.Path) -> dict[str, pathlib.Path]:
        """Raw images by disk name, in `folder`."""

    def end(self) -> None: ...


class Copy:
    """Stops the VM, copies the disks' files, lets it go on: slow, and right."""

    name, keeps, enforced = "copy", False, False

    def begin(self, guest, folder):
        self.guest, self.folder, self.number = guest, folder, 0

    def capture(self, consistency):
        self.number += 1
        place = self.folder / f"copy-{self.number}"
        place.mkdir()
        began = time.monotonic()
        if consistency == "crash":
            self._copy_paused(place)
            return Capture(str(self.number), consistency, began, time.monotonic())
        with self.guest.agent.connected() as agent:
            agent.execute("guest-fsfreeze-freeze")
            frozen = time.monotonic()
            try:
                self._copy_paused(place)
            finally:
                thawed = time.monotonic()
                agent.execute("guest-fsfreeze-thaw")
        return Capture(str(self.number), consistency, began, time.monotonic(), thawed - frozen)

    def _copy_paused(self, place):
        """QEMU flushes an image's own tables when it stops the VM, so that the file is whole."""
        self.guest.monitor.execute("stop")
        try:
            for name in self.guest.DISKS:
                self._copy(name, place)
        finally:
            self.guest.monitor.execute("cont")

    def _copy(self, name, place):
        run("cp", "--sparse=always", self.guest.disk(name), place / name)

    def restore(self, capture, folder):
        place = self.folder / f"copy-{capture.key}"
        images = {name: folder / f"{name}.raw" for name in self.guest.DISKS}
        for name, image in images.items():
            run("qemu-img", "convert", "-f", self.guest.recipe.disk_format, "-O", "raw", place / name, image)
        shutil.rmtree(place)
        return images

    def end(self):
        pass


class Torn(Copy):
    """Each disk whole, but the second a moment later, as without one instant for all disks."""

    name = "torn"

    def __init__(self, seconds=1.0):
        self.seconds = seconds

    def _copy_paused(self, place):
        for name in self.guest.DISKS:
            self.guest.monitor.execute("stop")
            try:
                self._copy(name, place)
            finally:
                self.guest.monitor.execute("cont")
            time.sleep(self.seconds)
