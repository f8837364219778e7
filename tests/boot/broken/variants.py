"""The broken guests: how each is made, what preflight must say of it, and what is seen when it is started.

What is seen decides, and preflight has to agree. `seen` is a kind of boot.Seen.
"""

import dataclasses
from typing import Callable

from . import defects
from .defects import UUID_NOWHERE
from .image import Image

BOOTS, NOT, UNKNOWN = "boots", "does-not-boot", "unknown"
# A login prompt on the serial line, or on the screen alone: the guest's services run.
UP = ("login", "screen-login")
LINK = ("/vmlinuz", "/initrd.img")


@dataclasses.dataclass(frozen=True)
class Told:
    """What preflight must say for a target."""

    verdict: str
    codes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Variant:
    name: str
    how: str
    base: str                           # idle: MBR, BIOS; writer: GPT, both (tests/boot/build-guest.sh)
    firmware: str
    bus: str                            # as the manifest names it
    make: Callable[[Image], None] | None
    qemu: Told
    seen: str
    shows: str = ""                     # on the serial line or the screen
    aws: Told | None = None             # judged where it tells something; these clouds cannot be had here
    azure: Told | None = None
    absent: tuple[str, ...] = ()        # codes that would be a false alarm, at any target
    why: str = ""
    converts: bool = False              # `convert` makes it start at AWS
    fast: bool = False                  # of `make test`: over in seconds, and by nothing that a busy machine changes

    @property
    def boots(self):
        return self.seen in UP


def idle(name, how, make, qemu, seen, shows="", bus="virtio", everywhere=False, **more):
    """`everywhere`: the clouds differ in nothing that matters here."""
    clouds = {"aws": qemu, "azure": qemu} if everywhere else {}
    return Variant(name, how, "idle", "bios", bus, make, qemu, seen, shows, **clouds, **more)


def writer(name, how, make, qemu, seen, shows="", firmware="uefi", everywhere=False, **more):
    clouds = {"aws": qemu, "azure": qemu} if everywhere else {}
    return Variant(name, how, "writer", firmware, "virtio", make, qemu, seen, shows, **clouds, **more)


def boots(*codes):
    return Told(BOOTS, codes)


def fails(*codes):
    return Told(NOT, codes)


