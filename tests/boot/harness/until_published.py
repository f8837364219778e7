"""Runs a gateway's daemon until its VM has so many more points, and ends it in order.

    until_published.py POINTS PROGRAM CONFIGURATION

Exit: the daemon's.
"""

import json
import subprocess
import sys
import time

STOP_SECONDS = 20.0                     # the daemon promises ten


def newest(status):
    """The sequence of the VM's newest published point, by what `status --json` wrote; 0 if it says nothing of one."""
    try:
        said = json.loads(status)
    except ValueError:                  # the state is being opened
        return 0
    if daemon := said.get("daemon"):
        return (daemon["vms"][0]["published"] or {}).get("sequence") or 0
    return said["vms"][0]["sequence"] or 0


def main(points, program, configuration):
    config = ["--config", configuration]

    def ask():
        return newest(subprocess.run([program, "status", "--json", *config], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout)

    wanted = ask() + int(points)
    daemon = subprocess.Popen([program, "run", *config])
    while daemon.poll() is None and ask() < wanted:
        time.sleep(0.2)
    daemon.terminate()
    return daemon.wait(timeout=STOP_SECONDS)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
