"""The judging can fail: each rule is broken once."""

import os
import pathlib
import sqlite3
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from harness import disks, judge  # noqa: E402
from harness.judge import ledger  # noqa: E402


def rows(count):
    made, previous = [], ""
    for n in range(1, count + 1):
        body = bytes([n]) * n
        previous = ledger.row_sum(previous, n, n * 10, body)
        made.append((n, n * 10, body, previous))
    return made


def order(before, after):
    slots = [ledger.pack_order(n, 1).ljust(ledger.ORDER_SLOT, b"\0") if n else bytes(ledger.ORDER_SLOT) for n in (before, after)]
    return b"".join(slots)


class Rows(unittest.TestCase):
    def test_whole(self):
        self.assertEqual(judge.judge_rows(rows(5), 5), (5, []))
        self.assertEqual(judge.judge_rows([], 0), (0, []))

    def test_more_than_acknowledged_is_good(self):
        self.assertEqual(judge.judge_rows(rows(5), 3), (5, []))

    def test_an_acknowledged_row_is_lost(self):
        _, findings = judge.judge_rows(rows(5), 7)
        self.assertEqual(findings, ["rows 6 to 7 were acknowledged before the capture and are lost"])

    def test_a_row_between_is_lost(self):
        broken = rows(5)
        del broken[2]
        self.assertIn("row 3 is missing", judge.judge_rows(broken, 5)[1][0])

    def test_a_body_is_changed(self):
        broken = rows(5)
        broken[3] = (4, 40, b"other", broken[3][3])
        self.assertEqual(judge.judge_rows(broken, 5)[1], ["row 4 does not match its checksum"])

    def test_a_row_of_another_history(self):
        broken = rows(5)
        broken[1] = (2, 20, b"x", ledger.row_sum("", 2, 20, b"x"))
        self.assertEqual(judge.judge_rows(broken, 5)[1], ["row 2 does not match its checksum"])


class Database(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "rows.db")
        database = sqlite3.connect(self.path)
        database.execute(ledger.SCHEMA)
        database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", rows(200))
        database.commit()
        database.close()

    def tearDown(self):
        self.folder.cleanup()

    def test_good(self):
        self.assertEqual(judge.judge_database(self.path, 200), (200, []))

    def test_a_page_is_overwritten(self):
        with open(self.path, "r+b") as file:
            file.seek(3 * 4096)
            file.write(os.urandom(4096))
        self.assertTrue(judge.judge_database(self.path, 200)[1])

    def test_damage_beside_the_rows(self):
        with open(self.path, "r+b") as file:
            file.seek(36)               # how many pages are free, by the file's header
            file.write((5).to_bytes(4, "big"))
        (finding,) = judge.judge_database(self.path, 200)[1]
        self.assertIn("integrity check", finding)

    def test_not_a_database(self):
        with open(self.path, "wb") as file:
            file.write(b"no database at all" * 1000)
        self.assertIn("does not open", judge.judge_database(self.path, 0)[1][0])


class Order(unittest.TestCase):
    def test_every_instant_of_a_write(self):
        for before, row, after in ((0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1), (8, 7, 7), (8, 8, 7), (8, 8, 8)):
            self.assertEqual(judge.judge_order(order(before, after), row), [], (before, row, after))

    def test_the_first_disk_is_newer(self):
        self.assertIn("different instants", judge.judge_order(order(8, 8), 9)[0])

    def test_the_second_disk_is_newer(self):
        self.assertIn("different instants", judge.judge_order(order(8, 8), 7)[0])

    def test_torn_within_the_second_disk(self):
        self.assertIn("torn", judge.judge_order(order(9, 7), 8)[0])

    def test_a_torn_record(self):
        broken = bytearray(order(8, 8))
        broken[9] ^= 1
        self.assertEqual(judge.judge_order(bytes(broken), 8), ["an order record is torn"])

    def test_no_record_but_rows(self):
        self.assertTrue(judge.judge_order(b"", 3))