VARIANTS = [
    # --- nothing is wrong, or nothing that matters here
    idle("healthy-mbr", "as it was built", None, boots(), "login", aws=boots(), azure=boots()),
    writer("healthy-gpt-uefi", "as it was built", None, boots(), "login", aws=boots(), azure=boots()),
    writer("healthy-gpt-bios", "as it was built", None, boots(), "login", firmware="bios"),
    idle("healthy-ide", "as it was built, on an IDE disk", None, boots(), "login", bus="ide"),
    idle("nvme-built-in", "no nvme module in the initramfs, on an NVMe disk",
         lambda image: defects.initramfs_without(image, "nvme.*"), boots(), "login", bus="nvme", aws=boots(),
         absent=("initramfs-lacks-driver",), why="the kernel has the driver built in"),
    idle("menu-second-entry", "a menu whose default is the second entry; the first one's kernel is gone",
         lambda image: defects.menu(image, ("old", "/boot/vmlinuz-1", "/boot/initrd-1"), ("Debian", *LINK), default=1),
         boots(), "login", absent=("kernel-missing", "initramfs-missing"), why="only the default entry counts"),
    idle("fstab-nofail", "an fstab entry of a UUID that is nowhere, with nofail",
         lambda image: defects.fstab(image, f"{UUID_NOWHERE} /srv ext4 defaults,nofail,x-systemd.device-timeout=5s 0 2"),
         boots(), "login", absent=("fstab-missing-device",)),
    writer("esp-typed-otherwise", "the ESP's partition has the type of basic data",
           defects.esp_typed_otherwise, boots(), "login", why="OVMF goes by the file system"),
    writer("gpt-primary-lost-uefi", "the first GPT is zeros, the backup is whole",
           lambda image: defects.no_gpt(image, backup=False), boots("partition-table-repaired"), "login",
           why="OVMF writes the first one anew from the backup"),

    # --- the boot loader
    idle("mbr-code-zeroed", "no code in the MBR, its table is whole",
         defects.no_mbr_code, fails("bios-loader-missing"), "silent", everywhere=True),
    idle("first-mib-zeroed", "MBR, table and GRUB's core are zeros",
         defects.no_first_sectors, fails("no-boot-disk"), "no-boot-device", "No bootable device", everywhere=True, fast=True),
    idle("grub-core-zeroed", "GRUB's core image is zeros, the MBR is whole",
         defects.no_core, fails("bios-loader-missing"), "silent", "GRUB", everywhere=True),
    idle("grub-cfg-missing", "no grub.cfg", defects.no_grub_cfg, fails("boot-config-missing"), "grub-shell",
         everywhere=True),
    writer("gpt-lost-bios", "both GPTs are zeros", defects.no_gpt, fails("partition-table-damaged"),
           "grub-shell", firmware="bios", everywhere=True),
    writer("gpt-lost-uefi", "both GPTs are zeros", defects.no_gpt, fails("partition-table-damaged"),
           "no-boot-device", everywhere=True),
    writer("gpt-primary-lost-bios", "the first GPT is zeros, the backup is whole",
           lambda image: defects.no_gpt(image, backup=False), fails("partition-table-repaired"),
           "grub-shell", firmware="bios", why="GRUB for BIOS reads the first one only"),
    writer("esp-missing", "the ESP's entry is taken out of the GPT", defects.no_esp, fails("esp-missing"), "no-boot-device",
           everywhere=True),
    writer("efi-loader-missing", "no loader on the ESP", defects.no_efi_loader, fails("efi-loader-missing"),
           "no-boot-device", everywhere=True),
    writer("efi-fallback-missing", r"the loader is only at \EFI\debian\grubx64.efi", defects.no_efi_fallback,
           fails("efi-fallback-missing"), "no-boot-device", everywhere=True, converts=True),
    idle("root-superblock-zeroed", "the first superblock of / is zeros", defects.no_superblock, fails(), "grub-shell"),

    # --- kernel and initramfs
    idle("kernel-missing", "vmlinuz is gone, the link to it dangles", defects.no_kernel, fails("kernel-missing"), "grub-shell",
         "not found", everywhere=True, fast=True),
    idle("kernel-empty", "vmlinuz has no bytes", defects.empty_kernel, fails("kernel-missing"), "grub-shell",
         "premature end of file", everywhere=True),
    idle("kernel-truncated", "the second half of vmlinuz is gone", defects.half_kernel, fails("kernel-missing"), "resets", everywhere=True,
         why="it is unpacked, and the machine resets, for ever"),
    idle("menu-default-broken", "a menu whose default entry's kernel is gone; the second one is whole",
         lambda image: defects.menu(image, ("old", "/boot/vmlinuz-1", "/boot/initrd-1"), ("Debian", *LINK)),
         fails("kernel-missing"), "grub-failed", everywhere=True, why="nobody is there to choose"),
    idle("initramfs-missing", "initrd.img is gone, the link to it dangles", defects.no_initramfs, fails("initramfs-missing"), "panic",
         "Unable to mount root fs", everywhere=True, why="GRUB says that it is not there, and starts the kernel without", converts=True),
    idle("initramfs-garbage", "random bytes in place of the initramfs", defects.garbage_initramfs, fails("initramfs-missing"),
         "panic", "Initramfs unpacking failed", everywhere=True, converts=True),
    idle("initramfs-truncated", "the second half of the initramfs is gone", defects.half_initramfs, fails("initramfs-missing"),
         "initramfs-shell", "Initramfs unpacking failed", everywhere=True, why="its scripts are in the first half, its drivers are not"),
    idle("no-virtio", "neither virtio_blk nor virtio_pci in the initramfs",
         lambda image: defects.initramfs_without(image, "virtio_blk", "virtio_pci"), fails("initramfs-lacks-driver"),
         "initramfs-shell", aws=boots(), azure=boots()),
    idle("no-virtio-scsi", "no virtio_scsi in the initramfs, on a SCSI disk",
         lambda image: defects.initramfs_without(image, "virtio_scsi"), fails("initramfs-lacks-driver"),
         "initramfs-shell", bus="scsi"),
    idle("no-ahci", "as it was built, on a SATA disk: this kernel has no AHCI at all", None,
         fails("initramfs-lacks-driver"), "initramfs-shell", bus="sata", aws=boots(), azure=boots()),
    idle("no-hyperv", "no hv_storvsc in the initramfs", lambda image: defects.initramfs_without(image, "hv_storvsc"),
         boots(), "login", aws=boots(), azure=fails("initramfs-lacks-driver"), why="only Azure needs it"),
    idle("no-modules", "no module of the kernel on /, and no network card's in the initramfs", defects.no_modules,
         boots("kernel-lacks-driver"), "login", everywhere=True, why="what / needs is in the initramfs"),

    # --- root and fstab
    idle("root-sda1-on-virtio", "root=/dev/sda1 and fstab by it", lambda image: defects.root_by_name(image, "/dev/sda1"),
         fails("root-by-device-name", "fstab-device-name"), "initramfs-shell", "/dev/sda1 does not exist",
         aws=fails("root-by-device-name"), converts=True),
    idle("root-sda1-on-ide", "root=/dev/sda1 and fstab by it, on the bus it came from",
         lambda image: defects.root_by_name(image, "/dev/sda1"), boots(), "login", bus="ide",
         aws=fails("root-by-device-name")),
    idle("root-uuid-nowhere", "root= names a UUID that no file system has",
         lambda image: defects.root_parameter(image, UUID_NOWHERE), fails("root-not-found"), "initramfs-shell", "does not exist",
         everywhere=True),
    idle("fstab-other-disk", "/srv by /dev/sda2, which is not there", lambda image: defects.fstab(image, "/dev/sda2 /srv ext4 defaults 0 2"),
         fails("fstab-device-name"), "emergency", aws=fails("fstab-device-name"), why="systemd waits for 90 s, then gives up", converts=True),
    idle("fstab-uuid-nowhere", "/srv by a UUID that is nowhere, without nofail",
         lambda image: defects.fstab(image, f"{UUID_NOWHERE} /srv ext4 defaults,x-systemd.device-timeout=5s 0 2"),
         fails("fstab-missing-device"), "emergency", everywhere=True, converts=True),
    idle("root-full", "no block of / is free", defects.full, boots("file-system-full"), "login", everywhere=True),
    idle("root-errors", "the superblock says that an error was met", defects.errors_flag, boots("file-system-damaged"), "login",
         everywhere=True, why="it is repaired in the boot, and the guest starts once more"),

    # --- userland
    idle("init-link-missing", "/sbin/init is gone", defects.no_init_link, fails("init-missing"), "bare-shell", everywhere=True),
    idle("systemd-missing", "/sbin/init leads nowhere", defects.no_systemd, fails("init-missing"), "bare-shell", everywhere=True),
    idle("passwd-missing", "no /etc/passwd", lambda image: image.edit("rm /etc/passwd"), boots("login-broken"), "login",
         everywhere=True),
    idle("shadow-empty", "/etc/shadow has no bytes", lambda image: image.overwrite("/etc/shadow", b""), boots("login-broken"), "login",
         everywhere=True),
    idle("no-serial-console", "no console= at all", lambda image: defects.console(image, "quiet"), boots("console-missing"),
         "screen-login", everywhere=True, converts=True),
    idle("no-serial-getty", "serial-getty@ttyS0 is masked", defects.no_serial_getty, boots("no-serial-login"),
         "screen-login", everywhere=True, converts=True),
    idle("network-mac-bound", "a fixed address, and a rule that binds the name to a MAC", defects.mac_bound,
         boots("network-mac-bound", "network-static"), "login", everywhere=True, converts=True),
]

BY_NAME = {variant.name: variant for variant in VARIANTS}
