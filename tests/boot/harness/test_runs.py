"""What is made of a gateway's runs: where a kill hit them, and what they said of resyncs."""

import json
import os
import pathlib
import sys
import tempfile
import types
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from harness import acks, killing, phases, poller, qmp, resyncs, sparesite  # noqa: E402
from harness.phases import CAPTURE, OTHER, UPLOAD  # noqa: E402


def look(nodes=(), bitmaps=(), outbox=()):
    return phases.Look(frozenset(nodes), frozenset(bitmaps), frozenset(outbox))


class Phases(unittest.TestCase):
    def test_what_a_run_itself_did(self):
        for before, now, sending, expected in (
            (look(), look(["cbw0"], ["root/1"]), False, CAPTURE),
            (look(), look([], ["root/1"], ["pack"]), False, UPLOAD),
            # What waited is sent first, and of several one has arrived.
            (look(outbox=["a"]), look(outbox=["a"]), True, UPLOAD),
            (look(outbox=["a", "b"]), look(outbox=["b"]), False, UPLOAD),
            (look(), look(), False, OTHER),
            # All has arrived.
            (look(), look([], ["root/1"]), False, OTHER),
        ):
            self.assertEqual(phases.phase(before, now, sending), expected, (before, now))

    def test_what_an_earlier_death_left_is_not_this_run(self):
        left = look(["cbw0"], ["root/1"], ["a"])
        self.assertEqual(phases.phase(left, left, False), OTHER)
        self.assertEqual(phases.phase(look(outbox=["a"]), look(outbox=["a"]), False), OTHER)
        self.assertEqual(phases.phase(left, look(["cbw0"], ["root/2"], ["a"]), False), CAPTURE)

    def test_kills_that_do_not_hit_are_a_finding(self):
        self.assertEqual(phases.judge({CAPTURE: 20, UPLOAD: 20}, 200), [])
        (text,) = phases.judge({CAPTURE: 180, UPLOAD: 2}, 200)
        self.assertIn("2 of 200 kills hit the upload", text)
        self.assertEqual(len(phases.judge({}, 200)), 2)
        self.assertIn("1 at least", phases.judge({CAPTURE: 50}, 50)[0])
        self.assertEqual(phases.judge({}, 10), [])

    def test_the_pace_at_which_the_upload_lasts_as_long_as_the_rest(self):
        self.assertEqual(phases.pace(500_000, 2.0), 2000)
        self.assertEqual(phases.pace(1000, 2.0), 64)


LOG = "2026-11-28T04:07:03Z  INFO sparesite_gateway::capture::live: VM vm: disk root: the bitmap is gone; disk data: the bitmap is gone: passes over its running disks come first\n"


def report(**vm):
    return json.dumps({"vms": [vm]})


class Resyncs(unittest.TestCase):
    def test_the_report_names_its_disks(self):
        self.assertEqual(resyncs.of_run(report(passes=2, compared=["disk root: lost", "disk data: lost"]), ""), {"root", "data"})
        self.assertEqual(resyncs.of_run(report(passes=2, resync=["no name"]), ""), {resyncs.ALL})
        self.assertEqual(resyncs.of_run(report(passes=0, compared=[]), ""), set())
        self.assertIsNone(resyncs.of_report({"read_bytes": 5}))

    def test_a_run_that_was_killed_has_its_log(self):
        self.assertEqual(resyncs.of_run("", LOG), {"root", "data"})
        self.assertEqual(resyncs.of_run('{"vms', LOG), {"root", "data"})
        self.assertEqual(resyncs.of_run("", LOG.replace("disk root: the bitmap is gone; disk data: the bitmap is gone", "lost")), {resyncs.ALL})
        self.assertEqual(resyncs.of_run("", "something else"), set())

    def test_one_that_goes_on_after_a_kill_is_one(self):
        both = {"root", "data"}
        self.assertEqual(resyncs.count([(both, False), (set(), False), ({"root"}, True)]), {"root": 1, "data": 1})

    def test_each_that_begins_again_counts(self):
        times = resyncs.count([({"root"}, True), (set(), True), ({"root", "data"}, False)])
        self.assertEqual(times, {"root": 2, "data": 1})
        self.assertEqual(resyncs.judge(times), ["disk root: 2 resyncs, at most one may be"])
        self.assertEqual(resyncs.judge({"root": 1, "data": 1}), [])

    def test_a_resync_is_over_with_a_point_or_with_a_delta_on_its_way(self):
        def run(status, phase=None):
            return types.SimpleNamespace(status=status, phase=phase)

        self.assertTrue(killing.is_over(run(0), {"root"}))
        self.assertTrue(killing.is_over(run(None, UPLOAD), set()))
        self.assertFalse(killing.is_over(run(None, UPLOAD), {"root"}))
        self.assertFalse(killing.is_over(run(None, CAPTURE), set()))
        self.assertFalse(killing.is_over(run(1), set()))


