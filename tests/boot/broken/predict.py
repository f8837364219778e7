"""What preflight says of an image: it goes into a vault as a site's VM does, and is judged from there."""

import json
import subprocess

from harness.accel import TCG
from harness.failed import Failed
from harness.qmp import Qmp
from harness.sparesite import Site, VM

from . import machine

TARGETS = ("qemu", "aws", "azure")


def predict(image, firmware, bus, folder):
    """{target: (verdict, {code: severity})}"""
    site = site_of(image, firmware, bus, folder)
    done = site.call([str(site.programs / "sparesite-restore"), "preflight", VM, "--target", ",".join(TARGETS), "--json", "--quiet"])
    try:
        answer = read_answer(json.loads(done.stdout))
        if not answer:
            raise ValueError("no judgement in it")
        return answer
    except (ValueError, KeyError, TypeError) as error:
        said = f"{done.stdout[-600:]}\n{done.stderr[-800:]}"
        raise Failed(f"preflight ended with {done.returncode}, and its answer is not understood: {error!r}\n{said}") from error


def site_of(image, firmware, bus, folder):
    """A site with the image as its VM, captured once."""
    with Standing(image, firmware, bus, folder / "vm") as standing:
        site = Site(folder / "site", f'{{ qemu = {{ qmp = "{standing.qmp}" }} }}', "crash")
        site.gateway("sync", "--json", "--quiet")
    return site


class Standing:
    """A QEMU whose guest never runs (-S): the gateway reads firmware and disk bus from it, which a list of disk
    files does not tell, and no byte of the image changes."""

    def __init__(self, image, firmware, bus, folder):
        folder.mkdir(parents=True)
        self.qmp, self.log = folder / "qmp", folder / "log"
        self.command = machine.that_stands(image, firmware, bus, folder, TCG)

    def __enter__(self):
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, start_new_session=True)
        try:
            Qmp(self.qmp).close()       # it answers; the monitor serves one client at a time
        except Failed as error:
            self.__exit__()
            raise Failed(f"{error}\n{self.log.read_text()[-800:]}") from error
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def read_answer(document):
    """Pure. Of each target of preflight's document, its verdict and its findings' codes with their severities."""
    found = {}
    for told in judgements(document):
        codes = {}
        for finding in told["findings"]:
            # A code can come more than once (of two disks): the gravest counts.
            codes[finding["code"]] = min(codes.get(finding["code"], "note"), finding["severity"], key=GRAVITY.index)
        found[told["target"]] = (told["verdict"], codes)
    return found


def judgements(document):
    """Wherever they lie in it: what is around them may grow."""
    if isinstance(document, dict) and {"target", "verdict", "findings"} <= document.keys():
        yield document
        return
    inner = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    for part in inner:
        yield from judgements(part)


GRAVITY = ("blocks", "hinders", "note")


def disagreements(variant, answer):
    """Pure. What of the table preflight does not say, in words."""
    found = []
    for target in TARGETS:
        told = getattr(variant, target)
        if told is None:
            continue
        if target not in answer:
            found.append(f"{target}: nothing is said")
            continue
        verdict, codes = answer[target]
        if verdict != told.verdict:
            found.append(f"{target}: {verdict}, not {told.verdict} ({', '.join(sorted(codes)) or 'no finding'})")
        found += [f"{target}: no finding {code}" for code in told.codes if code not in codes]
    found += [f"{target}: false alarm {code}" for target, (_, codes) in answer.items() for code in variant.absent if code in codes]
    return found
