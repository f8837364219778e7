"""The kill harness and its parts, without a guest."""

import pathlib
import socket
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from harness import invariants, kill, s3, uplink  # noqa: E402


def plan(command, kills=6, span=0.3, **more):
    return kill.Plan(lambda number: command, kills, span, 7, **{"after_kill": [], "after_sweep": [], "sweep_every": 3, **more})


class Kills(unittest.TestCase):
    def test_a_group_dies_with_its_children(self):
        with tempfile.TemporaryDirectory() as folder:
            mark = pathlib.Path(folder) / "mark"
            command = ["sh", "-c", f"(sleep 1.5; touch {mark}) & sleep 60"]
            runs = kill.run_kills(plan(command, kills=2, span=0.2, sweep_every=99, sweep_seconds=0.2))
            self.assertEqual([run.status for run in runs], [None, None, None])
            threading.Event().wait(2)
            self.assertFalse(mark.exists())

    def test_sweeps_come_between_and_last(self):
        seen = []
        made = plan(["true"], kills=7, after_kill=[lambda: seen.append("k") or []], after_sweep=[lambda: seen.append("s") or []])
        runs = kill.run_kills(made)
        self.assertEqual("".join(seen), "kkkks" "kkkks" "kks")
        self.assertEqual(len(runs), 10)

    def test_findings_are_kept_and_rescued(self):
        rescued = []
        made = plan(["sleep", "60"], kills=2, sweep_every=99, sweep_seconds=0.1, after_kill=[lambda: ["frozen"]], rescue=lambda: rescued.append(1))
        summary = kill.summarise(made, kill.run_kills(made))
        self.assertEqual(len(rescued), 3)
        self.assertEqual(sum("frozen" in text for text in summary["findings"]), 3)
        self.assertEqual(summary["kills"], 3)

    def test_a_run_that_fails_by_itself_is_a_finding(self):
        runs = kill.run_kills(plan(["false"], kills=1, span=5))
        self.assertTrue(all("ended" in run.findings[0] for run in runs))

    def test_what_a_run_wrote_is_kept(self):
        with tempfile.TemporaryDirectory() as folder:
            kill.run_kills(plan(["echo", "done"], kills=1, span=5, logs=pathlib.Path(folder)))
            self.assertEqual((pathlib.Path(folder) / "undisturbed-1.out").read_text(), "done\n")

    def test_eventually(self):
        answers = [["no"], ["no"], []]
        self.assertEqual(invariants.eventually(5, lambda: answers.pop(0))(), [])
        self.assertEqual(invariants.eventually(0.2, lambda: ["never"])(), ["never"])


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
    def test_shut_and_open(self):
        echo = socket.create_server(("127.0.0.1", 0))

        def serve():
            while True:
                try:
                    client, _ = echo.accept()
                except OSError:
                    return
                threading.Thread(target=serve_one, args=(client,), daemon=True).start()

        def serve_one(client):
            with client:
                s3.pump(client, client)

        threading.Thread(target=serve, daemon=True).start()
        with s3.Door(*echo.getsockname()) as door:
            first = socket.create_connection(("127.0.0.1", door.port), timeout=5)
            first.sendall(b"one")
            self.assertEqual(first.recv(3), b"one")
            door.shut()
            try:
                self.assertEqual(first.recv(3), b"")
            except ConnectionResetError:
                pass
            with self.assertRaises(OSError):
                socket.create_connection(("127.0.0.1", door.port), timeout=5)
            door.open()
            second = socket.create_connection(("127.0.0.1", door.port), timeout=5)
            second.sendall(b"two")
            self.assertEqual(second.recv(3), b"two")
            first.close()
            second.close()
        echo.close()


if __name__ == "__main__":
    unittest.main()