class Tree(unittest.TestCase):
    done = [
        {"do": "put", "name": "a", "seed": "s1", "size": 100},
        {"do": "put", "name": "b", "seed": "s2", "size": 5000},
        {"do": "append", "name": "a", "seed": "s1", "size": 150},
        {"do": "rename", "name": "b", "to": "c"},
        {"do": "put", "name": "d", "seed": "s3", "size": 10},
        {"do": "delete", "name": "d"},
    ]

    def manifest(self, flying=None):
        lines = []
        for number, entry in enumerate(self.done, 1):
            lines.append(ledger.pack_entry({**entry, "op": number, "phase": "will"}))
            lines.append(ledger.pack_entry({"op": number, "phase": "did"}))
        if flying:
            lines.append(ledger.pack_entry({**flying, "op": len(self.done) + 1, "phase": "will"}))
        return b"".join(lines)

    def contents(self, **changes):
        found = {"a": ledger.stream("s1", 150), "c": ledger.stream("s2", 5000), **changes}
        return {name: content for name, content in found.items() if content is not None}

    def judge(self, contents, flying=None, acknowledged=6):
        return judge.judge_tree(self.manifest(flying), contents, acknowledged)[1]

    def test_at_rest(self):
        self.assertEqual(judge.judge_tree(self.manifest(), self.contents(), 6), (6, []))

    def test_a_torn_last_line_is_no_finding(self):
        manifest = self.manifest() + b"0badf00d {\"op\""
        self.assertEqual(judge.judge_tree(manifest, self.contents(), 6)[1], [])

    def test_a_damaged_line_is(self):
        manifest = self.manifest().replace(b"5000", b"5001")
        self.assertIn("line 3", judge.judge_tree(manifest, self.contents(), 6)[1][0])

    def test_lost_operations(self):
        self.assertIn("operations 7 to 8", self.judge(self.contents(), acknowledged=8)[0])

    def test_missing_changed_and_stray_files(self):
        self.assertEqual(self.judge(self.contents(a=None)), ["file a is missing"])
        self.assertIn("file c", self.judge(self.contents(c=bytes(5000)))[0])
        self.assertIn("file a", self.judge(self.contents(a=ledger.stream("s1", 100)))[0])
        self.assertIn("file z is in no", self.judge(self.contents(z=b""))[0])
        self.assertIn("file d is in no", self.judge(self.contents(d=b""))[0])

    def test_an_append_in_flight(self):
        flying = {"do": "append", "name": "a", "seed": "s1", "size": 200}
        for size in (150, 170, 200):
            self.assertEqual(self.judge(self.contents(a=ledger.stream("s1", size)), flying), [])
        for content in (ledger.stream("s1", 149), ledger.stream("s1", 201), ledger.stream("s1", 150) + bytes(20), None):
            self.assertNotEqual(self.judge(self.contents(a=content), flying), [])

    def test_a_put_in_flight(self):
        flying = {"do": "put", "name": "a", "seed": "s9", "size": 30}
        half = {".new-7": b"any"}
        self.assertEqual(self.judge(self.contents(**half), flying), [])
        self.assertEqual(self.judge(self.contents(a=ledger.stream("s9", 30)), flying), [])
        self.assertNotEqual(self.judge(self.contents(a=ledger.stream("s9", 29)), flying), [])
        self.assertNotEqual(self.judge(self.contents(**half)), [])

    def test_a_rename_in_flight(self):
        flying = {"do": "rename", "name": "a", "to": "e"}
        a = ledger.stream("s1", 150)
        self.assertEqual(self.judge(self.contents(), flying), [])
        self.assertEqual(self.judge(self.contents(a=None, e=a), flying), [])
        self.assertNotEqual(self.judge(self.contents(a=None), flying), [])
        self.assertNotEqual(self.judge(self.contents(e=a), flying), [])

    def test_a_delete_in_flight(self):
        flying = {"do": "delete", "name": "a"}
        self.assertEqual(self.judge(self.contents(), flying), [])
        self.assertEqual(self.judge(self.contents(a=None), flying), [])
        self.assertNotEqual(self.judge(self.contents(c=None), flying), [])


class Replay(unittest.TestCase):
    def judge(self, *lines, code=0):
        return disks.judge_replay(code, "\n".join(f"/tmp/check/copy: {line}" for line in lines))

    def test_what_a_mount_does(self):
        lines = ("recovering journal", "Clearing orphaned inode 1234 (uid=0, gid=0, mode=0100600, size=0)", "clean, 12/34 files, 56/78 blocks")
        self.assertEqual(self.judge(*lines), [])
        self.assertEqual(self.judge(*lines, code=1), [])

    def test_a_repair_in_passing(self):
        (text,) = self.judge("recovering journal", "Inode 12, i_blocks is 16, should be 8.  FIXED.", code=1)
        self.assertIn("more than a replay", text)

    def test_what_it_cannot_repair(self):
        self.assertIn("ended with 4", self.judge("UNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.", code=4)[0])


class Serial(unittest.TestCase):
    def test_alarms(self):
        quiet = "[    1.0] EXT4-fs (vda3): mounted filesystem\n[   2.0] XFS (vdb): Ending clean mount\n"
        quiet += "[    0.0] calibrate_delay_direct() failed to get a good estimate for loops_per_jiffy.\nvm login: "
        self.assertEqual(judge.judge_serial(quiet), [])
        for line in (
            "[   20.1] I/O error, dev vda, sector 5 op 0x1:(WRITE)",
            "[   21.0] EXT4-fs error (device vda3): ext4_find_entry",
            "[   21.0] XFS (vdb): Corruption of in-memory data",
            "[   99.0] INFO: task python3:300 blocked for more than 120 seconds.",
        ):
            self.assertEqual(judge.judge_serial(quiet + "\n" + line), [line])


if __name__ == "__main__":
    unittest.main()
