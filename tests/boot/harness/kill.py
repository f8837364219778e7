"""Runs a command and kills its process group at a random moment, again and again; between the kills, checks
what must hold. The seed gives the same moments again."""

import collections
import contextlib
import dataclasses
import os
import pathlib
import random
import signal
import subprocess
import time
import typing

from . import series

Check = typing.Callable[[], list[str]]
KILLED, UNDISTURBED = "killed", "undisturbed"


@dataclasses.dataclass(frozen=True)
class Run:
    kind: str                           # KILLED, also if it ended before its kill, or UNDISTURBED
    number: int
    began: float                        # monotonic
    after: float                        # seconds until the kill, or until it ended by itself
    status: int | None                  # None if it was killed
    findings: tuple[str, ...]
    phase: str | None = None            # what it was at when it was killed

    @property
    def was_killed(self):
        return self.kind == KILLED and self.status is None


@dataclasses.dataclass
class Plan:
    command: typing.Callable[[int], list[str]]      # of the run's number
    kills: int
    span: float                         # kills are spread evenly over this many seconds from the start
    seed: int
    after_kill: list[Check]             # must hold soon after any kill, before the next start
    after_sweep: list[Check]            # must hold after a run that nobody disturbed
    sweep_every: int = 10
    env: dict | None = None
    logs: pathlib.Path | None = None    # a folder: what each run wrote
    sweep_seconds: float = 300.0
    good: tuple[int, ...] = (0, 3)      # of a run that ends by itself
    excused: typing.Callable[[int, str], bool] = lambda status, stderr: False   # another status, by what it said
    look: typing.Callable[[], object] = lambda: None    # before a start, and after its kill
    glimpse: typing.Callable[[int], object] = lambda pid: None      # of the process, which stands still for it
    phase: typing.Callable[[object, object, object], str | None] = lambda before, after, glimpse: None
    begun: typing.Callable[[object], bool] | None = None    # of the look before: whether what is soon over has begun
    begun_span: float = 0.0             # every second kill comes within so many seconds of it
    rescue: typing.Callable[[], None] = lambda: None  # so that one finding is not found for ever
    undisturbed: typing.Callable[[int], list[str]] | None = None    # of what does not end by itself, a command that does

    @property
    def most_tries(self):
        """Of six runs one ends before its kill; where the vault goes and comes, every second. With more of them the spans
        were measured wrongly."""
        return 3 * self.kills + 10


def run_kills(plan):
    """Until so many runs were really killed: one that ended before its moment came is no kill."""
    rng = random.Random(plan.seed)
    runs = []
    killed = 0
    for number in range(1, plan.most_tries + 1):
        runs.append(killed_run(plan, number, rng))
        killed += runs[-1].was_killed
        enough = killed == plan.kills
        if enough or number == plan.most_tries or (runs[-1].was_killed and killed % plan.sweep_every == 0):
            runs.append(undisturbed_run(plan, number))
        if enough:
            break
    return runs


def log(plan, kind, number, end):
    return plan.logs / f"{kind}-{number}.{end}"


def start(plan, number, kind):
    """A session of its own, so that its process group is exactly what it started."""
    with contextlib.ExitStack() as files:
        out = err = subprocess.DEVNULL
        if plan.logs is not None:
            out, err = (files.enter_context(open(log(plan, kind, number, end), "wb")) for end in ("out", "err"))
        command = plan.undisturbed if kind == UNDISTURBED and plan.undisturbed else plan.command
        return subprocess.Popen(command(number), env=plan.env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)


def kill_group(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def killed_run(plan, number, rng):
    is_aimed = plan.begun is not None and number % 2 == 0
    after = rng.uniform(0, plan.begun_span if is_aimed else plan.span)
    before, seen = plan.look(), None
    process = start(plan, number, KILLED)
    began = time.monotonic()
    if is_aimed:
        wait_for_begin(plan, process, before)
    try:
        status = process.wait(timeout=after)
        took = time.monotonic() - began
        # Its group may have children left.
        kill_group(process)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGSTOP)
        seen = plan.glimpse(process.pid)
        took = time.monotonic() - began
        kill_group(process)
        status = None
    findings = [] if is_good(plan, KILLED, number, status) else [f"run {number} ended by itself with {status}"]
    # A guest may stand still now: what must hold is asked first. What a dead process left stays as it is.
    found = check(plan, number, took, plan.after_kill)
    phase = plan.phase(before, plan.look(), seen) if status is None else None
    return finish(plan, Run(KILLED, number, began, took, status, (*findings, *found), phase))


def wait_for_begin(plan, process, before):
    until = time.monotonic() + plan.sweep_seconds
    while process.poll() is None and time.monotonic() < until and not plan.begun(before):
        time.sleep(0.01)


def undisturbed_run(plan, number):
    process = start(plan, number, UNDISTURBED)
    began = time.monotonic()
    try:
        status = process.wait(timeout=plan.sweep_seconds)
        good = is_good(plan, UNDISTURBED, number, status)
        findings = [] if good else [f"the undisturbed run after kill {number} ended with {status}"]
    except subprocess.TimeoutExpired:
        kill_group(process)
        status, findings = None, [f"the undisturbed run after kill {number} did not end within {plan.sweep_seconds} s"]
    took = time.monotonic() - began
    found = check(plan, number, took, [*plan.after_kill, *plan.after_sweep])
    return finish(plan, Run(UNDISTURBED, number, began, took, status, (*findings, *found)))


def is_good(plan, kind, number, status):
    if status is None or status in plan.good:
        return True
    stderr = log(plan, kind, number, "err").read_text(errors="replace") if plan.logs is not None else ""
    return plan.excused(status, stderr)


def check(plan, number, after, checks):
    return [f"after kill {number} at {after:.3f} s: {text}" for check in checks for text in check()]


def finish(plan, run):
    for text in run.findings:
        series.note(text)
    if run.findings:
        plan.rescue()
    return run


def summarise(plan, runs):
    killed = [run for run in runs if run.was_killed]
    findings = [text for run in runs for text in run.findings]
    if len(killed) < plan.kills:
        findings.append(f"{len(killed)} of {plan.kills} runs were killed; the others had ended before their moment")
    return {
        "kills": len(killed),
        "ended before the kill": sum(run.kind == KILLED for run in runs) - len(killed),
        "undisturbed": sum(run.kind == UNDISTURBED for run in runs),
        "phases": dict(collections.Counter(run.phase for run in killed if run.phase)),
        "seed": plan.seed,
        "span_seconds": plan.span,
        "findings": findings,
    }
