#!/usr/bin/env python3
"""Reads Sparesite vaults with nothing but docs/vault-format.md: a proof that the page is enough.

    second_reader.py --kit KIT --passphrase-file F --vault DIR points
    second_reader.py --kit KIT --passphrase-file F --vault DIR assemble VM[@SEQUENCE] --output DIR

Needs Python 3.11 and what requirements.txt lists. The vault is a directory: for a bucket, copy it into one first.
Exit: 0 done · 1 failed · 2 wrong usage · 3 done, with findings (on stderr).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from disks import assemble
from findings import Findings, VaultError
from keys import open_kit, passphrase_from
from points import Manifest, choose_point, read_points
from store import Store
from vault import Vault, open_vault


def describe(point: Manifest) -> dict[str, Any]:
    return {
        "vm": point.vm,
        "epoch": point.epoch,
        "sequence": point.sequence,
        "id": point.name,
        "captured_at": point.captured_at,
        "consistency": point.consistency,
        "trusted": point.mistrust is None,
        "diverged": point.diverged,
        "disks": [
            {"name": disk.name, "size_bytes": disk.size_bytes, "excluded": disk.excluded} for disk in point.disks
        ],
    }


def split_point(text: str) -> tuple[str, int | None]:
    vm, at, sequence = text.partition("@")
    if not vm or (at and sequence != "latest" and not (sequence.isascii() and sequence.isdigit())):
        raise argparse.ArgumentTypeError(f"{text!r} is not VM or VM@SEQUENCE")
    return vm, int(sequence) if at and sequence != "latest" else None


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Reads a Sparesite vault that lies in a directory.", epilog=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--kit", type=Path, required=True, help="the recovery kit's file")
    parser.add_argument("--passphrase-file", type=Path, required=True, help="a file with the kit's passphrase")
    parser.add_argument("--vault", type=Path, required=True, help="the vault's directory")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("points", help="lists VMs and recovery points as JSON")
    command = commands.add_parser("assemble", help="writes the disks of a point, each as <disk>.raw")
    command.add_argument("point", type=split_point, metavar="VM[@SEQUENCE]")
    command.add_argument("--output", type=Path, required=True, help="the folder to write to")
    return parser.parse_args()


def run(options: argparse.Namespace, vault: Vault) -> None:
    if options.command == "points":
        print(json.dumps({"points": [describe(point) for point in read_points(vault)]}, indent=2))
    else:
        vm, sequence = options.point
        for path in assemble(vault, choose_point(vault, vm, sequence), options.output):
            print(path)


def main() -> int:
    options, findings = arguments(), Findings()
    try:
        if not options.vault.is_dir():
            raise VaultError(f"{options.vault} is not a directory")
        kit = open_kit(options.kit.read_bytes(), passphrase_from(options.passphrase_file.read_bytes()))
        run(options, open_vault(Store(options.vault, findings), kit, findings))
    except (VaultError, OSError) as error:
        print(f"second_reader: {error}", file=sys.stderr)
        return 1
    return 3 if findings.texts else 0


if __name__ == "__main__":
    sys.exit(main())
