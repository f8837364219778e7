"""The control endpoints below /strict/: what was asked, what was wrong, faults, what is left, what a disk reads, what a console says."""

import json

from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.scheduler.models import scheduler_backends
from urllib.parse import parse_qs
from werkzeug.wrappers import Response

import consoles
import ebs
import quotas
import volumes
from blocks import BLOCK, PER_GIB, DirectSnapshot


def reply(value, status=200):
    return Response(json.dumps(value), status, content_type="application/json")


class Control:
    def __init__(self, record, faults):
        self.record, self.faults = record, faults

    def __call__(self, environ, target):
        """Returns the response. Only for the machine itself: these endpoints hold no keys."""
        if environ["REMOTE_ADDR"] not in ("127.0.0.1", "::1"):
            return reply({"error": "loopback only"}, 403)
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length) if length else b""
        what = (environ["REQUEST_METHOD"], target.path.removeprefix("/strict/").partition("/")[0])
        query = {name: values[0] for name, values in parse_qs(target.query).items()}
        match what:
            case ("GET", "requests"):
                with self.record.lock:
                    return reply(self.record.requests)
            case ("GET", "violations"):
                with self.record.lock:
                    return reply(self.record.violations)
            case ("POST", "reset"):
                self.record.reset()
                quotas.given.clear()
                return reply({})
            case ("POST", "faults"):
                try:
                    self.faults.add(json.loads(body))
                except ValueError as error:
                    return reply({"error": str(error)}, 400)
                return reply({})
            case ("POST", "quotas"):
                try:
                    quotas.give(json.loads(body))
                except ValueError as error:
                    return reply({"error": str(error)}, 400)
                return reply({})
            case ("DELETE", "faults"):
                self.faults.clear()
                return reply({})
            case ("POST", "windows-image"):
                backend = ec2_backends[DEFAULT_ACCOUNT_ID]["eu-central-1"]
                return reply({"image": volumes.windows_image(backend, **json.loads(body))})
            case ("GET", "inventory"):
                return inventory(query)
            case ("GET", "disk"):
                return disk(target.path.removeprefix("/strict/disk/"))
            case ("POST", "console"):
                return console(target.path.removeprefix("/strict/console/"), body)
        return reply({"error": f"no endpoint {what[0]} {target.path}"}, 404)


def every(backends):
    """The backends that exist, of all accounts and regions; asking for one by name would make it."""
    return [backend for regions in list(backends.values()) for backend in list(regions.values())]


def inventory(query):
    if unknown := set(query) - {"tag", "value", "schedule_prefix"}:
        return reply({"error": f"unknown parameters {sorted(unknown)}"}, 400)
    kept = {kind: [] for kind in ("snapshots", "images", "instances", "volumes", "network_interfaces", "schedules")}
    with ebs.LOCK:
        for backend in every(ec2_backends):

            def tagged(ids):
                return [i for i in ids if has_tag(backend.tags.get(i, {}), query)]

            alive = [i.id for i in backend.all_instances() if i.state not in ("terminated", "shutting-down")]
            kept["snapshots"] += tagged(backend.snapshots)
            kept["images"] += tagged(backend.amis)
            kept["instances"] += tagged(alive)
            kept["volumes"] += tagged(backend.volumes)
            kept["network_interfaces"] += tagged(backend.enis)
        if (prefix := query.get("schedule_prefix")) is not None:
            for backend in every(scheduler_backends):
                for group in backend.schedule_groups.values():
                    kept["schedules"] += [name for name in group.schedules if name.startswith(prefix)]
    return reply(kept)


def has_tag(tags, query):
    if "tag" not in query or query["tag"] not in tags:
        return False
    return "value" not in query or tags[query["tag"]] == query["value"]


def disk(snapshot_id):
    for backend in every(ec2_backends):
        snapshot = backend.snapshots.get(snapshot_id)
        if isinstance(snapshot, DirectSnapshot):
            size = snapshot.volume_size * PER_GIB * BLOCK
            headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
            return Response(snapshot.image(), 200, headers)
    return reply({"error": f"no snapshot {snapshot_id} with content"}, 404)


def console(instance_id, said):
    for backend in every(ec2_backends):
        if any(instance.id == instance_id for instance in backend.all_instances()):
            consoles.tell(backend, instance_id, said)
            return reply({})
    return reply({"error": f"no instance {instance_id}"}, 404)
