"""Writes all the time and says on a virtio-serial port what is durable. Runs in the guest.

Rows: order record "before" on the second disk (O_DSYNC) → row committed on the first (SQLite, WAL,
synchronous=FULL) → order record "after" → `row N`. So at any one instant after ≤ newest row ≤ before,
and before - after ≤ 1, whatever moment a power cut chooses; disks of different moments break it.
Files: on each disk a tree that changes, each operation between two synced manifest entries → `op DISK N`.
"""

import os
import random
import shutil
import sqlite3
import threading
import time

import ledger

PORT = "/dev/virtio-ports/sparesite.writer"
ROWS = "/srv/writer/rows.db"
ORDER = "/data/writer/order"
TREES = {"root": "/srv/writer", "data": "/data/writer"}
BULK = "/data/writer/bulk"
BULK_STEP = 64 << 10
BULK_STEPS = 4096                       # 256 MiB
BULK_STRIDE = 1597                      # odd: all of the file is written before anything is written again
FILES = 40                              # a tree holds about as many
ASK, ANSWER = "/run/writer/ask", "/run/writer/answer"
QUIESCE_SECONDS = 5


class Port:
    """The line to the host: what is durable goes out, commands come in."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDWR)
        self.lock = threading.Lock()

    def say(self, text):
        with self.lock:
            os.write(self.fd, f"{text} {time.time_ns()}\n".encode())

    def commands(self):
        rest = b""
        while True:
            data = os.read(self.fd, 4096)
            if not data:                # nobody is connected
                time.sleep(0.05)
            *lines, rest = (rest + data).split(b"\n")
            yield from (line.decode() for line in lines)


class Gate:
    """Where every worker rests between two steps while the disks are to be at peace."""

    def __init__(self, workers):
        self.state = threading.Condition()
        self.workers = workers
        self.closed = False
        self.resting = 0
        self.turn = 0                   # changes when everybody shall look at the load again

    def rest(self, seconds, tidy=lambda: None):
        """Waits for the next step's time, or for as long as the gate is closed."""
        with self.state:
            turn = self.turn
            self.state.wait_for(lambda: self.closed or self.turn != turn, timeout=seconds)
            if not self.closed:
                return
        tidy()
        with self.state:
            self.resting += 1
            self.state.notify_all()
            self.state.wait_for(lambda: not self.closed)
            self.resting -= 1
            self.state.notify_all()

    def close(self):
        with self.state:
            self.closed = True
            self.state.notify_all()
            return self.state.wait_for(lambda: self.resting == self.workers, timeout=QUIESCE_SECONDS)

    def open(self):
        with self.state:
            self.closed = False
            self.state.notify_all()
            self.state.wait_for(lambda: self.resting == 0, timeout=QUIESCE_SECONDS)

    def look_again(self):
        with self.state:
            self.turn += 1
            self.state.notify_all()


class Rows:
    name = "rows"

    def __init__(self, port):
        self.port = port
        self.database = sqlite3.connect(ROWS, isolation_level=None, check_same_thread=False)
        self.database.execute("PRAGMA journal_mode=WAL")
        self.database.execute("PRAGMA synchronous=FULL")
        if not self.database.execute("SELECT 1 FROM sqlite_master WHERE name='rows'").fetchone():
            self.database.execute(ledger.SCHEMA)
        newest = self.database.execute("SELECT n, sum FROM rows ORDER BY n DESC LIMIT 1").fetchone()
        self.n, self.sum = newest or (0, "")
        self.order = os.open(ORDER, os.O_RDWR | os.O_CREAT | os.O_DSYNC)

    def note(self, slot, n):
        os.pwrite(self.order, ledger.pack_order(n, time.time_ns()), slot * ledger.ORDER_SLOT)

    def step(self):
        n, at = self.n + 1, time.time_ns()
        body = random.randbytes(random.randint(100, 1000))
        check = ledger.row_sum(self.sum, n, at, body)
        self.note(ledger.BEFORE, n)
        self.database.execute("INSERT INTO rows VALUES (?, ?, ?, ?)", (n, at, body, check))
        self.note(ledger.AFTER, n)
        self.n, self.sum = n, check
        self.port.say(f"row {n}")

    def tidy(self):
        self.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


