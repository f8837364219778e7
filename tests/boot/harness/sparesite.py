"""The product as a capturer: `sparesite-gateway sync` captures, `sparesite-restore assemble` gives back."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import time

from . import resyncs
from .capture import Capture, Copy
from .failed import Failed
from .guest import DATA_MIB, run
from .vaults import Vault

VM = "vm"
PASSPHRASE = "correct horse battery staple bench only"
# Where the vault goes and comes, a sync may fail for this, and for nothing else.
VAULT_AWAY = re.compile(r"s3://\S+ (cannot be reached for|is busy or failing at) ")
MOST_TRIES = 20
PATIENCE_SECONDS = 120.0                # of a vault that is away for ten


def programs():
    """The folder of the two programs: SPARESITE_BIN, or this workspace's own debug build."""
    chosen = os.environ.get("SPARESITE_BIN")
    if not chosen:
        metadata = run("cargo", "metadata", "--no-deps", "--format-version", "1", "--locked")
        chosen = pathlib.Path(json.loads(metadata)["target_directory"]) / "debug"
    folder = pathlib.Path(chosen)
    for name in ("sparesite-gateway", "sparesite-restore"):
        if not (folder / name).is_file():
            raise Failed(f"{folder / name} is not there: cargo build --bins, or set SPARESITE_BIN")
    return folder


class Site:
    """A vault, a gateway and a kit in one folder, and the programs called on them."""

    def __init__(self, folder, source, consistency, vault_url=None, extra="", env=None):
        self.folder = folder
        self.programs = programs()
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "gateway.toml"
        self.kit, self.passphrase = folder / "kit", folder / "passphrase"
        self.env = {**os.environ, **(env or {}), "SPARESITE_KIT": str(self.kit), "SPARESITE_PASSPHRASE_FILE": str(self.passphrase)}
        self.url = vault_url or f"file://{folder / 'vault'}"
        self.passphrase.touch(mode=0o600)
        self.passphrase.write_text(PASSPHRASE + "\n")
        self.gateway("init", "--vault", self.url, "--key", folder / "key", "--kit", self.kit, "--passphrase-file", self.passphrase)
        self.configure(source, consistency, extra)

    def configure(self, source, consistency, extra="", rpo="1m"):
        self.config.write_text(
            f'state = "{self.folder / "state"}"\n\n[vault]\nurl = "{self.url}"\nkey = "{self.folder / "key"}"\n\n{extra}\n'
            f'[[policy]]\nname = "servers"\nrpo = "{rpo}"\nconsistency = "{consistency}"\n\n'
            f'[[vm]]\nname = "{VM}"\npolicy = "servers"\nsource = {source}\n'
        )

    def gateway_command(self, *words):
        config = [] if words[0] == "init" else ["--config", self.config]
        return [str(word) for word in (self.programs / "sparesite-gateway", *words, *config)]

    def gateway(self, *words, allowed=(0,)):
        return self.run(self.gateway_command(*words), allowed)

    def restore(self, *words):
        return self.run([str(word) for word in (self.programs / "sparesite-restore", *words)], (0,))

    def call(self, command):
        return subprocess.run(command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, command, allowed):
        done = self.call(command)
        if done.returncode not in allowed:
            raise Failed(f"{' '.join(command[:3])} ended with {done.returncode}\n{done.stdout[-600:]}\n{done.stderr[-1500:]}")
        return done.stdout

    def points(self):
        """Everything published, oldest first."""
        found = json.loads(self.restore("points", "--json", "--quiet"))["points"]
        return sorted((point for point in found if point["vm"] == VM), key=lambda point: point["sequence"])

    def assemble(self, sequence, folder):
        """A raw image for each disk, told by its size: what a source calls a disk is the product's affair."""
        into = folder / "assembled"
        self.restore("assemble", f"{VM}@{sequence}", "--output", into, "--format", "raw", "--no-sync", "--quiet")
        files = sorted(into.iterdir()) if into.is_dir() else [into]
        images = {}
        for file in files:
            name = "data" if file.stat().st_size == DATA_MIB << 20 else "root"
            if name in images:
                raise Failed(f"point {sequence} has more than one disk {name}: {[file.name for file in files]}")
            images[name] = folder / f"{name}.raw"
            file.rename(images[name])
        return images


def vault_was_away(status, stderr):
    """The last word counts: what a log said of tries before it does not."""
    error = stderr[stderr.rfind("error: "):] if "error: " in stderr else ""
    return status == 1 and VAULT_AWAY.search(error) is not None


