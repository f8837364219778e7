"""The kill harness and its parts, without a guest."""

import pathlib
import socket
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from harness import invariants, kill, s3, uplink  # noqa: E402


def plan(command, kills=6, span=0.3, **more):
    return kill.Plan(lambda number: command, kills, span, 7, **{"after_kill": [], "after_sweep": [], "sweep_every": 3, **more})


def state_of(pid):
    """T is stopped. It takes a moment until it is."""
    for _ in range(100):
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
        if state == "T":
            break
        threading.Event().wait(0.01)
    return state


class Kills(unittest.TestCase):
    def test_a_group_dies_with_its_children(self):
        with tempfile.TemporaryDirectory() as folder:
            mark = pathlib.Path(folder) / "mark"
            command = ["sh", "-c", f"(sleep 1.5; touch {mark}) & sleep 60"]
            runs = kill.run_kills(plan(command, kills=2, span=0.2, sweep_every=99, sweep_seconds=0.2))
            self.assertEqual([run.kind for run in runs], ["killed", "killed", "undisturbed"])
            self.assertEqual([run.status for run in runs], [None, None, None])
            threading.Event().wait(2)
            self.assertFalse(mark.exists())

    def test_sweeps_come_between_and_last(self):
        seen = []
        checks = {"after_kill": [lambda: seen.append("k") or []], "after_sweep": [lambda: seen.append("s") or []]}
        runs = kill.run_kills(plan(["sleep", "60"], kills=7, span=0.01, sweep_seconds=0.01, **checks))
        self.assertEqual("".join(seen), "kkkks" "kkkks" "kks")
        self.assertEqual(len(runs), 10)

    def test_findings_are_kept_and_rescued(self):
        rescued = []
        made = plan(["sleep", "60"], kills=2, sweep_every=99, sweep_seconds=0.1, after_kill=[lambda: ["frozen"]], rescue=lambda: rescued.append(1))
        summary = kill.summarise(made, kill.run_kills(made))
        self.assertEqual(len(rescued), 3)
        self.assertEqual(sum("frozen" in text for text in summary["findings"]), 3)
        self.assertEqual((summary["kills"], summary["undisturbed"]), (2, 1))

    def test_a_run_that_fails_by_itself_is_a_finding(self):
        runs = kill.run_kills(plan(["false"], kills=1, span=5))
        self.assertTrue(all("ended" in run.findings[0] for run in runs))

    def test_what_a_run_wrote_is_kept(self):
        with tempfile.TemporaryDirectory() as folder:
            made = plan(["echo", "done"], kills=0, span=5, logs=pathlib.Path(folder))
            kill.undisturbed_run(made, 1)
            self.assertEqual((pathlib.Path(folder) / "undisturbed-1.out").read_text(), "done\n")

    def test_a_run_that_ends_before_its_moment_is_no_kill(self):
        numbers = []

        def command(number):
            numbers.append(number)
            return ["true"] if number < 4 else ["sleep", "60"]

        made = kill.Plan(command, 2, 0.3, 7, [], [], sweep_seconds=0.1)
        summary = kill.summarise(made, kill.run_kills(made))
        # Only a run that was over in its few milliseconds is left out; the last number is the sweep's too.
        self.assertEqual((summary["kills"], numbers[-1]), (2, numbers[-2]))
        self.assertEqual(summary["kills"] + summary["ended before the kill"], len(numbers) - summary["undisturbed"])

    def test_too_few_kills_are_a_finding(self):
        made = plan(["true"], kills=2, span=30)
        runs = kill.run_kills(made)
        self.assertEqual(len(runs), made.most_tries + 1)
        self.assertIn("0 of 2 runs were killed", kill.summarise(made, runs)["findings"][0])

    def test_another_status_is_excused_by_what_it_said(self):
        with tempfile.TemporaryDirectory() as folder:
            for words, good in (("vault away", True), ("out of memory", False)):
                made = plan(
                    ["sh", "-c", f"echo {words} >&2; exit 1"],
                    kills=0,
                    logs=pathlib.Path(folder),
                    excused=lambda status, stderr: status == 1 and "vault away" in stderr,
                )
                self.assertEqual(kill.undisturbed_run(made, 1).findings == (), good)

    def test_every_second_kill_waits_for_what_is_soon_over(self):
        began = []

        def begun(before):
            began.append(time.monotonic())
            return len(began) % 5 == 0

        made = plan(["sleep", "60"], kills=4, span=0.01, sweep_every=99, sweep_seconds=0.5, begun=begun, begun_span=0.01)
        runs = kill.run_kills(made)
        self.assertEqual(len(began), 10)
        self.assertTrue(all((run.after >= 0.04) == (run.number % 2 == 0) for run in runs[:4]))

    def test_what_a_kill_hit_is_counted(self):
        looks = iter("abcdefgh")
        made = plan(["sleep", "60"], kills=2, sweep_seconds=0.1, look=lambda: next(looks))
        made.glimpse, made.phase = state_of, lambda before, after, seen: before + seen + after
        self.assertEqual(kill.summarise(made, kill.run_kills(made))["phases"], {"aTb": 1, "cTd": 1})

    def test_eventually(self):
        answers = [["no"], ["no"], []]
        self.assertEqual(invariants.eventually(5, lambda: answers.pop(0))(), [])
        self.assertEqual(invariants.eventually(0.2, lambda: ["never"])(), ["never"])


