"""The programs compared: how each makes its repository, syncs and assembles."""

import json
import os
import pathlib
import shutil
import subprocess

from .measure import Failed, stored_bytes, timed

PASSPHRASE = "correct horse battery staple bench"


class Program:
    """A program with a local repository of its own under `home`, encrypted."""

    name = ""

    def __init__(self, binary, home):
        self.binary = binary
        self.home = pathlib.Path(home)
        self.repository = self.home / "repository"
        self.passphrase_file = self.home / "passphrase"

    def version(self):
        said = subprocess.run([self.binary, "--version"], capture_output=True, text=True)
        return version_number(said.stdout)

    def create(self, image):
        """An empty repository; not part of what is measured."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        self.passphrase_file.write_text(PASSPHRASE + "\n")
        self.passphrase_file.chmod(0o600)
        self.initialise(image)

    def stored(self):
        return stored_bytes(self.repository)

    def measured_sync(self, image):
        before = self.stored()
        run = self.sync(image)
        return {**run.numbers(), "added": self.stored() - before, "report": self.report(run)}

    def report(self, _run):
        return None

    def delete(self):
        shutil.rmtree(self.home, ignore_errors=True)


class Restic(Program):
    name = "restic"

    def call(self, *words, **options):
        env = {
            "RESTIC_REPOSITORY": str(self.repository),
            "RESTIC_PASSWORD_FILE": str(self.passphrase_file),
            "RESTIC_CACHE_DIR": str(self.home / "cache"),
        }
        return timed([self.binary, *words], env=env, **options)

    def version(self):
        said = subprocess.run([self.binary, "version"], capture_output=True, text=True)
        return version_number(said.stdout)

    def initialise(self, _image):
        self.call("init", "--repository-version", "2")
        help_text = self.call("help", "backup").stdout
        self.compression = "fastest" if "fastest" in help_text else "auto"

    def sync(self, image):
        return self.call("backup", "--quiet", "--compression", self.compression, image)

    def assemble(self, image, folder):
        run = self.call("restore", "latest", "--target", folder)
        return run, folder / str(image).lstrip("/")


class Rustic(Program):
    name = "rustic"

    def call(self, *words, **options):
        env = {
            "RUSTIC_REPOSITORY": str(self.repository),
            "RUSTIC_PASSWORD_FILE": str(self.passphrase_file),
            "RUSTIC_CACHE_DIR": str(self.home / "cache"),
            "RUSTIC_NO_PROGRESS": "true",
            "RUSTIC_LOG_LEVEL": "error",
            # No profile of whoever runs this.
            "XDG_CONFIG_HOME": str(self.home),
        }
        return timed([self.binary, *words], env=env, **options)

    def initialise(self, _image):
        self.call("init", "--set-compression", "1")

    def sync(self, image):
        return self.call("backup", image)

    def assemble(self, image, folder):
        output = folder / image.name
        return self.call("restore", f"latest:{image}", output), output


class Borg(Program):
    name = "borg"

    def call(self, *words, **options):
        env = {
            "BORG_REPO": str(self.repository),
            "BORG_PASSPHRASE": PASSPHRASE,
            "BORG_BASE_DIR": str(self.home / "base"),
        }
        return timed([self.binary, *words], env=env, **options)

    def initialise(self, _image):
        self.points = 0
        self.call("init", "--encryption", "repokey-blake2")

    def sync(self, image):
        self.points += 1
        return self.call("create", "--compression", "zstd,1", f"::p{self.points}", image)

    def assemble(self, image, folder):
        run = self.call("extract", "--sparse", f"::p{self.points}", cwd=folder)
        return run, folder / str(image).lstrip("/")


class Sparesite(Program):
    name = "sparesite"
    vm = "bench"

    def __init__(self, gateway, restore, home):
        super().__init__(gateway, home)
        self.restore = restore
        self.restore_rss = []

    def call(self, *words, **options):
        config = self.home / "gateway.toml"
        return timed([self.binary, "--config", config, *words], **options)

    def initialise(self, image):
        url, key, kit = f"file://{self.repository}", self.home / "gateway.key", self.home / "kit"
        self.kit = kit
        (self.home / "gateway.toml").write_text(
            f"state = {json.dumps(str(self.home / 'state'))}\n\n"
            f"[vault]\nurl = {json.dumps(url)}\nkey = {json.dumps(str(key))}\n\n"
            '[[policy]]\nname = "p"\nrpo = "1d"\nconsistency = "none"\n\n'
            f"[[vm]]\nname = {json.dumps(self.vm)}\npolicy = \"p\"\n"
            f"source = {{ disks = [{json.dumps(str(image))}] }}\n"
        )
        self.repository.mkdir()
        words = ["--vault", url, "--key", key, "--kit", kit]
        self.call("init", *words, "--passphrase-file", self.passphrase_file)

    def sync(self, _image):
        # 3 is "done, with findings": a disk list has no consistency to promise.
        return self.call("sync", "--json", accept=(0, 3))

    def report(self, run):
        try:
            return json.loads(run.stdout)
        except json.JSONDecodeError as error:
            raise Failed(f"sync --json printed no JSON document: {error}") from error

    def assemble(self, _image, folder):
        output = folder / "assembled.raw"
        words = ["--kit", self.kit, "--passphrase-file", self.passphrase_file]
        # Like the others and qemu-img convert: not waiting for the disk to have it all.
        words += ["assemble", f"{self.vm}@latest", "--output", output, "--no-sync"]
        return timed([self.restore, *words]), output


def version_number(said):
    """The first word with a digit in front: "restic 0.14.0 compiled with …"."""
    return next((word for word in said.split() if word[:1].isdigit()), said.strip()[:40])


def peers(binaries, work):
    """The peers that were found, in the order of the table."""
    kinds = {"restic": Restic, "rustic": Rustic, "borg": Borg}
    return [kinds[name](path, work / name) for name, path in binaries.items() if path]


def same_bytes(one, other):
    return subprocess.run(["cmp", "--quiet", one, other]).returncode == 0


def fresh_folder(path):
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return pathlib.Path(path)
