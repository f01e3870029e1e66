"""A real OpenTelemetry Collector for tests: find the binary, run it, kill it, read what it stored."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypedDict

from support.journal import needs
from support.ports import HOST, free_ports

CONFIGURATIONS = Path(__file__).resolve().parents[2] / "collector-config"
AGENT = CONFIGURATIONS / "agent" / "config.yaml"
FORWARD = CONFIGURATIONS / "agent" / "forward.yaml"
RELAY = CONFIGURATIONS / "agent" / "relay.yaml"
GATEWAY = CONFIGURATIONS / "gateway" / "config.yaml"
GATEWAY_FILES = CONFIGURATIONS / "gateway" / "files.yaml"
SCALE_OUT = CONFIGURATIONS / "scale-out"

_PORTS = ("GRPC", "HTTP", "AUDIT", "HEALTH", "METRICS")


def find_collector() -> Path | None:
    """The Collector to test with: OTELCOL_BIN, else one on PATH, else what build.sh keeps in the cache."""
    named = os.environ.get("OTELCOL_BIN")
    if named:
        found = shutil.which(named)
        if found is None:
            raise RuntimeError(f"OTELCOL_BIN={named} is not an executable file")
        return Path(found).resolve()
    for name in ("otelcol-contrib", "otelcol"):
        found = shutil.which(name)
        if found:
            return Path(found).resolve()
    # build.sh alone knows the rule for the cache directory's name.
    asked = subprocess.run(
        [CONFIGURATIONS / "build.sh", "--path"], capture_output=True, text=True, check=True, timeout=30
    )
    built = Path(asked.stdout.strip())
    return built if os.access(built, os.X_OK) else None


def require_collector() -> Path:
    """The Collector to test with; without one the test skips, or fails where OTEL_AUDIT_REQUIRE names it."""
    binary = find_collector()
    needs(binary, "collector", "there is no Collector: run collector-config/build.sh, or name one in OTELCOL_BIN")
    assert binary is not None
    return binary


def validate(config: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the Collector's own check of a configuration file; its complaints are in `stderr`."""
    return subprocess.run(
        [require_collector(), "validate", f"--config={config}"],
        env=_environment(env or {}),
        capture_output=True,
        text=True,
        timeout=60,
    )


class StoredRecord(TypedDict):
    """One log record as the file exporter wrote it, with OTLP's tagged values turned into Python values."""

    event_name: str
    attributes: dict[str, Any]
    body: Any
    resource: dict[str, Any]
    scope: str
    timestamp: int
    observed_timestamp: int
    severity_number: int
    severity_text: str
    trace_id: str
    span_id: str


class CollectorError(Exception):
    """The Collector did not start or stop as it should; the message ends with its last log lines."""