class Recovers(unittest.TestCase):
    def recovery(self, *answers):
        made = invariants.Recovery.__new__(invariants.Recovery)
        answers = list(answers)
        made.running, made.thawed, made.seconds, made.took = (lambda: answers.pop(0)), (lambda: []), 0.25, []
        return made

    def test_only_a_guest_that_stood_still_is_timed(self):
        well = self.recovery([])
        self.assertEqual((well(), well.took), ([], []))
        late = self.recovery(["paused"], ["paused"], [])
        self.assertEqual(late(), [])
        self.assertGreaterEqual(late.took[0], 0.1)

    def test_one_that_does_not_come_back_is_a_finding(self):
        dead = self.recovery(*[["paused"]] * 9)
        self.assertEqual(dead(), ["paused"])


class Left(unittest.TestCase):
    def test_beyond(self):
        none = frozenset()
        before = invariants.Holdings(frozenset({"root"}), none, none, none)
        after = invariants.Holdings(frozenset({"root", "x"}), frozenset({"root/b"}), none, frozenset({"j"}))
        self.assertEqual(list(after.beyond(before)), [("node", "x"), ("bitmap", "root/b"), ("job", "j")])


class Rates(unittest.TestCase):
    def test_busiest(self):
        samples = [(0, 0), (1, 1000), (2, 1000), (3, 5000), (4, 5000)]
        self.assertEqual(uplink.busiest_rate(samples, 1), 32000)
        self.assertEqual(uplink.busiest_rate(samples, 3), 5000 * 8 / 3)
        self.assertIsNone(uplink.busiest_rate(samples, 10))


class Door(unittest.TestCase):
    def setUp(self):
        self.echo = socket.create_server(("127.0.0.1", 0))

        def serve():
            while True:
                try:
                    client, _ = self.echo.accept()
                except OSError:
                    return
                threading.Thread(target=serve_one, args=(client,), daemon=True).start()

        def serve_one(client):
            with client:
                s3.pump(client, client)

        threading.Thread(target=serve, daemon=True).start()
        self.door = s3.Door(*self.echo.getsockname())

    def tearDown(self):
        self.door.shut()
        self.echo.close()

    def connect(self):
        made = socket.create_connection(("127.0.0.1", self.door.port), timeout=5)
        self.addCleanup(made.close)
        return made

    def says(self, connection, words):
        connection.sendall(words)
        self.assertEqual(connection.recv(len(words)), words)

    def ends(self, connection):
        try:
            self.assertEqual(connection.recv(3), b"")
        except ConnectionResetError:
            pass

    def test_shut_and_open(self):
        first = self.connect()
        self.says(first, b"one")
        self.assertEqual(self.door.carries(), 3)
        self.door.shut()
        self.ends(first)
        with self.assertRaises(OSError):
            self.connect()
        self.door.open()
        self.says(self.connect(), b"two")

    def test_busy(self):
        first = self.connect()
        self.says(first, b"one")
        self.door.behave(s3.BUSY)
        self.ends(first)
        asked = self.connect()
        asked.sendall(b"PUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")
        self.assertTrue(asked.recv(1000).startswith(b"HTTP/1.1 503 "))
        self.door.behave()
        self.says(self.connect(), b"two")

    def test_a_body_is_reset_in_its_middle(self):
        self.door.behave(s3.RESET)
        cut = self.connect()
        got = 0
        with self.assertRaises(OSError):
            for _ in range(100):
                cut.sendall(bytes(16 << 10))
                got += len(cut.recv(16 << 10))
                if not cut.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                    raise ConnectionResetError
        self.assertLess(got, s3.MOST_BEFORE_RESET)
        self.door.behave()
        self.says(self.connect(), b"two")


if __name__ == "__main__":
    unittest.main()
