"""What this library itself has to say goes to the logger ``otel_audit``, and never into the journal.

Else each request would make a record, and each record a request.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from otel_audit import semconv as sc
from support.provider import stored

PROGRAM = """
import asyncio, json, logging, sys, threading, time
from pathlib import Path
import otel_audit
from otel_audit.delivery.backoff import Backoff
from otel_audit.settings import build_provider
from otel_audit.testing import ScriptedReceiver
from otel_audit.testing.grpc_receiver import ScriptedGrpcReceiver

folder = Path(sys.argv[1])
said = []

class Said(logging.Handler):
    def emit(self, record):
        said.append([record.name, record.getMessage(), threading.current_thread() is threading.main_thread()])

class Talking:
    '''An exporter of a user, which logs.'''
    single_writer = False
    def export(self, batch, timeout_s):
        logging.getLogger("app.exporter").warning("sending %d records", len(batch.records))
        logging.getLogger("otel_audit.custom").warning("ours by name")
    def close(self):
        logging.getLogger("app.exporter").warning("closed")

class Refusing:
    '''Refuses one kind of record for good.'''
    single_writer = False
    def export(self, batch, timeout_s):
        if any(record.event_name == "app.bad" for record in batch.records):
            raise otel_audit.RejectedExportError("no", status=422)
    def close(self): ...

root = logging.getLogger()
root.setLevel(logging.DEBUG)
root.addHandler(Said())
with ScriptedReceiver() as good, ScriptedReceiver(default=401) as locked, ScriptedGrpcReceiver() as grpc:
    otel_audit.configure(
        service_name="x", journal=folder / "journal", retention=3600, loggers=["root"], level="DEBUG",
        allow_volatile=True, exit_timeout=0.1,
        destinations={
            "otlp": {"type": "otlp", "endpoint": good.endpoint, "delay": 0.01},
            "grpc": {"type": "otlp", "protocol": "grpc", "endpoint": grpc.endpoint, "delay": 0.01},
            "api": {"type": "http", "url": good.url + "/v1/events", "delay": 0.01},
            "file": {"type": "file", "path": folder / "out.jsonl", "delay": 0.01},
            "talking": {"type": Talking(), "delay": 0.01},
            "refusing": {"type": Refusing(), "delay": 0.01},
            "locked": {"type": "http", "url": locked.url, "required": False, "delay": 0.01},
            "dead": {"type": "http", "url": "http://127.0.0.1:9/", "required": False, "delay": 0.01},
        },
    )
    log = logging.getLogger("app")
    facts = {"actor": "u-1", "outcome": "success"}
    for number in range(5):
        log.info("app.event", extra=facts)
        log.info("app.bad", extra=facts)
        otel_audit.flush(20)
    audit = otel_audit.get_audit_logger()
    audit.emit("app.emitted", actor="u-1", outcome="success", durability="disk")
    async def coroutine():
        await audit.aemit("app.emitted", actor="u-1", outcome="success", durability="disk")
        await otel_audit.aflush(20)
    asyncio.run(coroutine())
    thread = threading.Thread(target=lambda: log.info("app.event", extra=facts))
    thread.start(); thread.join()
    deadline = time.monotonic() + 60
    while not {"locked", "dead"} <= {m.split()[1] for n, m, _ in said if m.startswith("destination ") and " is " in m}:
        assert time.monotonic() < deadline, said
        time.sleep(0.05)
    assert otel_audit.check_health().status == "degraded"
    assert otel_audit.flush(20)
    counters = otel_audit.status().counters
    otel_audit.shutdown(5)
print(json.dumps({"said": said, "counters": counters}))
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The program's folder, and what it says in the end."""
    folder = tmp_path_factory.mktemp("own-messages")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(folder)],
        capture_output=True, text=True, check=False, timeout=180, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return folder, json.loads(done.stdout)


def test_the_journal_has_the_application_s_records_only(ran: tuple[Path, dict[str, Any]]) -> None:
    """With a handler on the root that takes everything, every exporter at work, and every thread of ours."""
    folder, _ = ran
    records = stored(folder / "journal")
    by_name: dict[str, int] = {}
    for record in records:
        logger = record.attributes.get(sc.LOGGER_NAME)
        assert logger in ("app", None, "asyncio"), f"{logger}: {record.event_name}"
        if logger != "asyncio":  # what asyncio says on the application's own thread is the application's
            by_name[record.event_name] = by_name.get(record.event_name, 0) + 1
    assert by_name == {"app.event": 6, "app.bad": 5, "app.emitted": 2}


def test_what_is_said_is_heard(ran: tuple[Path, dict[str, Any]]) -> None:
    """Kept out of the journal, not out of the application's logs."""
    _, told = ran
    own = [message for name, message, _ in told["said"] if name.split(".")[0] == "otel_audit"]
    for words in ("destination locked is blocked", "destination refusing refused record", "destination dead is"):
        assert any(words in message for message in own), words
    others = {name for name, _, on_main in told["said"] if not on_main and name.split(".")[0] != "otel_audit"}
    assert "app.exporter" in others, "what a user's exporter logs is heard, and not captured"
    assert others & {"httpx", "httpcore.connection", "httpcore.http11"}


def test_what_was_kept_out_is_counted(ran: tuple[Path, dict[str, Any]]) -> None:
    """By why: our logger, or a thread of ours."""
    _, told = ran
    assert told["counters"]["records.own_logger"] > 0
    assert told["counters"]["records.own_thread"] > 0
