"""A stand-in for the web process or the worker: answers /readyz, notes what happened to it.

``python standin_part.py NAME MODE``; the mode is web, web-dies, worker, worker-stubborn (does not
end) or worker-slow (likewise, and is given time).
"""
# ruff: noqa: T201 - its log is what the tests read

import json
import os
import signal
import socket
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

name, mode = sys.argv[1:]


def stopped(*_):
    print(f"{name} got SIGTERM", flush=True)
    if mode not in {"worker-stubborn", "worker-slow"}:
        sys.exit(0)


signal.signal(signal.SIGTERM, stopped)
# Whoever reads this may send the signal.
print(f"{name} speaks", flush=True)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = ("DATABASE_URL", "REDIS_URL", "DESTINATION_ALLOW_CIDRS", "PYTHONDONTWRITEBYTECODE")
        wanted += ("ENCRYPTION_KEYS",)
        body = json.dumps({key: os.environ.get(key) for key in wanted}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(HTTPServer):
    def server_bind(self):
        # Without the reverse look-up of the host's name that HTTPServer does here.
        socket.socket.setsockopt(self.socket, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = self.server_address


if mode == "web-dies":
    sys.exit("out of cheese")
if mode.startswith("web"):
    Server((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
while True:
    signal.pause()
