"""Whether KVM works here is found by trying: there are machines whose /dev/kvm hangs any guest."""

import os
import pathlib
import subprocess
import tempfile
import time

TCG = "tcg,thread=multi"
TRY_SECONDS = 20                        # with a working KVM the kernel's first line is there in 3 s


def choose(image, cache):
    """`kvm` or TCG; what a try showed holds until the machine is started again."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return TCG
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    note = pathlib.Path(cache) / "kvm-tried"
    known = note.read_text().split() if note.exists() else []
    if known[:1] != [boot]:
        known = [boot, "works" if kvm_works(image) else "hangs"]
        note.write_text(" ".join(known) + "\n")
    return "kvm" if known[1] == "works" else TCG


def kvm_works(image):
    """Boots the real guest until its init speaks: firmware alone can work where a kernel hangs."""
    with tempfile.TemporaryDirectory() as folder:
        serial = pathlib.Path(folder) / "serial"
        command = ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-smp", "2", "-m", "512", "-nodefaults", "-display", "none"]
        command += ["-nic", "none", "-no-reboot", "-snapshot", "-drive", f"file={image},format=raw,if=virtio", "-serial", f"file:{serial}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until = time.monotonic() + TRY_SECONDS
            while time.monotonic() < until and process.poll() is None:
                if serial.exists() and b"systemd[1]" in serial.read_bytes():
                    return True
                time.sleep(0.2)
            return False
        finally:
            process.kill()
            process.wait()
