"""A capturer as it must not be, to prove the kill harness: it holds the guest frozen and paused for a while,
with a node and a bitmap in QEMU, and a kill leaves them.

    victim.py QMP AGENT SECONDS [sweep]     sweep: first takes away what an earlier one left
"""

import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from harness.agent import Agent  # noqa: E402
from harness.failed import Failed  # noqa: E402
from harness.qmp import Qmp  # noqa: E402

NAME = "sparesite-victim"


def tidy(monitor):
    for command, arguments in (
        ("blockdev-del", {"node_name": NAME}),
        ("block-dirty-bitmap-remove", {"node": "root", "name": NAME}),
    ):
        try:
            monitor.execute(command, **arguments)
        except Failed:
            pass


def main(qmp_path, agent_path, seconds, sweep=""):
    share = float(seconds) / 4
    monitor = Qmp(qmp_path)
    if sweep:
        tidy(monitor)
    monitor.execute("block-dirty-bitmap-add", node="root", name=NAME)
    monitor.execute("blockdev-add", driver="null-co", node_name=NAME, size=1048576)
    time.sleep(share)
    with Agent(agent_path).connected() as agent:
        agent.execute("guest-fsfreeze-freeze")
        time.sleep(share)
        monitor.execute("stop")
        time.sleep(share)
        monitor.execute("cont")
        agent.execute("guest-fsfreeze-thaw")
    time.sleep(share)
    tidy(monitor)


if __name__ == "__main__":
    main(*sys.argv[1:])
