"""Editing an image, on a small file system of its own."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from broken import defects  # noqa: E402
from broken.image import MIB, Image  # noqa: E402
from harness.failed import Failed  # noqa: E402


class Edited(unittest.TestCase):
    def setUp(self):
        place = tempfile.TemporaryDirectory()
        self.addCleanup(place.cleanup)
        self.image = Image(pathlib.Path(place.name) / "disk", "idle")
        with open(self.image.path, "wb") as file:
            file.truncate(9 * MIB)
        make = ["mke2fs", "-q", "-t", "ext4", "-E", f"offset={MIB}", self.image.path, "8M"]
        subprocess.run(make, check=True, capture_output=True)
        self.image.edit("mkdir /etc", "mkdir /srv", "mkdir /boot", "mkdir /boot/grub")
        self.image.put("/etc/fstab", "UUID=1 / ext4 defaults 0 1\n")

    def test_files_are_put_and_changed(self):
        self.image.append("/etc/fstab", "UUID=2 /srv ext4 defaults 0 2\n")
        self.image.replace("/etc/fstab", "UUID=1", "/dev/sda1")
        self.assertEqual(self.image.read("/etc/fstab"), b"/dev/sda1 / ext4 defaults 0 1\nUUID=2 /srv ext4 defaults 0 2\n")
        self.assertEqual(self.image.folder("/etc"), ["fstab"])
        self.assert_sound()

    def test_what_cannot_be_done_is_an_error(self):
        for attempt in (
            lambda: self.image.edit("rm /etc/nothing"),
            lambda: self.image.read("/etc/nothing"),
            lambda: self.image.replace("/etc/fstab", "LABEL", "UUID"),
        ):
            with self.assertRaises(Failed):
                attempt()

    def test_a_file_system_is_filled_to_the_last_block(self):
        defects.full(self.image)
        self.assertEqual(self.image.free_blocks(), 0)
        self.assert_sound()

    def test_a_menu_has_its_entries_and_its_default(self):
        self.image.put(defects.GRUB_CFG, "")
        defects.menu(self.image, ("old", "/k1", "/i1"), ("new", "/k2", "/i2"), default=1)
        text = self.image.read(defects.GRUB_CFG).decode()
        self.assertIn("set default=1\n", text)
        self.assertLess(text.index("menuentry 'old'"), text.index("linux /k2"))

    def test_a_gpt_is_zeroed_at_the_end_that_is_meant(self):
        self.image.write(0, b"\xff" * 40 * 512)
        self.image.write(9 * MIB - 40 * 512, b"\xff" * 40 * 512)
        defects.no_gpt(self.image, backup=False)
        data = self.image.path.read_bytes()
        self.assertEqual(data[:512 * 40], b"\xff" * 512 + bytes(33 * 512) + b"\xff" * 6 * 512)
        self.assertEqual(data[-512 * 40:], b"\xff" * 512 * 40)

    def assert_sound(self):
        done = subprocess.run(["e2fsck", "-fn", self.image.root], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout)


if __name__ == "__main__":
    unittest.main()
