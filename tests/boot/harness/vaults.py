"""Where a bench's vault is: a directory, an S3 server, one that is away now and then, one behind a slow uplink."""

import contextlib
import dataclasses
import random
import re
import threading
import typing

from . import s3, uplink

# Seconds over which a cap must hold. The gateway may catch up with 0.25 s, and headers take 3.6 % of a line: in 10 s that
# would be more than the tolerance, where nothing is wrong.
CAP_SPAN = 20.0
CAP_TOLERANCE = 0.05
OUTAGE_SECONDS = (2.0, 10.0)            # how long the server is away, and as long there, at random
UNITS = {"bit": 1, "kbit": 1000, "Mbit": 1000_000}


@dataclasses.dataclass
class Vault:
    url: str | None = None              # None: a directory beside the site
    env: dict = dataclasses.field(default_factory=dict)
    extra: str = ""                     # configuration that goes with it
    first_sync_done: list = dataclasses.field(default_factory=list)     # called then: the line gets slow
    begin_disturbing: list = dataclasses.field(default_factory=list)
    calm_down: list = dataclasses.field(default_factory=list)           # called before the last sync: the server stays
    figures: dict = dataclasses.field(default_factory=dict)
    findings: list = dataclasses.field(default_factory=list)

    is_sending: typing.Callable[[int], bool] | None = None      # whether a process sends; None: the vault is a folder
    is_paced: bool = False              # the line or a cap makes uploads last
    disturbed: bool = False             # a sync may fail, until it is calm

    @property
    def disturbs(self):
        return bool(self.begin_disturbing)

    def after_first_sync(self):
        for begin in self.first_sync_done:
            begin()

    def disturb(self):
        for begin in self.begin_disturbing:
            begin()

    def calm(self):
        for end in self.calm_down:
            end()
        self.disturbed = False

    def pace(self, kbits):
        """The gateway's own cap, from the next configuration on."""
        self.extra = f'[uplink]\ncap = "{kbits} kbit/s"\n'
        self.figures["cap_kbit"] = kbits


def bits_per_second(text):
    """`1 Mbit/s` as the configuration writes it."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) (bit|kbit|Mbit)/s", text)
    if not match:
        raise ValueError(f"{text!r} is no rate such as '1 Mbit/s'")
    return int(float(match[1]) * UNITS[match[2]])


@contextlib.contextmanager
def vault(kind, rate=None, cap=None, outages=False, seed=1, saturated=True):
    """`rate` shapes the line, `cap` is what the gateway is told to keep to. `saturated`: there is enough to send for
    the rate to be reached."""
    made = Vault(is_paced=bool(rate or cap))
    if cap:
        # The first sync would take twenty minutes of nothing else.
        made.first_sync_done.append(lambda: made.pace(bits_per_second(cap) // 1000))
    with contextlib.ExitStack() as stack:
        if kind == "s3":
            enter_s3(stack, made, rate, cap, outages, seed, saturated)
        yield made


def enter_s3(stack, made, rate, cap, outages, seed, saturated):
    line = stack.enter_context(uplink.Uplink()) if rate or cap else None
    server = stack.enter_context(s3.S3Server(line.address, line.inside) if line else s3.S3Server())
    made.url = f"s3://{server.create_bucket()}/site"
    # Through loopback, as the programs refuse plain HTTP to any other address.
    door = stack.enter_context(s3.Door(server.host, server.port, seed))
    made.is_sending = lambda pid: door.carries() > s3.MOST_OF_ASKING
    if outages:
        away = stack.enter_context(Outages(server, door, seed))
        made.begin_disturbing.append(away.thread.start)
        made.calm_down.append(away.pause)
        made.disturbed = True
        stack.callback(lambda: made.figures.update(outages=dict(away.counts)))
    made.env = s3.environment(door.endpoint)
    if line:
        meter = stack.enter_context(uplink.Meter(line))
        if rate:
            made.first_sync_done.append(lambda: line.shape(bits_per_second(rate)))
        made.first_sync_done.append(meter.restart)
        stack.callback(lambda: judge_rate(made, meter, rate, cap, saturated))


def judge_rate(made, meter, rate, cap, saturated):
    busiest = uplink.busiest_rate(meter.samples, CAP_SPAN)
    made.figures |= {"busiest_span_bits": busiest, "sent_bytes": meter.samples[-1][1] - meter.samples[0][1], "rate": rate, "cap": cap}
    what, limit = ("cap", cap) if cap else ("line", rate)
    made.findings += rate_findings(busiest, what, limit, saturated)


def rate_findings(busiest, what, limit, saturated):
    """Too little says that the rate was never put to the test. Pure."""
    if busiest is None:
        return [f"nothing was sent for {CAP_SPAN:g} s: whether the {what} of {limit} holds is not known"]
    share = busiest / bits_per_second(limit)
    told = f"the uplink carried {busiest / 1e6:.3f} Mbit/s over its busiest {CAP_SPAN:g} s, the {what} is {limit}"
    if share > 1 + CAP_TOLERANCE:
        return [told]
    return [f"{told}: it was not reached"] if saturated and share < 1 - CAP_TOLERANCE else []


class Outages:
    """The server goes and comes at random times of a seed, each time in one of the ways that servers have."""

    def __init__(self, server, door, seed):
        self.rng = random.Random(seed)
        self.ways = {
            "refuses": (door.shut, door.open),
            "answers 503": (lambda: door.behave(s3.BUSY), door.behave),
            "resets": (lambda: door.behave(s3.RESET), door.behave),
            "hangs": (server.halt, server.go_on),
        }
        self.counts = dict.fromkeys(self.ways, 0)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._come_and_go, daemon=True)

    def _come_and_go(self):
        while not self.stop.wait(self.rng.uniform(*OUTAGE_SECONDS)):
            way = self.rng.choice(list(self.ways))
            go, come = self.ways[way]
            go()
            self.counts[way] += 1
            self.stop.wait(self.rng.uniform(*OUTAGE_SECONDS))
            come()

    def pause(self):
        """Ends the coming and going, with the server there."""
        self.stop.set()
        if self.thread.is_alive():
            self.thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pause()
