"""The captures in programs of their own: ``logging`` configured in the ways that real ones configure it.

Each program ends by itself; what counts is what its journal then holds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

LINE_HEAD = len('{"sha256":"') + 64 + len('","record":')


def run(tmp_path: Path, program: str, *, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an empty directory; ``journal`` is its journal."""
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), **environment},
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


def journaled(journal: Path) -> list[dict[str, Any]]:
    """The application's records in a journal, read without any of our code: event name, body and attributes."""
    found = []
    for segment in sorted(journal.glob("streams/*/*.jsonl")):
        for line in segment.read_bytes().splitlines():
            record = json.loads(line[LINE_HEAD:-1])
            attributes = {key: _plain(value) for key, value in record["attributes"].items()}
            if "otel_audit.control" not in attributes:
                found.append(
                    {"event_name": record["event_name"], "body": _plain(record.get("body")), "attributes": attributes}
                )
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict) and len(value) == 1:
        return next(iter(value.values()))
    return value


def names(journal: Path) -> list[str]:
    return [record["event_name"] for record in journaled(journal)]


def test_dict_config_with_a_journal_of_its_own(tmp_path: Path) -> None:
    """``configure`` is not needed; configuring twice leaves one working handler; the exit closes nothing too early."""
    run(
        tmp_path,
        """
        import logging, logging.config
        CONFIG = {
            "version": 1,
            "handlers": {"audit": {"class": "otel_audit.AuditHandler", "journal": "journal", "destinations": {},
                                   "service_name": "shop", "level": "INFO", "include": ["source"]}},
            "loggers": {"shop.audit": {"handlers": ["audit"], "level": "INFO"}},
        }
        logging.config.dictConfig(CONFIG)
        logging.getLogger("shop.audit").info("order.create", extra={"actor": "u-1", "outcome": "success"})
        logging.config.dictConfig(CONFIG)
        logging.getLogger("shop.audit").info("order.cancel", extra={"actor": "u-1", "outcome": "success"})
        """,
    )
    records = journaled(tmp_path / "journal")
    assert sorted(record["event_name"] for record in records) == ["order.cancel", "order.create"]
    assert all(record["attributes"]["code.file.path"] == "<string>" for record in records)


def test_dict_config_with_the_process_wide_provider(tmp_path: Path) -> None:
    """Before ``configure`` or after it; before, a log call raises rather than lose the record."""
    done = run(
        tmp_path,
        """
        import logging, logging.config, otel_audit
        logging.config.dictConfig({
            "version": 1,
            "handlers": {"audit": {"class": "otel_audit.AuditHandler"}},
            "loggers": {"audit": {"handlers": ["audit"], "level": "INFO"}},
        })
        audit = logging.getLogger("audit")
        try:
            audit.info("a.lost", extra={"actor": "u-1", "outcome": "success"})
        except otel_audit.NotConfiguredError:
            print("raised")
        otel_audit.configure(service_name="shop", journal="journal", destinations={})
        audit.info("a.kept", extra={"actor": "u-1", "outcome": "success"})
        """,
    )
    assert done.stdout == "raised\n"
    assert names(tmp_path / "journal") == ["a.kept"]


def test_a_dict_config_after_configure_is_seen_in_status(tmp_path: Path) -> None:
    """It disables existing loggers: the record does not come, and ``status`` says why."""
    done = run(
        tmp_path,
        """
        import logging, logging.config, otel_audit
        otel_audit.configure(service_name="shop", journal="journal", destinations={}, loggers=["audit"])
        audit = logging.getLogger("audit")
        audit.info("a.before", extra={"actor": "u-1", "outcome": "success"})
        print(otel_audit.status().unreachable_handlers)
        logging.config.dictConfig({"version": 1})
        audit.info("a.after", extra={"actor": "u-1", "outcome": "success"})
        print(otel_audit.status().unreachable_handlers)
        """,
    )
    before, after = done.stdout.splitlines()
    assert before == "[]"
    assert "audit: the logger is disabled" in after
    assert names(tmp_path / "journal") == ["a.before"]


