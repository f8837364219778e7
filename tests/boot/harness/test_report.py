"""What is measured becomes figures, and what misses a target is said."""

import pathlib
import sys
import time
import types
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from harness import acks, failed, guest, point, poller, qmp, report, series, timing, vaults, writes  # noqa: E402
from harness.capture import Capture, Copy  # noqa: E402

RECIPE = guest.Recipe(pathlib.Path("f"), pathlib.Path("i"))
REST = {
    "seconds": 10.0,
    "rows": 100,
    "interval_asked": 10.0,
    "late": timing.distribution([0.0, 4.9]),
    "gaps_between_captures": timing.distribution([]),
    **{name: timing.distribution([0.01]) for name in ("second_client", "client_of_the_same_monitor")},
}
STATE = {"bytes": 1000, "data_bytes": 1 << 30}


def taken(number, pause=0.02, freeze=0.03, findings=(), read=None, written=None, asked="crash", has="crash", seen=0.15, **more):
    facts = {"asked": asked, "held_seconds": 0.2, "passes": 0, "resyncs": [], **more}
    facts |= {} if read is None else {"read_bytes": read}
    return series.Taken(
        number,
        Capture(str(number), has, 1.0, 2.0, freeze, facts),
        point.Expected(5, {}, has),
        [] if pause is None else [pause],
        [],
        0.1,
        point.Judged(list(findings)),
        written_blocks=written,
        held_seen=seen,
    )


def summarise(*series_taken, timed=True, capturer=Copy(), notes=(), state=STATE, **rest):
    return report.summarise(capturer, RECIPE, list(series_taken), [], REST | rest, timed, notes, state)


PRODUCT = types.SimpleNamespace(name="product", enforced=True)
GIB = 1 << 30


