"""The pure parts of the broken guests: the table, the signs, the initramfs, what is compared. No guest is needed."""

import pathlib
import sys
import unittest
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from broken import initramfs, machine, predict, report, signs  # noqa: E402
from broken.boot import Seen, is_dead  # noqa: E402
from broken.variants import BOOTS, BY_NAME, NOT, UNKNOWN, VARIANTS, Told, Variant  # noqa: E402
from harness.failed import Failed  # noqa: E402


def record(name, content=b""):
    named = name.encode() + b"\0"
    numbers = [0, 0o100644, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(named), 0]
    head = b"070701" + b"".join(b"%08x" % number for number in numbers) + named
    head += bytes(-len(head) % 4)
    return head + content + bytes(-len(content) % 4)


def archive(*names):
    return b"".join(record(name, name.encode() * 3) for name in names) + record("TRAILER!!!")


class Table(unittest.TestCase):
    def test_names_are_unique_and_there_are_enough(self):
        self.assertEqual(len(BY_NAME), len(VARIANTS))
        self.assertGreaterEqual(sum(not variant.boots for variant in VARIANTS), 12)

    def test_what_is_predicted_is_what_is_seen(self):
        """The point of it all: a verdict in the table that contradicts the boot in the table would be a lie."""
        for variant in VARIANTS:
            with self.subTest(variant.name):
                self.assertEqual(variant.qemu.verdict, BOOTS if variant.boots else NOT)

    def test_kinds_buses_and_verdicts_are_known(self):
        kinds = {"login", "screen-login", "silent", "resets", *(kind for kind, _ in signs.FINAL)}
        for variant in VARIANTS:
            with self.subTest(variant.name):
                self.assertIn(variant.seen, kinds)
                self.assertIn(variant.bus, machine.BUSES)
                for told in (variant.qemu, variant.aws, variant.azure):
                    self.assertTrue(told is None or told.verdict in (BOOTS, NOT, UNKNOWN))
                self.assertFalse(set(variant.absent) & set(variant.qemu.codes))

    def test_two_at_least_are_fast(self):
        self.assertGreaterEqual(sum(variant.fast for variant in VARIANTS), 2)


class Signs(unittest.TestCase):
    def kind(self, serial="", screen=""):
        return signs.final(signs.text_of_serial(serial.encode()), screen)

    def test_each_sign(self):
        for kind, text in (
            ("login", "Debian GNU/Linux 12 vm ttyS0\r\n\r\nvm login: "),
            ("panic", "[    3.2] Kernel panic - not syncing: VFS: Unable to mount root fs"),
            ("initramfs-shell", "ALERT!  UUID=x does not exist.  Dropping to a shell!\r\n(initramfs) "),
            ("emergency", "You are in emergency mode. After logging in"),
            ("bare-shell", "/bin/sh: 0: can't access tty; job control turned off\r\n# "),
            ("grub-rescue", "error: unknown filesystem.\r\ngrub rescue> "),
            ("grub-shell", "\x1b[?25hgrub>\x1b[0m \x1b[5;7H"),
            ("no-boot-device", "BdsDxe: No bootable option or device was found."),
        ):
            with self.subTest(kind):
                self.assertEqual(self.kind(text), kind)

    def test_what_stops_a_boot_is_seen_on_the_screen_too(self):
        """Whose lines have no blanks at their end."""
        for kind, text in (("grub-rescue", "grub rescue>"), ("grub-shell", "grub>"), ("initramfs-shell", "(initramfs)"), ("no-boot-device", "No bootable device.")):
            with self.subTest(kind):
                self.assertEqual(self.kind(screen=text), kind)

    def test_a_boot_under_way_has_none(self):
        self.assertIsNone(self.kind("Begin: Mounting root file system ...\r\n[    1.0] systemd[1]: Starting"))
        self.assertIsNone(self.kind("/bin/sh: can't access tty; job control turned off"))

    def test_silence_proves_nothing_where_qemu_did_not_run(self):
        self.assertFalse(is_dead(29, 20))
        self.assertTrue(is_dead(31, 20))
        self.assertFalse(is_dead(80, 2))
        self.assertTrue(is_dead(91, 0))     # the guest halted

    def test_a_login_outweighs_what_was_said_before(self):
        self.assertEqual(self.kind("grub> \r\nvm login: "), "login")

    def test_a_login_on_the_screen_is_not_one_on_the_line(self):
        self.assertIsNone(self.kind("", "vm login:"))
        self.assertTrue(signs.on_screen_only("", "Debian tty1\nvm login:"))
        self.assertFalse(signs.on_screen_only("vm login: ", "vm login:"))

    def test_the_screen_is_read_from_vga_memory(self):
        cells = "".join(word.ljust(80) for word in ("SeaBIOS", "", "No bootable device.")).encode()
        memory = b"".join(bytes((letter, 7)) for letter in cells)
        self.assertEqual(signs.text_of_screen(memory), "SeaBIOS\nNo bootable device.")


