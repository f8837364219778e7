"""What a recovery point does straight from the vault, an S3 server on this machine: boots, and reads through NBD."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import time
import urllib.request

from boot.harness import s3, sparesite
from boot.harness.failed import Failed as BootFailed

from . import large_guest
from .measure import Failed, timed
from .programs import fresh_folder, same_bytes

SLOW_SECONDS = 0.05                     # added to each request
LOGIN_SECONDS = 400                     # emulated, on a busy machine; 25 to 40 are usual
MEMORY = "512MiB"
# In the middle of the disk, where its data lies: a hole costs nothing.
RANDOM_READS = {"rw": "randread", "bs": "4k", "iodepth": 16, "runtime": 20, "time_based": 1, "offset": "1G", "size": "1G"}
UNFORESEEN = (OSError, ValueError, KeyError, StopIteration, subprocess.SubprocessError)
GUESTS = pathlib.Path(__file__).resolve().parents[2] / "boot"


@dataclasses.dataclass
class Vault:
    """A site whose one recovery point is a guest, and what opens it."""

    site: sparesite.Site
    image: pathlib.Path

    def command(self, *words):
        return [str(word) for word in (self.site.programs / "sparesite-restore", *words)]

    def through(self, endpoint):
        return {**self.site.env, **s3.environment(endpoint)}


def measure(bench):
    """Fills bench.results["serving"]."""
    # QEMU's emulation aborts now and then; whatever fails here is a row that says so, and takes no other phase with it.
    try:
        with s3.S3Server() as server:
            Serving(bench, server).run()
    except (Failed, BootFailed, *UNFORESEEN) as error:
        bench.say(f"  serving FAILED: {error}")
        bench.results["failures"].append(f"serving: {error}")


class Serving:
    def __init__(self, bench, server):
        self.bench, self.server = bench, server
        self.folder = fresh_folder(bench.work / "serving")
        self.figures = bench.results["serving"]
        os.environ["SPARESITE_BIN"] = str(bench.binaries)

    def run(self):
        guests = self.bench.options.cache.parent / "guest"
        name = subprocess.check_output([GUESTS / "build-guest.sh", "--name", "idle"], text=True).strip()
        idle = guests / name
        large_guest.call(GUESTS / "build-guest.sh", idle)
        small = self.vault("small", idle)
        self.boots(small)
        if self.bench.options.mebibytes < large_guest.SOURCE_MIB:
            self.bench.say(f"  the large guest needs a disk of {large_guest.SOURCE_MIB} MiB: its rows stay unmeasured")
            return
        large = self.folder / "large.raw"
        self.bench.say("  the large guest is made")
        large_guest.build(idle, self.bench.base, large)
        large = self.vault("large", large)
        self.large_boot(large)
        self.sequential(large)
        self.random_reads(large)
        shutil.rmtree(self.folder)

    def vault(self, name, image):
        url = f"s3://{self.server.create_bucket(name)}/site"
        env = s3.environment(self.server.endpoint)
        source = f'{{ disks = ["{image}"] }}'
        site = sparesite.Site(self.folder / name, source, "none", url, env=env)
        site.gateway("sync", "--quiet")
        return Vault(site, image)

    def boots(self, vault):
        """The same machine from the vault, from a local raw file, and with a store that answers late; in turns."""
        rows = self.figures["boots"] = []
        for _ in range(self.bench.options.runs):
            fast, machine = self.boot(vault, self.server.endpoint)
            row = {"vault": fast, "local": self.boot_local(machine, vault.image)}
            with s3.Door(self.server.host, self.server.port, delay=SLOW_SECONDS) as door:
                row["late"], _ = self.boot(vault, door.endpoint)
            rows.append(row)
            told = ", ".join(f"{name} {figures['seconds']:.1f} s" for name, figures in row.items())
            self.bench.say(f"  boot to login: {told}")

    def large_boot(self, vault):
        figures, _ = self.boot(vault, self.server.endpoint)
        stored = self.stored("large")
        self.figures["large"] = {**figures, "stored_bytes": stored, "data_bytes": large_guest.DATA_MIB << 20}
        self.bench.say(f"  large guest: {figures} of {stored} stored")

    def stored(self, bucket):
        """All packs, as the server lists them."""
        total, token = 0, ""
        while True:
            with urllib.request.urlopen(f"{self.server.endpoint}/{bucket}?list-type=2&prefix=site/packs/{token}", timeout=60) as answer:
                page = answer.read().decode()
            total += sum(map(int, re.findall(r"<Size>(\d+)</Size>", page)))
            more = re.search(r"<NextContinuationToken>([^<]+)<", page)
            if not more:
                return total
            token = f"&continuation-token={urllib.request.quote(more[1])}"

    def boot(self, vault, endpoint):
        """With nothing cached, until the login prompt; and the machine that it was."""
        work = fresh_folder(self.folder / "boot")
        serial = work / "serial"
        words = ["boot", sparesite.VM, "--serial", serial, "--json", "--memory", MEMORY, "--accel", "tcg", "--cache-folder", work]
        with open(work / "out", "w+b") as out, open(work / "err", "w+b") as err:
            start = time.monotonic()
            process = subprocess.Popen(vault.command(*words), env=vault.through(endpoint), stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            with ended(process):
                seconds = until_login(serial, process, start, work / "err")
                machine = child_command(process.pid)
                process.terminate()
                if process.wait(60) != 0:
                    raise Failed(f"boot ended with {process.returncode}: {(work / 'err').read_text()[-800:]}")
            told = json.loads((work / "out").read_text())
        figures = {"seconds": seconds, "read_bytes": told["read_bytes"], "fetched_bytes": told["fetched"]["bytes"]}
        return figures, machine

    def boot_local(self, machine, image):
        """The same machine on a copy of the image in a local raw file that is not in the page cache."""
        work = fresh_folder(self.folder / "boot")
        copy, serial = work / "disk.raw", work / "serial"
        large_guest.call("cp", "--sparse=always", image, copy)
        with open(copy, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.monotonic()
        with open(work / "err", "w+b") as err:
            process = subprocess.Popen(local_machine(machine, copy, work), stdin=subprocess.DEVNULL, stdout=err, stderr=err)
            with ended(process):
                seconds = until_login(serial, process, start, work / "err")
        return {"seconds": seconds}

    @contextlib.contextmanager
    def serve(self, vault):
        """`serve` with nothing cached; gives the URI."""
        work = fresh_folder(self.folder / "serve")
        words = ["serve", sparesite.VM, "--listen", work / "s", "--json", "--read-only", "--cache-folder", work]
        with open(work / "out", "w+b") as out, open(work / "err", "w+b") as err:
            process = subprocess.Popen(vault.command(*words), env=vault.site.env, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            with ended(process):
                until = time.monotonic() + 60
                while not (told := (work / "out").read_text()).rstrip().endswith("}"):
                    if process.poll() is not None or time.monotonic() > until:
                        raise Failed(f"serve does not listen: {(work / 'err').read_text()[-800:]}")
                    time.sleep(0.01)
                yield json.loads(told)["exports"][0]["uri"]

    def random_reads(self, vault):
        """fio after the whole disk was read once, on one connection over a Unix socket."""
        with self.serve(vault) as uri:
            timed(["nbdcopy", uri, "null:"])
            job = [f"--{name}={value}" for name, value in RANDOM_READS.items()]
            words = ["fio", "--name=reads", "--ioengine=nbd", f"--uri={uri}", "--readonly", *job]
            # In a file: what fio has to remark goes to stdout.
            told = self.folder / "fio.json"
            timed([*words, "--output-format=json", f"--output={told}"])
            told = json.loads(told.read_text())
        reads = told["jobs"][0]["read"]
        p99 = reads["clat_ns"]["percentile"]["99.000000"] / 1e6
        self.figures["random"] = {"per_second": reads["iops"], "p99_milliseconds": p99}
        self.bench.say(f"  random reads: {reads['iops']:,.0f} a second, 99th percentile {p99:.2f} ms")

    def sequential(self, vault):
        """The whole disk into a file, by nbdcopy and by `assemble`: nothing cached, the vault opened by each, in turns."""
        rows = self.figures["sequential"] = []
        for _ in range(self.bench.options.runs):
            folder = fresh_folder(self.folder / "assembled")
            start = time.monotonic()
            with self.serve(vault) as uri:
                timed(["nbdcopy", uri, folder / "disk"])
                copied = {"wall": time.monotonic() - start}
            if not same_bytes(vault.image, folder / "disk"):
                raise Failed("nbdcopy got another disk than was captured")
            folder = fresh_folder(self.folder / "assembled")
            words = ["assemble", sparesite.VM, "--output", folder / "disk", "--format", "raw", "--no-sync", "--quiet"]
            rows.append({"nbd": copied, "assemble": timed(vault.command(*words), env=vault.site.env).numbers()})
            shutil.rmtree(folder)
            told = ", ".join(f"{name} {figures['wall']:.1f} s" for name, figures in rows[-1].items())
            self.bench.say(f"  whole disk: {told}")


@contextlib.contextmanager
def ended(process):
    try:
        yield
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def until_login(serial, process, start, words):
    while time.monotonic() - start < LOGIN_SECONDS:
        if serial.exists() and b" login: " in serial.read_bytes():
            return time.monotonic() - start
        if process.poll() is not None:
            break
        time.sleep(0.05)
    console = serial.read_bytes()[-300:] if serial.exists() else b""
    raise Failed(f"no login prompt: {words.read_text()[-600:]} {console.decode(errors='replace')}")


def child_command(parent):
    children = pathlib.Path(f"/proc/{parent}/task").glob("*/children")
    pids = " ".join(path.read_text() for path in children).split()
    commands = [pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1] for pid in pids]
    return next(command for command in commands if "qemu" in command[0])


def local_machine(machine, image, folder):
    """The command of a machine on the vault, with the disk a raw file, and sockets and serial line in `folder`. Pure."""
    out = []
    for option, value in zip([""] + machine, machine):
        if option == "-blockdev":
            value = re.sub(r"driver=nbd,(.*?),server\..*", rf"driver=raw,\1,file.driver=file,file.filename={image}", value)
        elif option in ("-qmp", "-chardev"):
            value = re.sub(r"((?:unix:|path=))[^,]*/", rf"\g<1>{folder}/", value)
        out.append(value)
    return out