def test_file_config(tmp_path: Path) -> None:
    """Arguments as Python expressions, the level as a word."""
    (tmp_path / "logging.ini").write_text(
        textwrap.dedent(
            """
            [loggers]
            keys=root,audit
            [handlers]
            keys=audit
            [formatters]
            keys=
            [logger_root]
            level=WARNING
            handlers=
            [logger_audit]
            level=INFO
            handlers=audit
            qualname=audit
            [handler_audit]
            class=otel_audit.AuditHandler
            level=INFO
            args=()
            kwargs={"journal": "journal", "destinations": {}, "include": "source, thread", "on_error": "stderr"}
            """
        )
    )
    run(
        tmp_path,
        """
        import logging, logging.config, otel_audit
        logging.config.fileConfig("logging.ini")
        logging.getLogger("audit").info("user.login", extra={"actor": "u-1", "outcome": "success"})
        """,
    )
    (record,) = journaled(tmp_path / "journal")
    assert record["event_name"] == "user.login"
    assert "thread.id" in record["attributes"]


def test_a_misspelt_option_is_an_error_when_logging_is_configured(tmp_path: Path) -> None:
    """With the name that was probably meant."""
    done = run(
        tmp_path,
        """
        import logging.config
        logging.config.dictConfig({
            "version": 1,
            "handlers": {"audit": {"class": "otel_audit.AuditHandler", "jurnal": "journal"}},
        })
        """,
        check=False,
    )
    assert done.returncode != 0
    assert "jurnal" in done.stderr
    assert "journal" in done.stderr.replace("jurnal", "")


@pytest.mark.parametrize("carry", [True, False])
def test_queue_listener(tmp_path: Path, carry: bool) -> None:
    """Everything that was queued is journaled once the listener has stopped; the filter carries the context."""
    run(
        tmp_path,
        f"""
        import logging, logging.handlers, queue, otel_audit
        otel_audit.configure(service_name="shop", journal="journal", destinations={{}})
        line = queue.Queue()
        handler = logging.handlers.QueueHandler(line)
        if {carry}:
            handler.addFilter(otel_audit.AuditContextFilter())
        audit = logging.getLogger("audit")
        audit.setLevel("INFO")
        audit.addHandler(handler)
        listener = logging.handlers.QueueListener(line, otel_audit.AuditHandler())
        listener.start()
        with otel_audit.audit_context(actor="u-7"):
            for number in range(100):
                audit.info("order.create", extra={{"outcome": "success", "number": number}})
        listener.stop()
        """,
    )
    records = journaled(tmp_path / "journal")
    assert [record["attributes"]["number"] for record in records] == [str(number) for number in range(100)]
    assert {record["attributes"]["audit.actor.id"] for record in records} == {"u-7" if carry else "unknown"}


def test_a_queue_is_memory(tmp_path: Path) -> None:
    """What has not come out of it yet is lost with the process; what a handler on the logger was given is not."""
    run(
        tmp_path,
        """
        import logging, logging.handlers, os, queue, otel_audit
        otel_audit.configure(service_name="shop", journal="journal", destinations={}, loggers=["direct"])
        behind = logging.getLogger("behind")
        behind.setLevel("INFO")
        behind.addHandler(logging.handlers.QueueHandler(queue.Queue()))
        for name in ("direct", "behind"):
            logging.getLogger(name).info("order.create", extra={"actor": "u-7", "outcome": "success", "way": name})
        os._exit(0)
        """,
    )
    assert [record["attributes"]["way"] for record in journaled(tmp_path / "journal")] == ["direct"]


def test_a_multiprocessing_queue(tmp_path: Path) -> None:
    """What the context filter puts on a record can be pickled."""
    run(
        tmp_path,
        """
        import logging, logging.handlers, multiprocessing, otel_audit

        def work(line):
            handler = logging.handlers.QueueHandler(line)
            handler.addFilter(otel_audit.AuditContextFilter())
            audit = logging.getLogger("worker")
            audit.setLevel("INFO")
            audit.addHandler(handler)
            with otel_audit.audit_context(actor="u-7"):
                audit.info("user.%s", "login", extra={"outcome": "success"})

        fork = multiprocessing.get_context("fork")
        line = fork.Queue()
        process = fork.Process(target=work, args=(line,))
        process.start()
        process.join()
        otel_audit.configure(service_name="shop", journal="journal", destinations={})
        listener = logging.handlers.QueueListener(line, otel_audit.AuditHandler())
        listener.start()
        listener.stop()
        """,
    )
    (record,) = journaled(tmp_path / "journal")
    assert (record["body"], record["attributes"]["audit.actor.id"]) == ("user.login", "u-7")


