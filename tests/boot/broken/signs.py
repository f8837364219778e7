"""What a console says of how far a boot came. Pure."""

import re

# The first that is seen tells the outcome, except a login on the serial line, which comes before all: nothing that was
# said before can have kept it away. The kinds are what a variant's `seen` names.
SERIAL_LOGIN = re.compile(r" login: ")
FINAL = [
    ("panic", re.compile(r"Kernel panic - not syncing")),
    ("initramfs-shell", re.compile(r"^\(initramfs\)", re.MULTILINE)),
    ("emergency", re.compile(r"You are in emergency mode|Cannot open access to console, the root account is locked")),
    # dash as the init: what an initramfs tries last. BusyBox, in the initramfs itself, says no "0:".
    ("bare-shell", re.compile(r"/bin/sh: 0: can't access tty")),
    ("grub-rescue", re.compile(r"^grub rescue>", re.MULTILINE)),
    ("grub-failed", re.compile(r"Failed to boot both default and fallback entries")),
    ("grub-shell", re.compile(r"grub>")),
    ("no-boot-device", re.compile(r"No bootable device|No bootable option or device was found|UEFI Interactive Shell")),
]
SCREEN_LOGIN = re.compile(r" login:")
KERNEL = re.compile(r"Linux version \d|Booting Linux|systemd\[1\]|Loading, please wait|Begin: ")
COLUMNS = 80
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>c78]")


def text_of_serial(data):
    return ESCAPES.sub("", data.decode(errors="replace")).replace("\r", "")


def text_of_screen(memory):
    """Of VGA's text memory: a character and its colours in turn. All of it, as a console scrolls by moving the start."""
    letters = memory[0::2].decode("cp437").replace("\0", " ")
    lines = [letters[at:at + COLUMNS].rstrip() for at in range(0, len(letters), COLUMNS)]
    return "\n".join(line for line in lines if line)


def final(serial, screen):
    """The kind of the sign after which nothing else is to come; None while the boot goes on."""
    if SERIAL_LOGIN.search(serial):
        return "login"
    both = f"{serial}\n{screen}"
    return next((kind for kind, pattern in FINAL if pattern.search(both)), None)


def on_screen_only(serial, screen):
    return bool(SCREEN_LOGIN.search(screen)) and not SERIAL_LOGIN.search(serial)


def kernel_runs(serial, screen):
    return bool(KERNEL.search(serial) or KERNEL.search(screen))
