"""The embedded receiver, a process of its own: takes OTLP over HTTP and notes the ids of what it has acknowledged.

Run as ``python -m otel_audit.cli.demo.receiver PORT DIRECTORY UNWANTED``.  An id stands in the file before the request
is answered; control records, which the journal emits itself, are not noted.  While the directory has a file
``unavailable`` every answer is 503; a request with an event named UNWANTED is refused whole with 400.  It ends when its
standard input ends.
"""

from __future__ import annotations

import gzip
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ... import semconv as sc
from ...testing.receiver import PROTOBUF
from ...testing.script import parse_otlp
from .agreed import IDS, UNAVAILABLE


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, directory: Path, unwanted: str) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.unavailable = directory / UNAVAILABLE
        self.unwanted = unwanted
        self._ids = os.open(directory / IDS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._lock = threading.Lock()

    def keep(self, ids: list[str]) -> None:
        """Append the ids of one request."""
        data = "".join(f"{each}\n" for each in ids).encode()
        with self._lock:
            while data:
                data = data[os.write(self._ids, data) :]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Somebody asks whether it is there."""
        self._answer(200)

    def do_POST(self) -> None:
        """Take a request, keep its ids, answer."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.unavailable.exists():
            self._answer(503)
            return
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        records = parse_otlp(body)
        if any(record.event_name == self.server.unwanted for record in records):
            self._answer(400, f"{self.server.unwanted} is not an event that is wanted here".encode(), "text/plain")
            return
        self.server.keep([record.record_id for record in records if sc.CONTROL not in record.attributes])
        self._answer(200)

    def _answer(self, status: int, body: bytes = b"", content_type: str = PROTOBUF) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main(port: str, directory: str, unwanted: str) -> None:
    """Serve until standard input ends."""
    server = _Server(int(port), Path(directory), unwanted)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    while os.read(sys.stdin.fileno(), 1024):
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])