class Report(unittest.TestCase):
    def test_all_good(self):
        summary = summarise(taken(1), taken(2, read=4096 * 11, written=10))
        self.assertEqual((summary["good"], summary["findings"], summary["missed"]), (2, [], []))
        self.assertIn("2 of 2 points good", report.table(summary))

    def test_findings_are_named_by_point(self):
        summary = summarise(taken(1), taken(2, findings=["root: row 3 is missing"]))
        self.assertEqual(summary["good"], 1)
        self.assertEqual(summary["findings"], ["point 2: root: row 3 is missing"])

    def test_each_target_can_be_missed(self):
        for wrong, word in (
            (taken(1, read=4096 * 13, written=10), "1.30 times"),
            (taken(1, read=4096 * 8, written=10), "0.80 times"),
            (taken(1, asked="application"), "application was asked"),
            (taken(1, written=10, held_seconds=1.1), "held for 1.10 s"),
            (taken(1, written=10, seen=1.3), "held for 1.30 s"),
            (taken(1, written=GIB // 4096, held_seconds=2.1), "target 2.00 s"),
        ):
            (text,) = summarise(wrong)["missed"]
            self.assertIn(word, text)
        self.assertEqual(summarise(taken(1, written=GIB // 4096, held_seconds=1.9))["missed"], [])

    def test_percentiles_are_judged_where_there_are_some(self):
        for slow, word in (({"pause": 0.2}, "pause"), ({"freeze": 0.2}, "freeze window")):
            ten = [taken(number, **slow) for number in range(10)]
            (text,) = summarise(*ten)["missed"]
            self.assertIn(word, text)
            self.assertEqual(summarise(*ten[1:])["missed"], [])
            self.assertEqual(summarise(*ten, timed=False)["missed"], [])

    def test_a_point_that_is_no_delta(self):
        first = taken(1, passes=2)
        self.assertEqual(summarise(first, taken(2))["missed"], [])
        for wrong in (taken(2, passes=1), taken(2, resyncs=["root"])):
            (text,) = summarise(first, wrong)["missed"]
            self.assertIn("no delta", text)

    def test_figures_that_are_missing_are_missed(self):
        good = [taken(1), taken(2, read=4096 * 10, written=10, asked="application", has="application")]
        self.assertEqual(summarise(*good, capturer=PRODUCT)["missed"], [])
        for wrong, word in (
            ({"pause": None}, "pause: 1 of 2"),
            ({"freeze": None}, "freeze window: 0 of 1"),
            ({"held_seconds": None, "seen": 0.0}, "checkpoint held: 0 of 1"),
            ({"read": None}, "read / written: 0 of 1"),
            ({"written": None}, "read / written: 0 of 1"),
            ({"passes": None}, "passes and resyncs: 1 of 2"),
        ):
            usual = {"read": 4096 * 10, "written": 10, "asked": "application", "has": "application"}
            first = taken(1, freeze=None, held_seconds=None)
            (text,) = summarise(first, taken(2, **usual | wrong), capturer=PRODUCT)["missed"]
            self.assertIn(word, text)

    def test_points_that_come_late_and_a_state_of_unknown_size(self):
        late = timing.distribution([0.0, 5.1])
        (text,) = summarise(taken(1), late=late)["missed"]
        self.assertIn("5.1 s late", text)
        for unjudged in ({"timed": False}, {"interval_asked": None}):
            self.assertEqual(summarise(taken(1), late=late, **unjudged)["missed"], [])
        for state in (None, {"bytes": 0, "data_bytes": 1}):
            (text,) = summarise(taken(1), capturer=PRODUCT, state=state)["missed"]
            self.assertIn("state directory", text)

    def test_clients_that_never_were_answered_prove_nothing(self):
        for client in ("second_client", "client_of_the_same_monitor"):
            (text,) = summarise(taken(1), capturer=PRODUCT, **{client: timing.distribution([])})["missed"]
            self.assertIn("was never answered", text)

    def test_a_harness_that_saw_nothing_says_so(self):
        (text,) = summarise(taken(1, seen=0.0), capturer=PRODUCT)["missed"]
        self.assertIn("saw no filter", text)

    def test_a_delta_of_a_sync_that_was_tried_again_is_since_another_point(self):
        summary = summarise(taken(1), taken(2, read=4096 * 3, written=10, tries=2), capturer=PRODUCT)
        self.assertEqual((summary["missed"], summary["read_ratio"]["count"]), ([], 0))

    def test_what_was_left_unproved_is_told(self):
        summary = summarise(taken(1), notes=["XFS was not tried"])
        self.assertEqual(summary["notes"], ["XFS was not tried"])
        self.assertIn("note: XFS was not tried", report.table(summary))

    def test_untimed_deltas_are_judged_together(self):
        small, large = taken(1, pause=0.2, read=4096 * 13, written=10), taken(2, read=4096 * 100, written=100)
        self.assertEqual(summarise(small, large, timed=False)["missed"], [])
        (text,) = summarise(small, timed=False)["missed"]
        self.assertIn("1.30 times", text)


class Clients(unittest.TestCase):
    def problems(self, ask):
        with poller.Poller(ask, "a tool", within=0.02, every=0.01) as polls:
            polls.thread.join(0.5)
        return polls

    def test_a_tool_that_is_refused_or_waits_is_a_problem(self):
        def refused():
            raise failed.Failed("no greeting")

        self.assertEqual(self.problems(refused).problems, ["a tool: no greeting"])
        waits = self.problems(lambda: time.sleep(0.03))
        self.assertIn("a tool waited 0.", waits.problems[0])
        fine = self.problems(lambda: None)
        self.assertTrue(fine.answers)


class Expected(unittest.TestCase):
    def expected(self, events, said, began=10.0, ended=12.0):
        heard = acks.Acks.__new__(acks.Acks)
        heard.said = [acks.Said(word, detail, 0, at) for word, detail, at in said]
        fake = types.SimpleNamespace(acks=heard, monitor=types.SimpleNamespace(events=[qmp.Event(name, at, at, {}) for name, at in events]))
        return series.expected_of(fake, Capture("1", "application", began, ended))

    SAID = (("row", "1", 9.0), ("op", "root 4", 9.5), ("row", "2", 10.5), ("quiesced", "2", 10.8), ("row", "3", 11.5))

    def test_without_a_pause_it_is_the_beginning(self):
        expected = self.expected([], self.SAID)
        self.assertEqual((expected.row, expected.ops, expected.quiesced_at), (1, {"root": 4}, (2,)))

    def test_a_pause_is_later_and_says_more(self):
        self.assertEqual(self.expected([("STOP", 11.0)], self.SAID).row, 2)
        self.assertEqual(self.expected([("STOP", 3.0), ("STOP", 11.0), ("STOP", 11.9)], self.SAID).row, 2)


class Writes(unittest.TestCase):
    LINE = "7@{at}:blk_co_pwritev blk {disk} bs 0x9 offset {offset} bytes {bytes} flags 0x0"

    def count(self, *writes_made, since=10.0, until=20.0):
        lines = [self.LINE.format(at=f"{at:.6f}", disk=disk, offset=offset, bytes=count) for at, disk, offset, count in writes_made]
        return writes.written_blocks(["7@11.0:something else", *lines], since, until)

    def test_a_block_counts_once_and_every_part_of_one_counts(self):
        self.assertEqual(self.count((11, "0xa", 0, 8192), (12, "0xa", 4096, 4096)), 2)
        self.assertEqual(self.count((11, "0xa", 4095, 2)), 2)

    def test_the_disks_are_told_apart(self):
        self.assertEqual(self.count((11, "0xa", 0, 512), (12, "0xb", 0, 512)), 2)

    def test_only_what_lies_between_the_instants(self):
        self.assertEqual(self.count((9, "0xa", 0, 512), (10, "0xa", 4096, 1), (20, "0xa", 8192, 1), (20.5, "0xa", 1 << 20, 1)), 1)


class Caps(unittest.TestCase):
    def judge(self, bits, rate=None, cap="1 Mbit/s", saturated=True, seconds=40):
        made = vaults.Vault()
        samples = [(float(second), second * bits // 8) for second in range(seconds)]
        vaults.judge_rate(made, types.SimpleNamespace(samples=samples), rate, cap, saturated)
        return made.findings

    def test_five_per_cent_either_way(self):
        self.assertEqual(self.judge(1_040_000), [])
        self.assertEqual(self.judge(960_000), [])
        self.assertEqual(len(self.judge(1_060_000)), 1)
        self.assertIn("it was not reached", self.judge(940_000)[0])
        self.assertEqual(self.judge(300_000, saturated=False), [])

    def test_the_line_is_judged_where_there_is_no_cap(self):
        self.assertEqual(self.judge(1_000_000, rate="1 Mbit/s", cap=None), [])
        self.assertEqual(len(self.judge(500_000, rate="1 Mbit/s", cap=None)), 1)
        self.assertEqual(self.judge(500_000, rate="1 Mbit/s", cap="500 kbit/s"), [])
        self.assertEqual(len(self.judge(1_000_000, rate="1 Mbit/s", cap="500 kbit/s")), 1)

    def test_nothing_sent_proves_nothing(self):
        self.assertIn("not known", self.judge(1_000_000, seconds=15)[0])

    def test_rates_as_people_write_them(self):
        self.assertEqual(vaults.bits_per_second("1 Mbit/s"), 1_000_000)
        self.assertEqual(vaults.bits_per_second("2.5 kbit/s"), 2500)
        self.assertRaises(ValueError, vaults.bits_per_second, "1mbit")


if __name__ == "__main__":
    unittest.main()
