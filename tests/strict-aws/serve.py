"""Serves moto with its gaps closed and a judge in front of it: `serve.py --port 0` says where it listens."""

import argparse
import os
import signal
import sys

# moto's stock of public images makes two resources of each: slow, and nothing here launches them.
os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")

from moto.moto_server.werkzeug_app import (  # noqa: E402
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server  # noqa: E402

import patches  # noqa: E402
from gateway import Gateway  # noqa: E402


class Handler(MotoRequestHandler):
    def log_request(self, code="-", size="-"):
        """The record under /strict/requests has them all."""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-H", "--host", default="127.0.0.1")
    parser.add_argument("-p", "--port", type=int, default=5000)
    arguments = parser.parse_args()
    patches.apply()
    gateway = Gateway(DomainDispatcherApplication(create_backend_app))
    server = make_server(arguments.host, arguments.port, gateway, threaded=True, request_handler=Handler)
    os.environ.setdefault("MOTO_PORT", str(server.server_address[1]))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # As moto_server says it, where it says it.
    print(f" * Running on http://{arguments.host}:{server.server_address[1]}", file=sys.stderr, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
