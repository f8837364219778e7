"""Runs a command and kills its process group at a random moment, again and again; between the kills, checks
what must hold. The seed gives the same moments again."""

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


@dataclasses.dataclass(frozen=True)
class Run:
    number: int
    began: float                        # monotonic
    after: float                        # seconds until the kill, or until it ended by itself
    status: int | None                  # None if it was killed
    findings: tuple[str, ...]


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
    rescue: typing.Callable[[], None] = lambda: None  # so that one finding is not found for ever


def run_kills(plan):
    rng = random.Random(plan.seed)
    runs = []
    for number in range(1, plan.kills + 1):
        runs.append(killed_run(plan, number, rng.uniform(0, plan.span)))
        if number % plan.sweep_every == 0 or number == plan.kills:
            runs.append(undisturbed_run(plan, number))
    return runs


def start(plan, number, kind):
    """A session of its own, so that its process group is exactly what it started."""
    with contextlib.ExitStack() as files:
        out = err = subprocess.DEVNULL
        if plan.logs is not None:
            out, err = (files.enter_context(open(plan.logs / f"{kind}-{number}.{end}", "wb")) for end in ("out", "err"))
        return subprocess.Popen(plan.command(number), env=plan.env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)


def kill_group(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def killed_run(plan, number, after):
    process = start(plan, number, "killed")
    began = time.monotonic()
    try:
        status = process.wait(timeout=after)
        # Its group may have children left.
        kill_group(process)
    except subprocess.TimeoutExpired:
        kill_group(process)
        status = None
    findings = [] if status in (None, *plan.good) else [f"run {number} ended by itself with {status}"]
    return finish(plan, number, began, min(after, time.monotonic() - began), status, findings, plan.after_kill)


def undisturbed_run(plan, number):
    process = start(plan, number, "undisturbed")
    began = time.monotonic()
    try:
        status = process.wait(timeout=plan.sweep_seconds)
        findings = [] if status in plan.good else [f"the undisturbed run after kill {number} ended with {status}"]
    except subprocess.TimeoutExpired:
        kill_group(process)
        status, findings = None, [f"the undisturbed run after kill {number} did not end within {plan.sweep_seconds} s"]
    return finish(plan, number, began, time.monotonic() - began, status, findings, [*plan.after_kill, *plan.after_sweep])


def finish(plan, number, began, after, status, findings, checks):
    findings += [f"after kill {number} at {after:.3f} s: {text}" for check in checks for text in check()]
    for text in findings:
        series.note(text)
    if findings:
        plan.rescue()
    return Run(number, began, after, status, tuple(findings))


def summarise(plan, runs):
    killed = [run for run in runs if run.status is None]
    return {
        "kills": len(killed),
        "ended before the kill": len(runs) - len(killed),
        "seed": plan.seed,
        "span_seconds": plan.span,
        "findings": [text for run in runs for text in run.findings],
    }