class Sending(unittest.TestCase):
    def test_only_what_is_written_below_the_vault(self):
        with tempfile.TemporaryDirectory() as folder:
            vault = pathlib.Path(folder) / "vault"
            vault.mkdir()
            for file in (vault / "pack", pathlib.Path(folder) / "state"):
                file.touch()
            for flags, name, expected in (
                (os.O_WRONLY, vault / "pack", True),
                (os.O_TMPFILE | os.O_RDWR, vault, True),
                (os.O_RDONLY, vault / "pack", False),
                (os.O_WRONLY, pathlib.Path(folder) / "state", False),
            ):
                fd = os.open(name, flags)
                self.assertEqual(killing.writes_below(pathlib.Path(f"/proc/self/fd/{fd}"), vault), expected, (flags, name))
                os.close(fd)


class Published(unittest.TestCase):
    def test_too_few_points(self):
        self.assertEqual(killing.judge_count(30, 3, 240), [])
        self.assertEqual(len(killing.judge_count(26, 3, 240)), 1)

    def test_a_lower_consistency(self):
        self.assertEqual(killing.judge_consistency("application", "application"), [])
        self.assertEqual(killing.judge_consistency("file-system", "crash"), [])
        self.assertEqual(len(killing.judge_consistency("crash", "application")), 1)

    def test_only_a_vault_that_is_away_excuses(self):
        away = "error: VM vm: s3://sparesite/site cannot be reached for packs/1: connection refused; check the network\n"
        busy = "error: s3://sparesite/site is busy or failing at packs/1: 503; try again later\n"
        self.assertTrue(sparesite.vault_was_away(1, away) and sparesite.vault_was_away(1, busy))
        self.assertFalse(sparesite.vault_was_away(2, away))
        self.assertFalse(sparesite.vault_was_away(1, "error: the monitor /run/q cannot be reached: gone\n"))
        self.assertFalse(sparesite.vault_was_away(1, "WARN s3://sparesite/site cannot be reached for x\nerror: the state is damaged\n"))


class Instant(unittest.TestCase):
    EVENTS = [qmp.Event(name, at, at, {}) for name, at in (("STOP", 100.0), ("RESUME", 100.1), ("STOP", 120.0), ("RESUME", 120.1), ("STOP", 140.0))]

    def test_the_last_pause_before_it(self):
        self.assertEqual(killing.last_stop(self.EVENTS, 120.4), 120.0)
        self.assertEqual(killing.last_stop(self.EVENTS, 120.0), 120.0)

    def test_one_of_another_capture_is_none(self):
        self.assertIsNone(killing.last_stop(self.EVENTS, 119.0))

    def expected(self, said, events=(), at="1970-01-01T00:01:40.5Z"):
        live = killing.Live.__new__(killing.Live)
        heard = acks.Acks.__new__(acks.Acks)
        offset = killing.time.monotonic() - killing.time.time()
        heard.said = [acks.Said(word, detail, 0, when + offset) for word, detail, when in said]
        live.guest = types.SimpleNamespace(acks=heard, monitor=types.SimpleNamespace(events=list(events)))
        return live.expected({"captured_at": at, "consistency": "application"})

    SAID = (("row", "1", 99.0), ("quiesced", "1", 99.2), ("row", "2", 99.7), ("quiesced", "2", 99.9), ("row", "3", 100.42))

    def test_a_paused_guest_is_judged_by_its_pause(self):
        expected = self.expected(self.SAID, self.EVENTS)
        self.assertEqual((expected.row, expected.quiesced_at), (2, (2,)))

    def test_without_a_pause_it_is_what_the_point_says(self):
        self.assertEqual(self.expected(self.SAID).row, 3)
        self.assertEqual(self.expected(self.SAID, at="1970-01-01T00:01:40.44Z").row, 2)


class Held(unittest.TestCase):
    def test_one_stretch(self):
        self.assertEqual(poller.longest_held([(1.0, False), (1.1, True), (1.2, True), (1.4, True), (1.5, False), (2.0, True)]), 1.4 - 1.1)
        self.assertEqual(poller.longest_held([(1.0, False)]), 0.0)
        self.assertIsNone(poller.longest_held([]))


if __name__ == "__main__":
    unittest.main()
