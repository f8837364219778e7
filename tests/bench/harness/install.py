"""What a bench run needs on the machine: peers, our release build, the disk."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

from .measure import Failed

RUSTIC = "0.11.4"


def note(text):
    print(text, file=sys.stderr, flush=True)


def apt(packages):
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    command = [*root, "apt-get", "install", "-y", "--no-install-recommends", *packages]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        note(f"could not install {' '.join(packages)}: {done.stderr.strip()[-300:]}")


def find_peers(cache, wanted, install):
    """Name → path, or None with a note of why it will be missing."""
    debian = {"restic": "restic", "borg": "borgbackup"}
    missing = [p for n, p in debian.items() if n in wanted and not shutil.which(n)]
    missing += [] if shutil.which("qemu-img") else ["qemu-utils"]
    missing += [] if shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin") else ["e2fsprogs"]
    if missing and install:
        apt(missing)
    found = {name: shutil.which(name) for name in debian if name in wanted}
    if "rustic" in wanted:
        found["rustic"] = find_rustic(cache, install)
    for name, path in found.items():
        if not path:
            note(f"{name}: not found and not installed; the table will say so")
    return found


def find_rustic(cache, install):
    own = cache / "peers" / "rustic" / "bin" / "rustic"
    if own.exists() or shutil.which("rustic"):
        return str(own) if own.exists() else shutil.which("rustic")
    if not install:
        return None
    note(f"compiling rustic {RUSTIC}, once; this takes long (log: {cache}/rustic-build.log)")
    env = {**os.environ, "CARGO_TARGET_DIR": str(cache / "rustic-target")}
    env.setdefault("CARGO_BUILD_JOBS", "1")
    command = ["nice", "-n", "19", "cargo", "install", "rustic-rs", "--version", RUSTIC]
    command += ["--locked", "--no-default-features", "--root", str(cache / "peers" / "rustic")]
    with open(cache / "rustic-build.log", "w") as log:
        # Outside the workspace, whose configuration is not rustic's.
        subprocess.run(command, cwd="/", env=env, stdout=log, stderr=log)
    shutil.rmtree(cache / "rustic-target", ignore_errors=True)
    return str(own) if own.exists() else None


def build(workspace, packages):
    command = ["cargo", "build", "--release"]
    for package in packages:
        command += ["-p", package]
    if subprocess.run(command, cwd=workspace, stdout=sys.stderr).returncode != 0:
        raise Failed("the release build failed")
    target = os.environ.get("CARGO_TARGET_DIR", workspace / "target")
    return pathlib.Path(workspace, target) / "release"


def ensure_disk(binaries, cache, seed, mebibytes):
    """The disk of this seed and size, made once and kept, and what it is."""
    image = cache / f"disk-{mebibytes}-{seed}.img"
    note(f"disk: {image}")
    command = [binaries / "bench-disk", "generate", "--seed", str(seed)]
    command += ["--mebibytes", str(mebibytes), image]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failed(f"cannot generate {image}")
    return image, json.loads(done.stdout)
