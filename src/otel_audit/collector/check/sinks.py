"""The ends of a chain, where a check looks for its marks: a file that is written to, or an address that is sent to."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import threading
import zlib
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Protocol

from ...errors import ConfigurationError
from .marks import MARK_BYTES_MAX

BODY_BYTES_MAX: Final = 64 * 1024 * 1024
"""The largest request that a listener takes."""
_PIECE: Final = 1024 * 1024


class Sink(Protocol):
    """An end of the chain."""

    name: str

    def look(self) -> Counter[tuple[str, int]]:
        """How often each mark, as kind and number, has arrived so far."""

    def close(self) -> None:
        """Stop looking."""


def open_sink(text: str, marks: re.Pattern[bytes]) -> Sink:
    """The sink that an option means: ``listen:HOST:PORT``, or a path.

    Raises:
        ConfigurationError: it means none, or nobody can listen there.
        OSError: a file cannot be read.
    """
    if text.startswith("listen:"):
        return Listener(text, marks)
    return WrittenFile(Path(text.removeprefix("file:")), marks)


class WrittenFile:
    """A file of the Collector's file exporter, and those that it was renamed to: what is added to them from now on.

    Args:
        path: the file; it may not be there yet.
        marks: finds a mark in bytes.

    Raises:
        ConfigurationError: its directory is not there.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path, marks: re.Pattern[bytes]) -> None:
        self.name = str(path)
        self._path = path
        self._marks = marks
        self._seen: Counter[tuple[str, int]] = Counter()
        if not path.parent.is_dir():
            raise ConfigurationError(f"collector check: {path.parent}, where {path.name} should be, is no directory")
        # Renamed files are the same files: they are known by their inode.
        self._read: dict[int, int] = {}
        for file in self._files():
            with file.open("rb"):
                info = file.stat()
            self._read[info.st_ino] = info.st_size

    def _files(self) -> list[Path]:
        rotated = self._path.parent.glob(f"{self._path.stem}-*{self._path.suffix}")
        return [file for file in (*sorted(rotated), self._path) if file.is_file()]

    def look(self) -> Counter[tuple[str, int]]:
        """What was added since it was opened."""
        for file in self._files():
            with contextlib.suppress(FileNotFoundError):  # it is being rotated: next time
                self._read_more(file)
        return self._seen

    def _read_more(self, file: Path) -> None:
        with file.open("rb") as opened:
            info = os.fstat(opened.fileno())
            start = self._read.get(info.st_ino, 0)
            if info.st_size < start:  # truncated
                start = 0
            opened.seek(max(start - MARK_BYTES_MAX, 0))
            held = opened.read(min(start, MARK_BYTES_MAX))
            while piece := opened.read(_PIECE):
                text = held + piece
                for match in self._marks.finditer(text):
                    if match.end() > len(held):  # else it was counted before
                        self._seen[match[1].decode(), int(match[2])] += 1
                start += len(piece)
                held = text[-MARK_BYTES_MAX:]
            self._read[info.st_ino] = start

    def close(self) -> None:
        """Nothing is held open."""


class Listener:
    """Takes OTLP over HTTP, whatever the path, and acknowledges it: the last hop of a chain that is tried.

    Args:
        text: ``listen:HOST:PORT``.
        marks: finds a mark in bytes.

    Raises:
        ConfigurationError: the address is none, or cannot be listened on.
    """

    def __init__(self, text: str, marks: re.Pattern[bytes]) -> None:
        self.name = text
        match = re.fullmatch(r"listen:(\[[0-9A-Fa-f:]+\]|[\w.-]+):(\d{1,5})", text)
        if match is None or int(match[2]) > 65535:
            raise ConfigurationError(f"collector check: expected listen:HOST:PORT, got {text!r}")
        self._marks = marks
        self._changed = threading.Lock()
        self._seen: Counter[tuple[str, int]] = Counter()
        try:
            self._server = _Server((match[1].strip("[]"), int(match[2])), self)
        except OSError as error:
            raise ConfigurationError(f"collector check: cannot {text}: {error.strerror or error}") from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def look(self) -> Counter[tuple[str, int]]:
        """What has come."""
        with self._changed:
            return Counter(self._seen)

    def take(self, body: bytes) -> None:
        """Note the marks in a request."""
        with self._changed:
            self._seen.update((match[1].decode(), int(match[2])) for match in self._marks.finditer(body))

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], listener: Listener) -> None:
        self.listener = listener
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is its own business."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > BODY_BYTES_MAX:
            self._answer(413 if length.isdigit() else 411)
            return
        body = self.rfile.read(int(length))
        encoding = self.headers.get("Content-Encoding", "identity")
        try:
            body = _unpacked(body) if encoding == "gzip" else body
        except (OSError, EOFError, zlib.error):
            self._answer(400)
            return
        if encoding not in ("identity", "gzip", ""):
            self._answer(415)
            return
        self.server.listener.take(body)
        self._answer(200)

    def _answer(self, status: int) -> None:
        kind = self.headers.get("Content-Type", "application/x-protobuf")
        body = b"{}" if kind.startswith("application/json") and status == 200 else b""
        if status != 200:
            self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _unpacked(body: bytes) -> bytes:
    """A compressed request; one that grows beyond the bound is refused."""
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)
    text = unpacking.decompress(body, BODY_BYTES_MAX)
    if not unpacking.eof:
        raise gzip.BadGzipFile("cut short, or too large")
    return text