class Tree:
    """One generation per start, so that what a crash left in flight is never built upon."""

    def __init__(self, port, disk, folder):
        self.port, self.disk, self.name = port, disk, f"tree-{disk}"
        old = [int(name[5:]) for name in os.listdir(folder) if name.startswith("tree-")]
        self.folder = f"{folder}/tree-{max(old, default=0) + 1}"
        os.mkdir(self.folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self.manifest = os.open(f"{self.folder}.manifest", flags)
        self.place = os.open(self.folder, os.O_RDONLY)
        sync_folder(folder)
        for number in old:
            shutil.rmtree(f"{folder}/tree-{number}")
            os.unlink(f"{folder}/tree-{number}.manifest")
        self.files, self.op = {}, 0

    def note(self, entry):
        os.write(self.manifest, ledger.pack_entry(entry))
        os.fsync(self.manifest)

    def step(self):
        self.op += 1
        entry = self.choose()
        self.note({**entry, "op": self.op, "phase": "will"})
        getattr(self, entry["do"])(entry)
        self.note({"op": self.op, "phase": "did"})
        self.files = ledger.apply(self.files, entry)
        self.port.say(f"op {self.disk} {self.op}")

    def choose(self):
        names = sorted(self.files)
        fresh = {"do": "put", "name": f"f{self.op}", "seed": f"{self.disk}{self.op}", "size": random.randint(0, 40000)}
        if len(names) < FILES // 2:
            return fresh
        name = random.choice(names)
        seed, size = self.files[name]
        kinds = [
            {**fresh, "name": name},
            {"do": "append", "name": name, "seed": seed, "size": size + random.randint(1, 9000)},
            {"do": "rename", "name": name, "to": f"r{self.op}"},
            {"do": "delete", "name": name},
        ]
        return random.choice([*kinds, fresh] if len(names) < FILES else kinds)

    def put(self, entry):
        new = f".new-{self.op}"
        self.write(new, os.O_CREAT | os.O_EXCL, ledger.stream(entry["seed"], entry["size"]))
        os.rename(new, entry["name"], src_dir_fd=self.place, dst_dir_fd=self.place)
        os.fsync(self.place)

    def append(self, entry):
        was = self.files[entry["name"]][1]
        self.write(entry["name"], os.O_APPEND, ledger.stream(entry["seed"], entry["size"])[was:])

    def rename(self, entry):
        os.rename(entry["name"], entry["to"], src_dir_fd=self.place, dst_dir_fd=self.place)
        os.fsync(self.place)

    def delete(self, entry):
        os.unlink(entry["name"], dir_fd=self.place)
        os.fsync(self.place)

    def write(self, name, flags, data):
        fd = os.open(name, os.O_WRONLY | flags, dir_fd=self.place)
        try:
            os.write(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)

    def tidy(self):
        pass


class Bulk:
    """Pieces of a large file, here and there, for more change than rows and files make."""

    name = "bulk"

    def __init__(self):
        self.fd = os.open(BULK, os.O_RDWR | os.O_CREAT)
        os.ftruncate(self.fd, BULK_STEPS * BULK_STEP)
        self.n = 0

    def step(self):
        self.n += 1
        os.pwrite(self.fd, random.randbytes(BULK_STEP), self.n * BULK_STRIDE % BULK_STEPS * BULK_STEP)
        if self.n % 16 == 0:            # it reaches the disk while it is made, and not all of it in the freeze
            os.fdatasync(self.fd)

    def tidy(self):
        pass


def sync_folder(folder):
    fd = os.open(folder, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def work(worker, gate, load, port):
    try:
        while True:
            rate = load[worker.name]
            gate.rest(1 / rate if rate else 3600, worker.tidy)
            if load[worker.name]:
                worker.step()
    except Exception as error:          # the host must hear of any error that the guest's disks gave
        port.say(f"error {worker.name} {type(error).__name__}: {error}".replace("\n", " "))
        raise


def obey_host(port, gate, load):
    """`load NAME=PER_SECOND …`: how many steps a second each worker makes at most; 0 rests it."""
    for line in port.commands():
        word, *settings = line.split()
        if word == "load":
            for setting in settings:
                name, _, rate = setting.partition("=")
                load[name] = float(rate)
            port.say("load " + " ".join(f"{name}={rate:g}" for name, rate in load.items()))
            gate.look_again()


def obey_hook(port, gate, rows):
    """Opened for reading and writing, so that a pipe never ends and never blocks its opening."""
    ask = os.open(ASK, os.O_RDWR)
    answer = os.open(ANSWER, os.O_RDWR)
    for word in os.fdopen(ask, "r", buffering=1):
        word = word.strip()
        if word == "quiesce":
            done = gate.close()
            port.say(f"quiesced {rows.n}" if done else "error hook a worker did not rest")
            if not done:                # the agent calls no hook to undo a freeze that failed
                gate.open()
            os.write(answer, f"{word if done else 'failed'}\n".encode())
        else:
            gate.open()
            port.say(f"released {rows.n}")


def main():
    for folder in TREES.values():
        os.makedirs(folder, exist_ok=True)
    for pipe in (ASK, ANSWER):
        os.mkfifo(pipe)
    port = Port(PORT)
    rows = Rows(port)
    workers = [rows, *(Tree(port, disk, folder) for disk, folder in TREES.items()), Bulk()]
    load = {"rows": 25.0, "tree-root": 4.0, "tree-data": 4.0, "bulk": 0.0}
    gate = Gate(len(workers))
    port.say(f"start {rows.n}")
    threads = [threading.Thread(target=work, args=(worker, gate, load, port)) for worker in workers]
    threads += [
        threading.Thread(target=obey_host, args=(port, gate, load), daemon=True),
        threading.Thread(target=obey_hook, args=(port, gate, rows), daemon=True),
    ]
    for thread in threads:
        thread.start()


if __name__ == "__main__":
    main()
