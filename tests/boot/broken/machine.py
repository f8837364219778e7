"""The machine that a broken guest is started on: firmware and disk bus as the manifest of a recovery point names them."""

import shutil

from harness.guest import OVMF

# What the gateway records as the bus of such a disk. An IDE disk needs the older machine: q35's is SATA.
BUSES = {
    "virtio": ("q35", ["-device", "virtio-blk-pci,drive=disk,id=disk0,bootindex=1"]),
    "nvme": ("q35", ["-device", "nvme,drive=disk,id=disk0,serial=disk0,bootindex=1"]),
    "scsi": ("q35", ["-device", "virtio-scsi-pci,id=scsi", "-device", "scsi-hd,bus=scsi.0,drive=disk,id=disk0,bootindex=1"]),
    "sata": ("q35", ["-device", "ide-hd,bus=ide.0,drive=disk,id=disk0,bootindex=1"]),
    "ide": ("pc", ["-device", "ide-hd,bus=ide.0,drive=disk,id=disk0,bootindex=1"]),
}


# A card that is plugged in nowhere: what is to be recorded has one, as VMs do; what is started has none, as firmware that
# finds no disk would wait for it.
CARD = ["-device", "virtio-net-pci,id=net0,mac=52:54:00:12:34:56"]


def command(image, firmware, bus, folder, accel):
    """No network; the serial line goes to a file, the screen is a VGA whose text QEMU's monitor can read."""
    machine, disk = BUSES[bus]
    words = ["qemu-system-x86_64", "-name", "broken", "-accel", accel, "-machine", machine, "-smp", "2", "-m", "512"]
    words += ["-nodefaults", "-display", "none", "-vga", "std", "-nic", "none"]
    words += ["-no-shutdown"]           # a guest that powers off is left standing, and seen
    words += ["-serial", f"file:{folder / 'serial'}", "-qmp", f"unix:{folder / 'qmp'},server=on,wait=off"]
    if firmware == "uefi":
        # Fresh variables, as of a new machine: what an installer noted in the old ones is lost.
        shutil.copy(OVMF / "OVMF_VARS_4M.fd", folder / "vars.fd")
        words += ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF / 'OVMF_CODE_4M.fd'}"]
        words += ["-drive", f"if=pflash,format=raw,file={folder / 'vars.fd'}"]
    return words + disk + ["-drive", f"if=none,id=disk,format=raw,file={image}"]


def that_starts(*machine):
    """The image is not written: what the guest changes is gone with QEMU."""
    words = command(*machine)
    return [*words[:-1], f"{words[-1]},snapshot=on"]


def that_stands(*machine):
    """Its guest never runs, so that nothing is written either. The image itself is what is captured."""
    return [*command(*machine), *CARD, "-S"]
