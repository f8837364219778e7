"""How fast a failover sends blocks: a sink that checks SHA-256 takes them from a minimal client, and from the stream, in turns."""

import json
import os
import subprocess

from .measure import Failed

BLOCKS = 8192                           # of 512 KiB: 4 GiB
KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": "us-east-1"}


def measure(bench):
    """Fills bench.results["blocks"]: rows of seconds for "minimal" and "stream"."""
    program = bench.binaries / "bench-blocks"
    rows = bench.results["blocks"].setdefault("rows", [])
    with subprocess.Popen([program, "sink"], stdout=subprocess.PIPE, text=True) as sink:
        try:
            port = sink.stdout.readline().strip()
            environment = {**os.environ, **KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
            for _ in range(bench.options.runs):
                row = {}
                for name, words in (("minimal", ("minimal", port, BLOCKS)), ("stream", ("stream", BLOCKS))):
                    command = [str(word) for word in (program, *words)]
                    row[name] = json.loads(subprocess.check_output(command, env=environment, text=True))["seconds"]
                rows.append(row)
                bench.say(f"  blocks: minimal {row['minimal']:.1f} s, stream {row['stream']:.1f} s")
        except (Failed, OSError, ValueError, subprocess.SubprocessError) as error:
            bench.say(f"  blocks FAILED: {error}")
            bench.results["failures"].append(f"blocks: {error}")
        finally:
            sink.kill()
