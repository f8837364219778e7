"""Runs one command and says what it took."""

import dataclasses
import os
import pathlib
import statistics
import subprocess
import tempfile
import time


class Failed(Exception):
    """A command that had to work did not."""


@dataclasses.dataclass
class Run:
    wall: float  # seconds
    cpu: float  # user and system, of the command and its children
    rss_mib: float  # the highest of any one process of it
    stdout: str = dataclasses.field(default="", repr=False)

    def numbers(self):
        return {"wall": self.wall, "cpu": self.cpu, "rss_mib": self.rss_mib}


def timed(argv, env=None, cwd=None, accept=(0,), discard=False):
    """Runs argv after the disk has caught up with what came before."""
    os.sync()
    argv = [str(word) for word in argv]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.monotonic()
        try:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if discard else out,
                stderr=err,
                env={**os.environ, **(env or {})},
                cwd=cwd,
            )
        except OSError as error:
            raise Failed(f"cannot start {argv[0]}: {error}") from error
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.kill()
            child.wait()
            raise
        wall = time.monotonic() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        stdout = out.read().decode(errors="replace")
        if child.returncode not in accept:
            said = err.read().decode(errors="replace").strip() or stdout.strip()
            raise Failed(f"{' '.join(argv)}: exit {child.returncode}: {said[-2000:]}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, stdout)


def stored_bytes(folder):
    """Sum of the lengths of all files under folder, as a store would bill them."""
    return sum(
        path.stat().st_size
        for path in pathlib.Path(folder).rglob("*")
        if path.is_file() and not path.is_symlink()
    )


def median(runs, what):
    return statistics.median(run[what] for run in runs)