class Initramfs(unittest.TestCase):
    def test_files_are_left_out_and_the_rest_stays(self):
        whole = archive("init", "lib/modules/6/virtio_blk.ko", "lib/modules/6/virtio_blk_not.ko", "lib/modules/6/virtio_pci.ko.xz")
        packed = zlib.compressobj(wbits=31)
        small = initramfs.without(packed.compress(whole) + packed.flush(), r".*/virtio_(blk|pci)\.ko(\.\w+)?")
        self.assertEqual(initramfs.names(small), ["init", "lib/modules/6/virtio_blk_not.ko"])

    def test_microcode_in_front_stays_as_it_is(self):
        early = archive("kernel/x86/microcode/GenuineIntel.bin") + bytes(300)
        packed = zlib.compressobj(wbits=31)
        whole = early + packed.compress(archive("init", "a.ko")) + packed.flush()
        self.assertEqual(initramfs.early_length(whole), len(early))
        small = initramfs.without(whole, r"a\.ko")
        self.assertTrue(small.startswith(early))
        self.assertEqual(initramfs.names(small), ["init"])

    def test_one_that_is_not_packed(self):
        whole = archive("init", "a.ko") + bytes(200)
        self.assertIsNone(initramfs.early_length(whole))
        self.assertEqual(initramfs.names(initramfs.without(whole, r"a\.ko")), ["init"])

    def test_a_defect_that_changes_nothing_is_an_error(self):
        with self.assertRaises(Failed):
            initramfs.without(archive("init"), r"a\.ko")

    def test_garbage_is_an_error(self):
        with self.assertRaises(Failed):
            initramfs.without(b"neither this nor that", r"a\.ko")


def variant(**more):
    return Variant(**{"name": "v", "how": "", "base": "idle", "firmware": "bios", "bus": "virtio", "make": None,
                      "qemu": Told(NOT, ("kernel-missing",)), "seen": "grub-shell", **more})


DOCUMENT = {
    "targets": [
        {"target": "qemu", "verdict": NOT, "findings": [
            {"code": "kernel-missing", "severity": "note"}, {"code": "kernel-missing", "severity": "blocks"}]},
        {"target": "aws", "verdict": BOOTS, "findings": []},
    ]
}


class Compared(unittest.TestCase):
    def test_the_gravest_of_a_code_counts(self):
        self.assertEqual(predict.read_answer(DOCUMENT)["qemu"], (NOT, {"kernel-missing": "blocks"}))

    def test_what_agrees(self):
        self.assertEqual(predict.disagreements(variant(aws=Told(BOOTS)), predict.read_answer(DOCUMENT)), [])

    def test_verdict_code_target_and_false_alarm(self):
        wanted = variant(qemu=Told(BOOTS, ("root-by-device-name",)), azure=Told(BOOTS), absent=("kernel-missing",))
        found = predict.disagreements(wanted, predict.read_answer(DOCUMENT))
        self.assertEqual(found, [
            "qemu: does-not-boot, not boots (kernel-missing)",
            "qemu: no finding root-by-device-name",
            "azure: nothing is said",
            "qemu: false alarm kernel-missing",
        ])

    def test_what_was_seen(self):
        result = report.Result(variant(shows="not found"), seen=Seen("grub-shell", 3.0, "error: file not found", ""))
        self.assertEqual(report.mismatches(result), [])
        result.seen = Seen("login", 3.0, "", "")
        self.assertEqual(report.mismatches(result), ["seen: login, not grub-shell"])
        result.seen = Seen("grub-shell", 3.0, "", "")
        self.assertEqual(report.mismatches(result), ["seen: grub-shell, but its console has no 'not found'"])
        self.assertIn("0 of 1", report.table([result]))
        self.assertEqual(report.document(result)["seen"], {"kind": "grub-shell", "seconds": 3.0})


if __name__ == "__main__":
    unittest.main()
