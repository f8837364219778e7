import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from harness import acks, qmp, timing  # noqa: E402


class Timing(unittest.TestCase):
    def test_percentiles_are_measured_values(self):
        values = list(range(1, 101))
        self.assertEqual([timing.percentile(values, share) for share in (0.5, 0.95, 0.99, 1)], [50, 95, 99, 100])
        self.assertEqual(timing.percentile([7], 0.95), 7)
        self.assertIsNone(timing.percentile([], 0.95))
        self.assertEqual(timing.percentile([1] * 28 + [9, 9], 0.95), 9)

    def test_a_gap_counts_where_it_overlaps(self):
        times = [0, 1, 2, 7, 8]
        self.assertEqual(timing.largest_gap(times, 3, 4), 5)
        self.assertEqual(timing.largest_gap(times, 7.5, 8), 1)
        self.assertEqual(timing.largest_gap(times, 0, 1.5), 1)

    def test_a_writer_that_never_comes_back(self):
        self.assertEqual(timing.largest_gap([0, 1], 1, 30), 29)
        self.assertEqual(timing.largest_gap([], 10, 30), 20)

    def test_gaps_outside(self):
        self.assertEqual(timing.gaps_outside([0, 1, 5, 6], [(2, 3)]), [1, 1])


class Heard(unittest.TestCase):
    def test_lines(self):
        self.assertEqual(acks.parse("row 12 99", 1.5), acks.Said("row", "12", 99, 1.5))
        self.assertEqual(acks.parse("op data 7 99", 1.5).detail, "data 7")

    def test_pauses(self):
        def event(name, at):
            return qmp.Event(name, at, at + 100, {})

        events = [event("STOP", 1), event("RESUME", 1.25), event("STOP", 5), event("RESUME", 7), event("STOP", 9)]
        self.assertEqual(qmp.pauses(events), [0.25, 2])
        self.assertEqual(qmp.pauses(events, since=104), [2])
        self.assertEqual(qmp.pauses(events, until=104), [0.25])


if __name__ == "__main__":
    unittest.main()