def qemu_source(guest):
    return f'{{ qemu = {{ qmp = "{guest.qmp_path}", guest_agent = "{guest.folder / "agent"}" }}, guest_hooks = true }}'


class Sparesite:
    """The live source. A policy's consistency is in the configuration, so it is written before each sync."""

    name, keeps, enforced = "sparesite", True, True

    def __init__(self, vault=None):
        self.vault = vault or Vault()

    @property
    def extra(self):
        """Of the configuration; not the same before and after the first sync."""
        return self.vault.extra

    def begin(self, guest, folder):
        self.guest = guest
        self.site = Site(folder / "site", qemu_source(guest), "crash", self.vault.url, self.extra, self.vault.env)

    def capture(self, consistency):
        self.site.configure(qemu_source(self.guest), consistency, self.extra)
        began, tries, report = self._sync()
        made = self._judge_sync(report, consistency, began, time.monotonic())
        made.facts["tries"] = tries
        return made

    def _sync(self):
        """When the last try began, and what it said: while the vault goes and comes, one may fail for that."""
        command = self.site.gateway_command("sync", "--json", "--quiet")
        for tries in range(1, MOST_TRIES + 1):
            began = time.monotonic()
            done = self.site.call(command)
            if done.returncode in (0, 3):
                return began, tries, json.loads(done.stdout)
            if not (self.vault.disturbed and vault_was_away(done.returncode, done.stderr)):
                break
        raise Failed(f"sync ended with {done.returncode} in try {tries}\n{done.stdout[-600:]}\n{done.stderr[-1500:]}")

    def _judge_sync(self, report, asked, began, ended):
        (vm,) = report["vms"]
        if vm["error"] or vm["sequence"] is None:
            raise Failed(f"the sync made no point: {vm}")
        point = next(point for point in self._published() if point["sequence"] == vm["sequence"])
        facts = {name: vm.get(name) for name in ("read_bytes", "changed_bytes", "stored_bytes", "findings", "passes")}
        disks = resyncs.of_report(vm)
        facts["resyncs"] = None if disks is None else sorted(disks)
        facts |= {"asked": asked, "captured_at": point["captured_at"], "bytes_sent": report["bytes_sent"]}
        # Whatever else a sync measures, such as its pause, is kept as it is said.
        facts |= {name: value for name, value in vm.items() if name.endswith("seconds")}
        return Capture(str(vm["sequence"]), point["consistency"], began, ended, vm.get("freeze_seconds"), facts)

    def _published(self):
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self.site.points()
            except Failed:
                if not self.vault.disturbed or time.monotonic() > until:
                    raise

    def restore(self, capture, folder):
        return self.site.assemble(capture.key, folder)

    def end(self):
        self.site.restore("verify", "--read-data", "--quiet")

    def state_size(self):
        """The state directory beside what the guest's disks hold, in bytes."""
        files = [path for path in (self.site.folder / "state").rglob("*") if path.is_file()]
        disks = [self.guest.disk(name) for name in self.guest.DISKS]
        used = sum(path.stat().st_blocks for path in files) * 512
        return {"bytes": used, "data_bytes": sum(disk.stat().st_blocks * 512 for disk in disks if disk.exists()) or 1}


class SparesiteCopies(Sparesite):
    """The product behind `Copy`: it syncs the copied files as a list of disks, as a site without a live
    source does. Proves the plumbing between bench and product."""

    name, keeps, enforced = "sparesite-copies", True, False

    def begin(self, guest, folder):
        self.guest, self.folder = guest, folder
        self.copy = Copy()
        self.copy.begin(guest, folder)
        self.disks = folder / "copies"
        self.disks.mkdir()
        paths = ", ".join(f'"{self.disks / guest.disk(name).name}"' for name in guest.DISKS)
        self.site = Site(folder / "site", f"{{ disks = [{paths}] }}", "none", self.vault.url, self.extra, self.vault.env)

    def copy_disks(self, consistency):
        copied = self.copy.capture(consistency)
        place = self.folder / f"copy-{copied.key}"
        for name in self.guest.DISKS:
            shutil.move(place / name, self.disks / self.guest.disk(name).name)
        place.rmdir()
        return copied

    def capture(self, consistency):
        copied = self.copy_disks(consistency)
        report = json.loads(self.site.gateway("sync", "--json", "--quiet", allowed=(0, 3)))
        made = self._judge_sync(report, consistency, copied.began, copied.ended)
        made.consistency, made.freeze_seconds = copied.consistency, copied.freeze_seconds
        return made