def test_captured_warnings(tmp_path: Path) -> None:
    """On the root, beside everything else."""
    run(
        tmp_path,
        """
        import logging, warnings, otel_audit
        otel_audit.configure(service_name="shop", journal="journal", destinations={}, loggers=["root"])
        logging.captureWarnings(True)
        warnings.warn("this is old", DeprecationWarning)
        """,
    )
    (record,) = journaled(tmp_path / "journal")
    assert "DeprecationWarning: this is old" in record["body"]
    assert record["attributes"]["otel_audit.logger"] == "py.warnings"


@pytest.mark.parametrize("own", [True, False])
def test_interpreter_exit(tmp_path: Path, own: bool) -> None:
    """Exit handlers that run after ours, after ``logging.shutdown``, finalisers and daemon threads still journal."""
    made = (
        'logging.getLogger("audit").addHandler(otel_audit.AuditHandler(journal="journal", destinations={}))\n'
        'logging.getLogger("audit").setLevel("INFO")'
        if own
        else 'otel_audit.configure(service_name="shop", journal="journal", destinations={}, loggers=["audit"])'
    )
    done = run(
        tmp_path,
        """
        import atexit
        atexit.register(lambda: say("exit.first"))  # registered first, so it runs last, after logging.shutdown
        import logging, otel_audit

        def say(name):
            logging.getLogger("audit").info(name, extra={"actor": "u-1", "outcome": "success"})

        MADE
        atexit.register(lambda: say("exit.last"))

        class Final:
            def __del__(self):
                say("exit.finaliser")

        final = Final()
        say("exit.body")
        """.replace("MADE", made.replace("\n", "\n        ")),
    )
    assert done.stderr == ""
    assert set(names(tmp_path / "journal")) == {"exit.body", "exit.last", "exit.first", "exit.finaliser"}


def test_an_explicit_logging_shutdown_loses_nothing(tmp_path: Path) -> None:
    """It closes a provider of the handler's own, and the next record opens it again."""
    run(
        tmp_path,
        """
        import logging, otel_audit
        audit = logging.getLogger("audit")
        audit.setLevel("INFO")
        audit.addHandler(otel_audit.AuditHandler(journal="journal", destinations={}))
        audit.info("a.before", extra={"actor": "u-1", "outcome": "success"})
        logging.shutdown()
        audit.info("a.after", extra={"actor": "u-1", "outcome": "success"})
        """,
    )
    assert sorted(names(tmp_path / "journal")) == ["a.after", "a.before"]


def test_a_root_handler_and_an_exporter_that_logs(tmp_path: Path) -> None:
    """Our own httpx requests are not captured, or each would make the next one; the application's are."""
    done = run(
        tmp_path,
        """
        import json, logging, httpx, otel_audit
        from otel_audit.testing import ScriptedReceiver
        logging.getLogger("httpx").setLevel("DEBUG")
        logging.getLogger("httpcore").setLevel("WARNING")
        with ScriptedReceiver() as receiver:
            destination = {"type": "otlp", "endpoint": receiver.endpoint, "delay": 0.01}
            otel_audit.configure(service_name="shop", journal="journal", destinations={"collector": destination},
                                 loggers=["root"], retention=3600)
            for _ in range(3):
                logging.getLogger("audit").info("user.login", extra={"actor": "u-1", "outcome": "success"})
                assert otel_audit.flush(10)
            httpx.get(receiver.endpoint)
            assert otel_audit.flush(10)
            counters = otel_audit.status().counters
            otel_audit.shutdown(5)
        print(json.dumps(counters))
        """,
    )
    records = journaled(tmp_path / "journal")
    assert [record["event_name"] for record in records].count("user.login") == 3
    assert [record["attributes"]["otel_audit.logger"] for record in records].count("httpx") == 1
    assert len(records) == 4
    assert json.loads(done.stdout)["records.own_thread"] >= 3


def test_forked_children(tmp_path: Path) -> None:
    """What the parent's handler keeps for a listener's thread is the parent's; the child's records are its own."""
    run(
        tmp_path,
        """
        import logging, os, otel_audit
        otel_audit.configure(service_name="shop", journal="journal", destinations={}, loggers=["audit"])
        audit = logging.getLogger("audit")
        audit.info("a.parent", extra={"actor": "u-1", "outcome": "success"})
        for _ in range(3):
            if os.fork() == 0:
                audit.info("a.child", extra={"actor": "u-1", "outcome": "success"})
                os._exit(0)
        while True:
            try:
                os.wait()
            except ChildProcessError:
                break
        """,
    )
    assert sorted(names(tmp_path / "journal")) == ["a.child"] * 3 + ["a.parent"]
