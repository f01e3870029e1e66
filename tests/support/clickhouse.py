"""The real ClickHouse engine for tests: in a process of its own, because one process may open one directory only.

Run as a program it answers requests, one JSON object a line: ``{"sql": …, "parameters": …}``.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

SQL = Path(__file__).resolve().parents[2] / "collector-config" / "sql"


class ClickHouseError(Exception):
    """What the engine said against a statement."""


class ClickHouse:
    """An empty data base with the shipped schema.  Entering the context makes it, leaving it removes it."""

    def __enter__(self) -> ClickHouse:
        from support.journal import needs

        there = importlib.util.find_spec("chdb") and importlib.util.find_spec("clickhouse_connect")
        needs(there, "clickhouse", "there is no ClickHouse engine: pip install --group clickhouse")
        self._directory = tempfile.TemporaryDirectory(prefix="clickhouse-")
        self._process = subprocess.Popen(
            [sys.executable, __file__, self._directory.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            for statement in statements("schema.sql"):
                self.run(statement)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._directory.cleanup()

    def run(self, sql: str, **parameters: Any) -> list[list[Any]]:
        """Run one statement; its rows."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"sql": sql, "parameters": parameters}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise ClickHouseError(f"the engine ended with code {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise ClickHouseError(answer["error"])
        rows: list[list[Any]] = answer["rows"]
        return rows

    def load(self, files: Path) -> None:
        """Load what a Collector wrote; ``files`` may have wildcards."""
        (statement,) = statements("load.sql")
        self.run(statement, files=str(files))

    def count(self, table: str) -> int:
        """Rows of a table or view."""
        return int(self.run(f"SELECT count() FROM {table}")[0][0])


def statements(name: str) -> list[str]:
    """The statements of a shipped file."""
    text = (SQL / name).read_text(encoding="utf-8")
    return [part.strip() for part in text.split(";\n") if part.strip()]


def _serve(directory: str) -> None:
    import clickhouse_connect

    client = clickhouse_connect.get_client(dsn=f"chdb:///{directory}/db")
    for line in sys.stdin:
        request: Mapping[str, Any] = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            result = client.query(request["sql"], parameters=request["parameters"])
            answer["rows"] = [list(row) for row in result.result_rows]
        except Exception as error:
            answer["error"] = str(error)
        print(json.dumps(answer, default=str), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
