"""Which disks a gateway's run compared in full although points have them, by what the run said. Pure."""

import collections
import json
import re

# VM vm: disk a: why; disk b: why: passes over its running disks come first
PASSES_COME = re.compile(r"VM \S+: (.*): passes over its running disks come first")
DISK = re.compile(r"\bdisk (\S+): ")
ALL = "all"                             # its words name no disk


def of_report(vm):
    """The disks that a VM's part of the report names; None if the report says nothing of them."""
    words = vm.get("resync", vm.get("compared"))
    if words is None or "passes" not in vm:
        return None
    return {found[1] if (found := DISK.match(text)) else ALL for text in words}


def of_run(stdout, stderr):
    """Also of a run that was killed: its log says it before the passes begin."""
    disks = set()
    for found in PASSES_COME.finditer(stderr):
        disks |= set(DISK.findall(found[1])) or {ALL}
    try:
        vms = json.loads(stdout or "{}").get("vms", [])
    except ValueError:                  # killed while it wrote
        vms = []
    for vm in vms:
        disks |= of_report(vm) or set()
    return disks


def count(runs):
    """How often each disk was brought back, of (disks, is over) in order. A resync that a kill cut off is the same one
    until a run was over: it goes on where it was."""
    times, at_work = collections.Counter(), set()
    for disks, is_over in runs:
        times.update(disks - at_work)
        at_work = set() if is_over else at_work | disks
    return dict(times)


def judge(times):
    return [f"disk {disk}: {count} resyncs, at most one may be" for disk, count in sorted(times.items()) if count > 1]
