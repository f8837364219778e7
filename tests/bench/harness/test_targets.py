"""The judging, on made-up numbers: python3 -m unittest discover -s tests/bench"""

import unittest

from harness.phases import wrote_anchor
from harness.serving import local_machine
from harness.targets import OURS, judge


def run(wall=1.0, added=0, rss=100):
    return {"wall": wall, "cpu": wall, "rss_mib": rss, "added": added}


def results(**changes):
    names = ("initial", "delta", "assemble", "cycles", "assemble after cycles")
    empty = {name: {} for name in (*names, "synthetic", "limits", "requests", "serving", "blocks")}
    return {**empty, **changes}


def verdicts(phase, **changes):
    return [row.verdict() for row in judge(results(**changes), [phase])]


def serving(local=20.0, vault=30.0, late=60.0, fetched=100, read=100, stored=400, nbd=10.0, assemble=7.0, per_second=20_000):
    boots = [{"local": {"seconds": local}, "vault": {"seconds": vault}, "late": {"seconds": late}}]
    return {
        "boots": boots,
        "large": {"fetched_bytes": fetched, "read_bytes": read, "stored_bytes": stored},
        "sequential": [{"nbd": run(nbd), "assemble": run(assemble)}],
        "random": {"per_second": per_second, "p99_milliseconds": 1.0},
    }


class Targets(unittest.TestCase):
    def test_what_is_served_is_judged_each_for_itself(self):
        self.assertEqual(verdicts("serving", serving=serving()), ["ok"] * 6)
        self.assertEqual(verdicts("serving"), ["not measured"] * 6)
        for number, worse in enumerate((
            {"vault": 30.1}, {"late": 60.1}, {"read": 99}, {"stored": 399}, {"nbd": 10.1}, {"per_second": 19_999},
        )):
            expected = ["ok"] * 6
            expected[number] = "MISSED"
            self.assertEqual(verdicts("serving", serving=serving(**worse)), expected, worse)

    def test_blocks_are_judged_by_the_median_of_their_rows(self):
        rows = lambda *streams: {"rows": [{"minimal": 4.0, "stream": stream} for stream in streams]}  # noqa: E731
        self.assertEqual(verdicts("blocks", blocks=rows(4.9, 5.0, 9.0)), ["ok"])
        self.assertEqual(verdicts("blocks", blocks=rows(4.9, 5.1, 5.1)), ["MISSED"])
        self.assertEqual(verdicts("blocks"), ["not measured"])

    def test_the_local_machine_is_the_vaults_but_for_its_disk_and_sockets(self):
        machine = [
            "qemu", "-blockdev", "driver=nbd,node-name=disk0,discard=unmap,server.type=unix,server.path=/tmp/a/nbd,export=vm",
            "-device", "virtio-blk-pci,drive=disk0", "-chardev", "socket,id=agent,path=/tmp/a/agent,server=on,wait=off",
            "-chardev", "file,id=serial,path=/tmp/a/serial", "-serial", "chardev:serial", "-qmp", "unix:/tmp/a/qmp,server=on,wait=off",
        ]
        self.assertEqual(local_machine(machine, "/b/disk", "/b"), [
            "qemu", "-blockdev", "driver=raw,node-name=disk0,discard=unmap,file.driver=file,file.filename=/b/disk",
            "-device", "virtio-blk-pci,drive=disk0", "-chardev", "socket,id=agent,path=/b/agent,server=on,wait=off",
            "-chardev", "file,id=serial,path=/b/serial", "-serial", "chardev:serial", "-qmp", "unix:/b/qmp,server=on,wait=off",
        ])

    def test_the_fastest_peer_and_our_median_count(self):
        phase = {"restic": [run(40)], "rustic": [run(30)], OURS: [run(9), run(10), run(99)]}
        self.assertEqual(verdicts("initial", initial=phase), ["ok"])
        phase[OURS] = [run(9), run(10.1), run(10.2)]
        self.assertEqual(verdicts("initial", initial=phase), ["MISSED"])

    def test_a_missing_program_is_not_a_pass(self):
        self.assertEqual(verdicts("initial", initial={OURS: [run(1)]}), ["not measured"])
        self.assertEqual(verdicts("initial", initial={"borg": [run(1)]}), ["not measured"])

    def test_the_worst_delta_counts_and_the_median_time(self):
        def row(added, wall):
            changed = {"bound_bytes": 100}
            return {"changed": changed, "read": run(1.0), "programs": {OURS: run(wall, added)}}

        good = [row(114, 1.4), row(115, 9), row(100, 1.5)]
        self.assertEqual(verdicts("delta", delta={"v1": good}), ["ok", "ok"])
        bad = [row(116, 1.6), row(1, 1.6), row(1, 0)]
        self.assertEqual(verdicts("delta", delta={"v1": bad}), ["MISSED", "MISSED"])

    def test_cycles_with_anchors_are_apart(self):
        def cycle(added, anchor=False):
            return {"changed": {"bound_bytes": 10}, "anchor": anchor, **run(added=added)}

        rows = [cycle(12), cycle(18), cycle(900, anchor=True)]
        found = verdicts("cycles", cycles={"cycle-uniform": rows, "cycle-zipf": [cycle(16)]})
        self.assertEqual(found, ["ok", "MISSED"])

    def test_an_anchor_is_found_anywhere_in_the_report(self):
        self.assertTrue(wrote_anchor({"vms": [{"disks": [{"anchor_records": 3}]}]}))
        self.assertFalse(wrote_anchor({"vms": [{"disks": [{"anchor_records": 0}]}]}))

    def test_memory_is_the_highest_of_all_phases(self):
        row = {"changed": {"bound_bytes": 1}, "read": run(), "programs": {OURS: run(rss=301)}}
        found = verdicts("memory", initial={OURS: [run()]}, delta={"v1": [row]})
        self.assertEqual(found, ["MISSED", *["not measured"] * 4])

    def test_the_first_sync_of_a_rebuilt_state_counts_too(self):
        synthetic = {"first sync": run(rss=601), "sync": run(rss=100), "open": run(rss=600)}
        found = verdicts("memory", synthetic=synthetic)
        self.assertEqual(found[2:], ["MISSED", "not measured", "ok"])

    def test_one_byte_off_is_a_miss(self):
        store = {"reported_requests": 5, "seen_requests": 5}
        store |= {"reported_bytes": 7, "seen_bytes": 8}
        self.assertEqual(verdicts("requests", requests={"s3": store}), ["ok", "MISSED"])


if __name__ == "__main__":
    unittest.main()
