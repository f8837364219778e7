"""Ways in which a guest is broken: functions that edit an image."""

import random

from . import initramfs
from .image import MIB, ROOT_MIB

GRUB_CFG = "/boot/grub/grub.cfg"
FSTAB = "/etc/fstab"
INIT = "/usr/sbin/init"
ROOT_BY_UUID = "UUID=5a7e517e-0000-4000-8000-00000000d15c"
UUID_NOWHERE = "UUID=dead0000-0000-4000-8000-000000000000"
BOOT_CODE = 440                         # of the MBR; the disk's signature and the table follow
SECTOR = 512
GPT_SECTORS = 33                        # header and entries, at either end of the disk (the protective MBR aside)


# --- the boot chain

def no_mbr_code(image):
    image.zero(0, BOOT_CODE)


def no_first_sectors(image):
    """The MBR as a whole and GRUB behind it: a disk of which only the partition was copied."""
    image.zero(0, MIB)


def no_core(image):
    """Of GRUB on an MBR disk: the gap between boot sector and first partition."""
    image.zero(SECTOR, MIB - SECTOR)


def no_gpt(image, primary=True, backup=True):
    if primary:
        image.zero(SECTOR, GPT_SECTORS * SECTOR)
    if backup:
        image.zero(image.size() - GPT_SECTORS * SECTOR, GPT_SECTORS * SECTOR)


def no_esp(image):
    """The entry is taken out of the table; what it pointed at stays."""
    image.table("--delete", "2")


def esp_typed_otherwise(image):
    """Microsoft basic data: firmware that goes by the file system alone does not mind."""
    image.table("--part-type", "2", "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7")


def no_efi_loader(image):
    image.esp("mdel", "::/EFI/BOOT/BOOTX64.EFI")


def no_efi_fallback(image):
    """As an installer leaves it that trusts in the firmware's variables."""
    image.esp("mmd", "::/EFI/debian")
    image.esp("mmove", "::/EFI/BOOT/BOOTX64.EFI", "::/EFI/debian/grubx64.efi")


def no_grub_cfg(image):
    image.edit(f"rm {GRUB_CFG}")


def menu(image, *entries, default=0):
    """A grub.cfg with a menu, as distributions have it; an entry is (title, kernel, initramfs)."""
    lines = ["serial --unit=0 --speed=115200", "terminal_output serial console", f"set default={default}", "set timeout=2"]
    for title, kernel, initrd in entries:
        lines += [f"menuentry '{title}' --class debian {{", f"\tlinux {kernel} root={ROOT_BY_UUID} ro console=tty0 console=ttyS0,115200"]
        lines += [f"\tinitrd {initrd}", "}"]
    image.overwrite(GRUB_CFG, "\n".join(lines) + "\n")


# --- kernel and initramfs

def boot_file(image, prefix):
    return next(f"/boot/{name}" for name in image.folder("/boot") if name.startswith(prefix))


def no_kernel(image):
    image.edit(f"rm {boot_file(image, 'vmlinuz-')}")


def empty_kernel(image):
    image.overwrite(boot_file(image, "vmlinuz-"), b"")


def half_kernel(image):
    path = boot_file(image, "vmlinuz-")
    whole = image.read(path)
    image.overwrite(path, whole[:len(whole) // 2])


def no_initramfs(image):
    image.edit(f"rm {boot_file(image, 'initrd.img-')}")


def half_initramfs(image):
    """As a full /boot leaves it."""
    path = boot_file(image, "initrd.img-")
    whole = image.read(path)
    image.overwrite(path, whole[:len(whole) // 2])


def garbage_initramfs(image):
    """Not zeros, which the kernel takes for padding."""
    path = boot_file(image, "initrd.img-")
    image.overwrite(path, random.Random(1).randbytes(len(image.read(path))))


def initramfs_without(image, *modules):
    """Only files go: modules.dep goes on naming them, so whoever believes it is wrong."""
    path = boot_file(image, "initrd.img-")
    pattern = rf".*/({'|'.join(modules)})\.ko(\.\w+)?"
    image.overwrite(path, initramfs.without(image.read(path), pattern))


def no_modules(image):
    """As an upgrade leaves it that removed them and not the kernel. An initramfs has drivers of network cards too."""
    initramfs_without(image, "virtio_net", "hv_netvsc", "ena")
    (version,) = image.folder("/usr/lib/modules")
    image.edit("cd /usr/lib/modules", f"ln {version} gone", f"unlink {version}")


# --- root and the other file systems

def root_parameter(image, device):
    image.replace(GRUB_CFG, f"root={ROOT_BY_UUID}", f"root={device}")


def root_by_name(image, device):
    """As a VM from before UUIDs has it: in both places."""
    root_parameter(image, device)
    image.replace(FSTAB, ROOT_BY_UUID, device)


def fstab(image, line):
    image.append(FSTAB, line + "\n")


def full(image):
    """No block is free, not even of those reserved for root. The last few would go to the first file's own tree."""
    for name, keep in (("fill", 8), ("rest", 0)):
        left = image.free_blocks() - keep
        image.edit(f"write /dev/null /srv/{name}", f"fallocate /srv/{name} 0 {left - 1}")


def errors_flag(image):
    """As the kernel sets it when it met an error."""
    image.edit("set_super_value state 2")


def no_superblock(image):
    image.zero(ROOT_MIB[image.base] * MIB + 1024, 1024)


# --- userland

def no_init_link(image):
    image.edit(f"rm {INIT}")


def no_systemd(image):
    """The link to it dangles."""
    image.edit("rm /usr/lib/systemd/systemd")


def console(image, arguments):
    image.replace(GRUB_CFG, "console=tty0 console=ttyS0,115200", arguments)


def no_serial_getty(image):
    """As `systemctl mask serial-getty@ttyS0` does."""
    image.edit("cd /etc/systemd/system", "symlink serial-getty@ttyS0.service /dev/null")


def mac_bound(image):
    """A fixed address, on a name that a rule gives to one MAC."""
    rule = 'SUBSYSTEM=="net", ACTION=="add", ATTR{address}=="52:54:00:12:34:56", NAME="eth0"\n'
    image.put("/etc/udev/rules.d/70-persistent-net.rules", rule)
    image.edit("mkdir /etc/network")
    image.put("/etc/network/interfaces", "auto lo\niface lo inet loopback\n\nauto eth0\niface eth0 inet static\n  address 192.0.2.10/24\n  gateway 192.0.2.1\n")
