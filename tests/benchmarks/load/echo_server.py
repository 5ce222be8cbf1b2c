"""A small server that sends back the body of a POST request; status 500 if the body contains ``fail``."""

import contextlib
import http.client
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.load.server_process import Server, pinned_server

ECHO = """
import sys, http.server
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(500 if b"fail" in body else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
"""

CORE = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0


@contextlib.contextmanager
def echo(log: Path, port: int) -> Iterator[Server]:
    def ready() -> bool:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            connection.request("POST", "/", b"hello")
            return connection.getresponse().read() == b"hello"

    with pinned_server([sys.executable, "-c", ECHO, str(port)], ready, log=log, cores=[CORE]) as server:
        yield server
