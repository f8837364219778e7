"""What `convert` makes of an image for EC2: what preflight says of it then, and whether it starts from NVMe."""

import dataclasses
import json
import subprocess
import time

from harness.failed import Failed
from harness.sparesite import VM

from . import signs
from .predict import site_of


@dataclasses.dataclass(frozen=True)
class Mended:
    """`after`: preflight's words. `seen`: the kind of sign on the serial line, or `limit`, or `ended`."""

    changed: list
    before: str
    after: str
    seen: str
    serial: str

    @property
    def is_good(self):
        return bool(self.changed) and self.after == "boots" and self.seen == "login"


def convert(image, variant, folder, limit):
    site = site_of(image, variant.firmware, variant.bus, folder)
    overlay, serial = folder / "overlay", folder / "serial"
    restore = str(site.programs / "sparesite-restore")
    done = site.call([restore, "convert", VM, "--target", "aws", "--overlay", str(overlay), "--json", "--quiet"])
    # 3: something is left, which a finding names.
    if done.returncode not in (0, 3):
        raise Failed(f"convert ended with {done.returncode}\n{done.stdout[-800:]}\n{done.stderr[-800:]}")
    told = json.loads(done.stdout)
    serial.touch()
    command = [restore, "boot", VM, "--overlay", str(overlay), "--disk-bus", "nvme", "--memory", "512MiB", "--serial", str(serial), "--json"]
    with open(folder / "log", "wb") as log:
        running = subprocess.Popen(command, env=site.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            seen = watch(running, serial, limit)
        finally:
            running.terminate()
            running.wait()
    changed = [change["words"] for change in told["mended"] + told["left"]]
    return Mended(changed, told["before"], told["after"], seen, signs.text_of_serial(serial.read_bytes()))


def watch(running, serial, limit):
    began = time.monotonic()
    while time.monotonic() - began < limit:
        kind = signs.final(signs.text_of_serial(serial.read_bytes()), "")
        if kind or running.poll() is not None:
            return kind or "ended"
        time.sleep(0.5)
    return "limit"


def line(name, mended):
    """For a person who waits."""
    text = f"{'good  ' if mended.is_good else 'WRONG '} {name}: {mended.before[:60]} -> {mended.after[:60]}, {mended.seen}"
    for change in mended.changed:
        text += f"\n       {change}"
    return text if mended.is_good else f"{text}\n{mended.serial[-1500:]}"
