"""A real OpenTelemetry Collector as the receiver of the demonstration, where one is found."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ... import semconv as sc
from ...collector.shipped import shipped
from ...errors import ConfigurationError
from .agreed import HOST
from .processes import Processes
from .receivers import free_ports, wait_until_it_answers

BINARY_VARIABLE: Final = "OTELCOL_BIN"
NAMES: Final = ("otelcol-contrib", "otelcol")

_CONFIG: Final = "collector-config/agent/config.yaml"
_BUILT: Final = "collector-*/otelcol-audit"
"""Where ``make collector`` keeps what it builds, below the cache directory."""
_SMALL: Final = """\
receivers:
  otlp:
    protocols:
      http:
        endpoint: ${env:OTELCOL_HTTP_ENDPOINT}
exporters:
  file:
    path: ${env:OTELCOL_DATA_DIR}/audit.jsonl
    rotation:  # so that every request is written at once
      max_megabytes: 1000
extensions:
  health_check:
    endpoint: ${env:OTELCOL_HEALTH_ENDPOINT}
service:
  extensions: [health_check]
  pipelines:
    logs:
      receivers: [otlp]
      exporters: [file]
  telemetry:
    metrics:
      level: none
"""
"""Where the configuration that is shipped is not for this Collector: OTLP in, a file out."""


def find_collector(environ: Mapping[str, str]) -> Path | None:
    """``OTELCOL_BIN``, else ``otelcol-contrib`` or ``otelcol`` on ``PATH``, else what ``make collector`` built last.

    Raises:
        ConfigurationError: ``OTELCOL_BIN`` names nothing that can be run.
    """
    named = environ.get(BINARY_VARIABLE)
    if named:
        found = shutil.which(named)
        if found is None:
            raise ConfigurationError(f"{BINARY_VARIABLE}: {named} is no executable file")
        return Path(found).resolve()
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return Path(found).resolve()
    return _built(environ)


def _built(environ: Mapping[str, str]) -> Path | None:
    home = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".cache")
    cache = Path(environ.get("OTEL_AUDIT_CACHE") or Path(home) / "otel-audit").absolute()
    built = [path for path in cache.glob(_BUILT) if os.access(path, os.X_OK)]
    return max(built, key=lambda path: path.stat().st_mtime_ns, default=None)


class CollectorReceiver:
    """A Collector; what it has is read from the file that its file exporter writes.

    Args:
        processes: starts it.
        binary: the Collector.
        directory: for its files.
    """

    def __init__(self, processes: Processes, binary: Path, directory: Path) -> None:
        grpc, http, audit, self._health, metrics = free_ports(5)
        self.name = f"Collector {binary}"
        self.endpoint = f"http://{HOST}:{http}/v1/logs"
        self._processes = processes
        self._binary = binary
        self._log = directory / "collector.log"
        self._data = directory / "data"
        self._data.mkdir()
        self._variables = {
            "OTELCOL_GRPC_ENDPOINT": f"{HOST}:{grpc}",
            "OTELCOL_HTTP_ENDPOINT": f"{HOST}:{http}",
            "OTELCOL_AUDIT_ENDPOINT": f"{HOST}:{audit}",
            "OTELCOL_HEALTH_ENDPOINT": f"{HOST}:{self._health}",
            "OTELCOL_METRICS_PORT": str(metrics),
            "OTELCOL_DATA_DIR": str(self._data),
        }
        self._config = self._choose_config(directory)
        self._process: subprocess.Popen[bytes] | None = None

    def _choose_config(self, directory: Path) -> Path:
        with contextlib.suppress(ConfigurationError):  # the installation is not whole
            config = shipped(_CONFIG)
            command = [self._binary, "validate", f"--config={config}"]
            process = self._processes.start(command, self._log, variables=self._variables)
            if self._processes.wait(process, 30) == 0:
                return config
        small = directory / "config.yaml"
        small.write_text(_SMALL, encoding="utf-8")
        return small

    def start(self) -> None:
        """Start it and wait for its health check."""
        command = [self._binary, f"--config={self._config}"]
        self._process = self._processes.start(command, self._log, variables=self._variables)
        wait_until_it_answers(self._process, self._health, self._log)

    def kill(self) -> None:
        """SIGKILL."""
        self._processes.kill(self._process)

    def set_unavailable(self, *, unavailable: bool) -> bool:
        """A Collector does not answer 503 because somebody asks it to."""
        return False

    def delivered(self) -> list[str]:
        """What the file exporter has written, rotated files first."""
        paths = [*sorted(self._data.glob("audit-*.jsonl")), self._data / "audit.jsonl"]
        texts = (path.read_text(encoding="utf-8", errors="surrogateescape") for path in paths if path.exists())
        return [record_id for text in texts for request in _requests(text) for record_id in _ids(request)]


def _requests(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a file of the file exporter; fragments, which a kill leaves, are passed over."""
    begin = '{"resourceLogs"'
    decoder = json.JSONDecoder()
    at = text.find(begin)
    while at >= 0:
        try:
            request, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            end = at + 1
        else:
            yield request
        at = text.find(begin, end)


def _ids(request: Mapping[str, Any]) -> Iterator[str]:
    for resource in request["resourceLogs"]:
        for scope in resource.get("scopeLogs", ()):
            for record in scope.get("logRecords", ()):
                attributes = {each["key"]: each["value"] for each in record.get("attributes", ())}
                if sc.CONTROL not in attributes:
                    yield attributes[sc.RECORD_ID]["stringValue"]