class Collector:
    """A Collector process with its own directory and free ports on the loopback interface.

    `config` is a file (a `Path`) or the text of one (a `str`). The configuration takes its addresses and its
    directory from the variables that the shipped ones use: OTELCOL_GRPC_ENDPOINT, OTELCOL_HTTP_ENDPOINT,
    OTELCOL_AUDIT_ENDPOINT, OTELCOL_HEALTH_ENDPOINT (without a health check there the start times out),
    OTELCOL_METRICS_PORT and OTELCOL_DATA_DIR. `env` adds to them or replaces them; with OTELCOL_TLS_DIR in it the
    URLs begin with https. No OTELCOL_ variable of the test's own environment reaches the Collector.

    Entering the context starts the process, leaving it kills the process and removes the directory. In
    between, `kill` or `stop` and then `start` give a new process with the same ports and the same directory.
    """

    def __init__(
        self,
        config: Path | str = AGENT,
        env: Mapping[str, str] | None = None,
        *,
        start_timeout_s: float = 30.0,
    ) -> None:
        self._binary = require_collector()
        self._config = config
        self._env = dict(env or {})
        self._scheme = "https" if "OTELCOL_TLS_DIR" in self._env else "http"
        self._start_timeout_s = start_timeout_s
        self._ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._cleanup = contextlib.ExitStack()
        self.directory = Path()

    def __enter__(self) -> Collector:
        self.directory = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="otelcol-")))
        try:
            self._ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        self._cleanup.close()

    @property
    def http_endpoint(self) -> str:
        """The base URL for OTLP over HTTP, as OTEL_EXPORTER_OTLP_ENDPOINT wants it: without `/v1/logs`."""
        return f"{self._scheme}://{HOST}:{self._ports['HTTP']}"

    @property
    def audit_endpoint(self) -> str:
        """The whole URL of the audit receiver, as OTEL_EXPORTER_OTLP_AUDIT_ENDPOINT wants it."""
        return f"{self._scheme}://{HOST}:{self._ports['AUDIT']}/v1/audit"

    @property
    def grpc_endpoint(self) -> str:
        """The URL for OTLP over gRPC, as OTEL_EXPORTER_OTLP_ENDPOINT wants it."""
        return f"{self._scheme}://{self.grpc_target}"

    @property
    def grpc_target(self) -> str:
        """Host and port for OTLP over gRPC, as `grpc.insecure_channel` wants them."""
        return f"{HOST}:{self._ports['GRPC']}"

    @property
    def data_directory(self) -> Path:
        """Where the Collector keeps its files and queues."""
        return self.directory / "data"

    @property
    def pid(self) -> int | None:
        """The process id while the Collector runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self, timeout_s: float | None = None, *, unless: Callable[[], bool] = lambda: False) -> None:
        """Start the Collector and wait until its health check answers that it is available; else kill it and raise.

        It is killed also when ``unless`` becomes true before that.
        """
        timeout_s = self._start_timeout_s if timeout_s is None else timeout_s
        if self.pid is not None:
            raise CollectorError("the Collector is running already")
        config = self._config
        if isinstance(config, str):
            text, config = config, self.directory / "config.yaml"
            config.write_text(text, encoding="utf-8")
        with open(self.directory / "collector.log", "ab") as log:
            self._process = subprocess.Popen(
                [self._binary, f"--config={config}"],
                env=_environment({**self._variables(), **self._env}),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + timeout_s
        while not self._healthy():
            if self._process.poll() is not None:
                code = self._process.returncode
                raise CollectorError(f"the Collector ended with code {code}\n{self.log_tail()}")
            if time.monotonic() > deadline or unless():
                self.kill()
                raise CollectorError(f"the Collector was not available in time\n{self.log_tail()}")
            time.sleep(0.005)

    def kill(self) -> None:
        """End the process at once (SIGKILL), as a crash would; nothing happens if there is none."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def kill_while_starting(self, after_s: float = 30.0, *, said: str = "") -> None:
        """Start the Collector and kill it so soon that it may not have become available.

        It is killed after so many seconds, when it has become available, or when it has logged ``said`` anew.
        """
        before = len(self.log())
        heard = (lambda: said in self.log()[before:]) if said else (lambda: False)
        with contextlib.suppress(CollectorError):
            self.start(after_s, unless=heard)
        self.kill()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Ask the process to end (SIGTERM) and wait until it has."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise CollectorError(f"the Collector did not stop in {timeout_s} s\n{self.log_tail()}") from None

    def log(self) -> str:
        """What the Collector has logged since the context was entered, over all its processes."""
        return (self.directory / "collector.log").read_text(encoding="utf-8", errors="replace")

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of the log."""
        return "\n".join(self.log().splitlines()[-lines:])

    def metric(self, name: str) -> float:
        """One of the Collector's own metrics, summed over its labels; 0 where it has not been counted yet."""
        values = re.findall(rf"^{name}(?:_total)?(?:\{{.*\}})? (\S+)$", self._metrics(), re.MULTILINE)
        return sum(map(float, values))

    def metric_names(self) -> set[str]:
        """The names of the Collector's own metrics, as Prometheus gets them."""
        return set(re.findall(r"^(\w+)[{ ]", self._metrics(), re.MULTILINE))

    def _metrics(self) -> str:
        connection = http.client.HTTPConnection(HOST, self._ports["METRICS"], timeout=5)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def records(self, name: str = "audit", *, directory: Path | None = None) -> list[StoredRecord]:
        """What the file exporter that writes `<name>.jsonl` has stored so far, rotated files first.

        It is looked for in the Collector's own directory, unless the configuration was given another one.

        A fragment, which a kill or a full disk can leave in the middle of a write, is passed over: a request
        whose write was not completed was not acknowledged either.
        """
        stored: list[StoredRecord] = []
        directory = directory or self.data_directory
        rotated = sorted(directory.glob(f"{name}-*.jsonl"))
        for path in [*rotated, directory / f"{name}.jsonl"]:
            if path.exists():
                for request in _requests(path.read_text(encoding="utf-8", errors="surrogateescape")):
                    stored.extend(_records(request))
        return stored

    def _variables(self) -> dict[str, str]:
        variables = {f"OTELCOL_{name}_ENDPOINT": f"{HOST}:{port}" for name, port in self._ports.items()}
        del variables["OTELCOL_METRICS_ENDPOINT"]
        variables["OTELCOL_METRICS_PORT"] = str(self._ports["METRICS"])
        variables["OTELCOL_DATA_DIR"] = str(self.data_directory)
        return variables

    def _healthy(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self._ports["HEALTH"], timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The test's environment without settings for a Collector, and with these."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTELCOL_")}
    return {**inherited, **variables}


def _requests(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in the text of a file exporter, usually one a line.

    The exporter writes an object and its line end separately, so after a crash two objects can stand on a
    line, or a fragment can stand before an object. Quotation marks inside a JSON string are escaped, so
    `start` is never found inside one.
    """
    start = '{"resourceLogs"'
    decoder = json.JSONDecoder()
    position = text.find(start)
    while position >= 0:
        try:
            request, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError:
            end = position + 1
        else:
            yield request
        position = text.find(start, end)


def _records(request: Mapping[str, Any]) -> Iterator[StoredRecord]:
    for resource_logs in request["resourceLogs"]:
        resource = _attributes(resource_logs.get("resource", {}))
        for scope_logs in resource_logs.get("scopeLogs", ()):
            for record in scope_logs.get("logRecords", ()):
                yield {
                    "event_name": record.get("eventName", ""),
                    "attributes": _attributes(record),
                    "body": _value(record.get("body", {})),
                    "resource": resource,
                    "scope": scope_logs.get("scope", {}).get("name", ""),
                    "timestamp": int(record.get("timeUnixNano", 0)),
                    "observed_timestamp": int(record.get("observedTimeUnixNano", 0)),
                    "severity_number": record.get("severityNumber", 0),
                    "severity_text": record.get("severityText", ""),
                    "trace_id": record.get("traceId", ""),
                    "span_id": record.get("spanId", ""),
                }


def _attributes(holder: Mapping[str, Any]) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    for attribute in holder.get("attributes", ()):
        assert attribute["key"] not in attributes, f"the key {attribute['key']!r} stands twice"
        attributes[attribute["key"]] = _value(attribute.get("value", {}))
    return attributes


def _value(tagged: Mapping[str, Any]) -> Any:
    """A value of OTLP's JSON form, `{"intValue": "7"}`, as a Python value; an unset one is None."""
    if not tagged:
        return None
    ((kind, value),) = tagged.items()
    if kind == "intValue":
        return int(value)
    if kind == "doubleValue":
        return float(value)
    if kind == "bytesValue":
        return base64.b64decode(value)
    if kind == "arrayValue":
        return [_value(item) for item in value.get("values", ())]
    if kind == "kvlistValue":
        return {item["key"]: _value(item.get("value", {})) for item in value.get("values", ())}
    return value
