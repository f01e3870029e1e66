"""Who the records are sent to: a real Collector where there is one, else a process that reads and acknowledges."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from .harness import ROOT

CONFIG = """
receivers:
  otlp:
    protocols:
      http:
        endpoint: 127.0.0.1:{port}
      grpc:
        endpoint: 127.0.0.1:{grpc_port}
exporters:
  debug:
    verbosity: basic
service:
  pipelines:
    logs:
      receivers: [otlp]
      exporters: [debug]
  telemetry:
    logs:
      level: error
    metrics:
      level: none
"""
"""Nothing is kept: what a Collector does with the records is not what is measured."""


def find_collector() -> str | None:
    """``OTELCOL_BIN``, else ``otelcol-contrib`` or ``otelcol`` on ``PATH``, else what ``build.sh`` keeps."""
    for name in (os.environ.get("OTELCOL_BIN"), "otelcol-contrib", "otelcol"):
        found = shutil.which(name) if name else None
        if found:
            return found
    script = ROOT / "collector-config" / "build.sh"
    if not script.exists() or shutil.which("bash") is None:
        return None
    asked = subprocess.run(["bash", script, "--path"], capture_output=True, text=True, check=False, timeout=30)
    built = asked.stdout.strip()
    return built if asked.returncode == 0 and os.access(built, os.X_OK) else None


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[str]:
    """A receiver in a process of its own; gives its base URL once it answers.

    Raises:
        RuntimeError: it does not.
    """
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 30
            while not _answers(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    said = log.read()[-2000:].decode(errors="replace")
                    raise RuntimeError(f"{command[0]} does not answer on port {port}:\n{said}")
                time.sleep(0.02)
            yield url
        finally:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        request = urllib.request.Request(f"{url}/v1/logs", b"", {"Content-Type": "application/x-protobuf"})
        with urllib.request.urlopen(request, timeout=5) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


class Receiver(NamedTuple):
    """Where a receiver is, for each protocol, and what it is called."""

    url: str
    grpc_url: str
    name: str


@contextlib.contextmanager
def receiver(*, collector: bool) -> Iterator[Receiver]:
    """A receiver of OTLP over HTTP and gRPC.

    Args:
        collector: a real Collector, where there is one.
    """
    binary = find_collector() if collector else None
    port, grpc_port = free_port(), free_port()
    grpc_url = f"http://127.0.0.1:{grpc_port}"
    if binary is None:
        with discard(port, grpc_port) as url:
            yield Receiver(url, grpc_url, "a local receiver that discards")
        return
    with tempfile.TemporaryDirectory(prefix="otel-audit-bench-") as directory:
        config = Path(directory) / "config.yaml"
        config.write_text(CONFIG.format(port=port, grpc_port=grpc_port), encoding="utf-8")
        with running([binary, f"--config={config}"], port) as url:
            asked = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False, timeout=30)
            yield Receiver(url, grpc_url, f"the Collector ({asked.stdout.strip() or Path(binary).name})")


@contextlib.contextmanager
def discard(port: int, *grpc_port: int) -> Iterator[str]:
    """A receiver that reads every request and acknowledges it; with a second port, over gRPC too."""
    with running([sys.executable, "-m", "benchmarks.receiver", *map(str, (port, *grpc_port))], port) as url:
        yield url


class _Discard(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        left = int(self.headers.get("Content-Length", 0))
        while left > 0:
            read = self.rfile.read(min(left, 1 << 20))
            if not read:
                return
            left -= len(read)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
        pass


def _discard_grpc(port: int) -> Any:
    """The same over gRPC; it ends with the process."""
    import grpc

    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    method = grpc.unary_unary_rpc_method_handler(lambda request, context: b"")
    service = "opentelemetry.proto.collector.logs.v1.LogsService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": method}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server


if __name__ == "__main__":
    serving = [_discard_grpc(int(number)) for number in sys.argv[2:]]
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), _Discard).serve_forever()
