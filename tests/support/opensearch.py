"""A real OpenSearch node for tests: one process on a free loopback port, with a directory of its own."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from support.journal import needs
from support.ports import free_ports

INSTALL = Path(__file__).resolve().parents[1] / "engines" / "opensearch.sh"


class OpenSearch:
    """The node; a context manager.

    Where it cannot be had, the test skips, or fails where ``OTEL_AUDIT_REQUIRE`` names ``opensearch``.
    """

    def __enter__(self) -> OpenSearch:
        tools = shutil.which("java") and shutil.which("javac") and shutil.which("mvn")
        needs(tools, "opensearch", "there is no Java development kit or no Maven to run OpenSearch with")
        installed = subprocess.run([INSTALL], capture_output=True, text=True, check=False, timeout=240)
        needs(installed.returncode == 0, "opensearch", f"OpenSearch cannot be installed: {installed.stderr[-300:]}")
        jars = installed.stdout.splitlines()[-1]
        self._cleanup = contextlib.ExitStack()
        directory = Path(self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="opensearch-")))
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        log = self._cleanup.enter_context(open(directory / "opensearch.log", "wb"))
        self._process = subprocess.Popen(
            ["java", "-Xms256m", "-Xmx512m", "-cp", f"{jars}:{jars}/*", "OpenSearch", str(directory), str(port)],
            stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=directory,
        )  # fmt: skip
        deadline = time.monotonic() + 180
        try:
            while not self._answers():
                text = (directory / "opensearch.log").read_text(errors="replace")[-2000:]
                assert self._process.poll() is None, f"OpenSearch ended\n{text}"
                assert time.monotonic() < deadline, f"OpenSearch did not start\n{text}"
                time.sleep(0.2)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._cleanup.close()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """A request; the answer's JSON.  Raises HTTPError where it is no success."""
        request = urllib.request.Request(
            self.url + path,
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def documents(self, index: str) -> list[dict[str, Any]]:
        """Every document of an index, with ``_id`` and ``_source``."""
        self.ask("POST", f"/{index}/_refresh")
        found = self.ask("POST", f"/{index}/_search", {"size": 10_000, "query": {"match_all": {}}})
        return list(found["hits"]["hits"])

    def _answers(self) -> bool:
        try:
            return bool(self.ask("GET", "/_cluster/health?wait_for_status=yellow&timeout=1s"))
        except (OSError, urllib.error.HTTPError):
            return False
