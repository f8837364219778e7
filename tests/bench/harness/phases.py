"""The measurements. Each phase adds its numbers to `results`; none judges."""

import json
import pathlib
import shutil
import subprocess
import sys

from . import blocks, serving
from .measure import Failed, timed
from .programs import fresh_folder, same_bytes

PATTERNS = ("v1", "v2", "v3")


def read_all(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    subprocess.run(["cat", *files], stdout=subprocess.DEVNULL, check=True)


class Bench:
    """One run of the bench: the live disk, and the programs in their order."""

    def __init__(self, options, binaries, base, work, ours, peers, results):
        self.options = options
        self.binaries = binaries
        self.base = base
        self.work = pathlib.Path(work)
        self.live = self.work / "disk.img"
        self.ours = ours
        self.peers = peers
        self.results = results
        self.changes = 0

    def say(self, text):
        print(text, file=sys.stderr, flush=True)

    def programs(self, repetition):
        """Who takes part in this repetition; ours first, then the peers."""
        ours = [self.ours] if self.ours and repetition < self.options.runs else []
        return ours + (self.peers if repetition < self.options.peer_runs else [])

    def repetitions(self):
        return range(max(self.options.runs if self.ours else 0, self.options.peer_runs))

    def guarded(self, phase, program, work):
        """A program that fails is a row that says so, not the end of the run."""
        try:
            numbers = work()
        except Failed as error:
            self.say(f"  {phase}: {program.name} FAILED: {error}")
            self.results["failures"].append(f"{phase}: {program.name}: {error}")
            return None
        self.say(
            f"  {phase}: {program.name} {numbers['wall']:.2f} s"
            f" (CPU {numbers['cpu']:.1f} s), {numbers['rss_mib']:.0f} MiB"
            + (f", {numbers['added'] / 1e6:,.1f} MB added" if "added" in numbers else "")
        )
        return numbers

    def limit(self, name, *words, repeat=3):
        runs = []
        for _ in range(repeat):
            run = timed([self.binaries / "bench-limit", *words])
            runs.append({**run.numbers(), **json.loads(run.stdout)})
        self.results["limits"].setdefault(name, []).extend(runs)
        self.say(f"  limit: {name} {runs[-1]['wall']:.2f} s")

    def change(self, pattern, cycle):
        command = [self.binaries / "bench-disk", "change", "--pattern", pattern]
        command += ["--seed", str(self.options.seed), "--cycle", str(cycle)]
        command += ["--sidecar-of", self.base, self.live]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"cannot change the disk: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def reset_disk(self):
        self.live.unlink(missing_ok=True)
        copy = ["cp", "--sparse=always", "--reflink=auto", self.base, self.live]
        subprocess.run(copy, check=True)
        # Warm for everyone, and the first of them not the one who pays for it.
        subprocess.run(["cat", self.live], stdout=subprocess.DEVNULL, check=True)

    def initial(self):
        """A first sync of the disk into an empty repository, for everyone."""
        self.reset_disk()
        for repetition in self.repetitions():
            for program in self.programs(repetition):
                program.create(self.live)
                run = lambda: program.measured_sync(self.live)
                numbers = self.guarded("initial", program, run)
                if numbers:
                    self.results["initial"].setdefault(program.name, []).append(numbers)
        if self.options.limits:
            self.limits_of_sync()

    def limits_of_sync(self):
        packs = self.work / "packs"
        for name, words in (("store", []), ("store, each pack fsynced", ["--fsync"])):
            for _ in range(self.options.runs):
                fresh_folder(packs)
                self.limit(name, "store", self.live, packs, *words, repeat=1)
        shutil.rmtree(packs)
        self.limit("read", "read", self.live)
        self.limit("read and hash", "hash", self.live)

    def delta(self):
        """The change patterns, each followed by a sync of everyone."""
        self.delta_repetitions(range(self.options.peer_runs))

    def reading(self):
        """The yardstick of a sync: the median of three, since one is noisy."""
        runs = [timed(["cat", self.live], discard=True).numbers() for _ in range(3)]
        return sorted(runs, key=lambda run: run["wall"])[1]

    def more_delta(self):
        """Ours alone, and after the assembling: the peers miss these changes."""
        if self.ours:
            self.delta_repetitions(range(self.options.peer_runs, self.options.runs))

    def delta_repetitions(self, repetitions):
        for repetition in repetitions:
            for pattern in PATTERNS:
                changed = self.change(pattern, repetition)
                row = {"changed": changed, "read": self.reading(), "programs": {}}
                for program in self.programs(repetition):
                    run = lambda: program.measured_sync(self.live)
                    numbers = self.guarded(f"delta {pattern}", program, run)
                    if numbers:
                        row["programs"][program.name] = numbers
                self.results["delta"][pattern].append(row)

    def assemble(self):
        """Everyone's newest point, written out and compared with the disk."""
        for repetition in self.repetitions():
            for program in self.programs(repetition):
                folder = fresh_folder(self.work / "assembled")
                # Warm for everyone, as the disk is: not every program's packs went through the page cache.
                read_all(program.repository)
                run = lambda: self.assemble_one(program, folder)
                numbers = self.guarded("assemble", program, run)
                if numbers:
                    self.results["assemble"].setdefault(program.name, []).append(numbers)
            folder = fresh_folder(self.work / "assembled")
            convert = ["qemu-img", "convert", "-f", "raw", "-O", "raw"]
            numbers = timed([*convert, self.live, folder / "disk"]).numbers()
            self.results["assemble"].setdefault("qemu-img convert", []).append(numbers)
            self.say(f"  assemble: qemu-img convert {numbers['wall']:.2f} s")
        if self.options.limits:
            self.limits_of_assemble()
        shutil.rmtree(self.work / "assembled", ignore_errors=True)

    def assemble_one(self, program, folder):
        run, output = program.assemble(self.live, folder)
        if not same_bytes(self.live, output):
            raise Failed(f"{output} is not the disk that was synced")
        return run.numbers()

    def limits_of_assemble(self):
        packs = fresh_folder(self.work / "packs")
        timed([self.binaries / "bench-limit", "store", self.live, packs])
        size = str(self.live.stat().st_size)
        for _ in range(self.options.runs):
            folder = fresh_folder(self.work / "assembled")
            words = ["load", packs, folder / "disk", "--disk-bytes", size]
            self.limit("load", *words, repeat=1)
            (folder / "disk").unlink()
            self.limit("copy", "copy", self.live, folder / "disk", repeat=1)
        shutil.rmtree(packs)

    def cycles(self):
        """Many small changes of one table in a row, each synced; ours only."""
        if not self.ours:
            return
        for pattern in ("cycle-uniform", "cycle-zipf"):
            self.reset_disk()
            self.ours.create(self.live)
            self.ours.measured_sync(self.live)
            rows = self.results["cycles"].setdefault(pattern, [])
            for cycle in range(self.options.cycles):
                changed = self.change(pattern, cycle)
                numbers = self.guarded(
                    f"{pattern} {cycle}", self.ours, lambda: self.ours.measured_sync(self.live)
                )
                if numbers is None:
                    break
                anchor = wrote_anchor(numbers["report"])
                rows.append({"changed": changed, "anchor": anchor, **numbers})
            folder = fresh_folder(self.work / "assembled")
            run = lambda: self.assemble_one(self.ours, folder)
            last = self.guarded(f"{pattern}: assemble", self.ours, run)
            if last:
                self.results["assemble after cycles"][pattern] = last
            shutil.rmtree(folder, ignore_errors=True)

    def memory(self):
        """A sparse 4 TiB disk with 16 million chunks known.

        `bench-synthetic prepare FOLDER` makes such a vault, once, in the cache, and prints the
        commands to run under the clock: {"rebuild", "sync", "open"}. The first sync reads the
        sparse disk's data; the second is one of many. The rest of the memory rows comes from the
        other phases.
        """
        synthetic = self.binaries / "bench-synthetic"
        gateway = self.binaries / "sparesite-gateway"
        if not (self.ours and synthetic.exists() and gateway.exists()):
            self.say("  memory: our programs are not built; the synthetic rows stay unmeasured")
            return
        folder = self.options.cache / "synthetic"
        commands = json.loads(timed([synthetic, "prepare", folder]).stdout)
        steps = (("rebuild", "rebuild"), ("first sync", "sync"), ("sync", "sync"), ("open", "open"))
        for name, command in steps:
            try:
                numbers = timed(commands[command], accept=(0, 3)).numbers()
            except Failed as error:
                self.say(f"  memory: {name} FAILED: {error}")
                self.results["failures"].append(f"memory: {name}: {error}")
                continue
            self.say(f"  memory: {name} {numbers['wall']:.1f} s, {numbers['rss_mib']:.0f} MiB")
            self.results["synthetic"][name] = numbers

    def requests(self):
        """What a store's own count said, left by the journey that counts.

        {"s3": {"reported_requests", "seen_requests", "reported_bytes",
        "seen_bytes"}, "azure": {…}}
        """
        path = self.options.requests
        if path.exists():
            self.results["requests"] = json.loads(path.read_text())
        else:
            self.say(f"  requests: {path} is not there; those rows stay unmeasured")

    def serving(self):
        """Boots and reads straight from the vault; ours only."""
        if self.ours:
            serving.measure(self)

    def blocks(self):
        """Blocks into a snapshot; ours only."""
        if self.ours:
            blocks.measure(self)


def wrote_anchor(report):
    """True if any part of the sync's report has a true or counted `anchor…`."""
    if isinstance(report, dict):
        return any(
            (key.startswith("anchor") and bool(value)) or wrote_anchor(value)
            for key, value in report.items()
        )
    return isinstance(report, list) and any(map(wrote_anchor, report))
