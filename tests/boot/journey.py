#!/usr/bin/env python3
"""What the journeys of a failover write and reckon.

    journey.py site WORK VAULT HEAD            gateway.toml and plan.toml in WORK; HEAD: a plan's head, as terraform prints it
    journey.py estimate WORK PRICES HOURS      what a test costs that lasts so long, in US dollars; PRICES: of `plan prices`
"""

import math
import pathlib
import sys
import tomllib

# A BIOS guest with a data disk, a UEFI guest, and one that does not start there as it is.
DISKS = {"bios": ["bios", "data"], "uefi": ["uefi"], "mended": ["mended"]}
INSTANCES = ["t3.medium", "t3a.medium"]
HOURS_A_MONTH = 730


def site(work, vault, head):
    head = pathlib.Path(head).read_text()
    # In a test only a subnet that has a twin there will do.
    subnets = [subnet["name"] for subnet in tomllib.loads(head)["subnet"] if "test" in subnet]
    gateway = f'state = "{work}/state"\n[vault]\nurl = "{vault}"\nkey = "{work}/gateway.key"\n'
    gateway += '[[policy]]\nname = "p"\nrpo = "1h"\nconsistency = "none"\n'
    plan = f'name = "journey"\n{head}\n[[group]]\nname = "all"\n'
    for vm, disks in DISKS.items():
        paths = ", ".join(f'"{work}/{disk}.raw"' for disk in disks)
        gateway += f'[[vm]]\nname = "{vm}"\npolicy = "p"\nsource = {{ disks = [{paths}] }}\n'
        plan += f'[[vm]]\nname = "{vm}"\ngroup = "all"\ninstance = {INSTANCES}\nsubnet = {subnets}\n'.replace("'", '"')
    (work / "gateway.toml").write_text(gateway)
    (work / "plan.toml").write_text(plan)


def estimate(work, prices, hours):
    """No block taken for empty, the dearest type, snapshots and volumes for as long as the deadline: the bill is smaller."""
    prices, hours = tomllib.loads(pathlib.Path(prices).read_text()), float(hours)
    gib = sum(math.ceil((work / f"{disk}.raw").stat().st_size / 2**30) for disks in DISKS.values() for disk in disks)
    months = hours / HOURS_A_MONTH
    parts = {
        f"blocks of {gib} GiB, sent and read back": 2 * gib * 2048 / 1000 * prices["usd_per_1000_snapshot_blocks"],
        f"{len(DISKS)} instances for {hours:g} h": len(DISKS) * hours * max(prices["instances"][name]["usd_per_hour"] for name in INSTANCES),
        "their volumes and snapshots": gib * months
        * (prices["volumes"]["gp3"]["usd_per_gib_month"] + prices["usd_per_gib_month_snapshot"]),
        "the vault: requests and storage": 0.05,
    }  # fmt: skip
    for what, dollars in parts.items():
        print(f"  {what}: ${dollars:.2f}", file=sys.stderr)
    print(f"{sum(parts.values()):.2f}")


def main():
    match sys.argv[1:]:
        case ["site", work, vault, head]:
            site(pathlib.Path(work), vault, head)
        case ["estimate", work, prices, hours]:
            estimate(pathlib.Path(work), prices, hours)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
