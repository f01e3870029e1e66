"""What somebody who is new here gets wrong, in a program of their own: each error says what, where, and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HEAD = """
import logging, logging.config, otel_audit
from otel_audit import *
audit = otel_audit.get_audit_logger()
"""
CONFIGURED = 'otel_audit.configure(journal="journal", destinations={}, loggers=["audit"])\n'


def run(tmp_path: Path, program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program that a newcomer wrote."""
    return subprocess.run(
        [sys.executable, "-c", HEAD + textwrap.dedent(program)],
        cwd=tmp_path,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ('audit.emit("user.login", actor="u", outcome="success")', ["not configured", "otel_audit.configure("]),
        (CONFIGURED + 'audit.emit("user.login", actor="u")', ["outcome: is mandatory", "in the call", "'failure'"]),
        (CONFIGURED + 'audit.emit("user.login", outcome=True)', ["actor: is mandatory", "audit_context(actor=…)"]),
        (CONFIGURED + 'audit.emit("a.b", actor="u", outcome="great")', ["outcome", "'success'", "str of length 5"]),
        ('audit_context(outcome="success")', ["audit_context()", "'outcome' belongs to one event", "in the call"]),
        ("audit_context(ticket=7)", ["'ticket' is no fact", "attributes={…}", "request_id"]),
        (CONFIGURED + 'audit.emit("a.b", actor="u", outcome=True, ticket=7)', ["'ticket'", "attributes={…}"]),
        ('configure(jurnal="x")', ["configure(): there is no option 'jurnal'", "'journal'"]),
        ('AuditHandler(jurnal="x")', ["AuditHandler(): there is no option 'jurnal'", "'journal'"]),
        ('AuditHandler("audit")', ["provider: must be an AuditProvider", "str of length 5"]),
        ('AuditHandler(include=["where"])', ["include", "source", "'where'"]),
        ('AuditHandler(level="INFOO")', ["level", "'INFOO'"]),
        ('configure(destinations={"a": "localhost:4318"})', ["destinations.a", "begins with http://"]),
        ('configure(destinations="otlp")', ["destinations", "NAME=SPEC", "collector=otlp"]),
        (
            CONFIGURED + 'audit.emit("a.b", actor="u", outcome=True, durability="delivered")',
            ["required destination", "'otlp'"],
        ),
        (CONFIGURED + 'shutdown(); audit.emit("a.b", actor="u", outcome=True)', ["shut down", "call shutdown() last"]),
    ],
)  # fmt: skip
def test_an_error_says_what_to_do(tmp_path: Path, program: str, said: list[str]) -> None:
    """The last line that they see is the error, and names the field, the rule and the remedy."""
    done = run(tmp_path, program)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert [each for each in said if each not in last] == [], last
    assert "NoneType" not in last


def test_an_error_in_dict_config_is_the_only_one(tmp_path: Path) -> None:
    """At exit ``logging`` closes what it knows; a handler that was never finished is none of it."""
    done = run(
        tmp_path,
        """
        kept = []
        try:
            logging.config.dictConfig({"version": 1, "root": {"handlers": ["a"]}, "handlers": {
                "a": {"class": "otel_audit.AuditHandler", "journal": "journal", "destination": {}}}})
        except ValueError as error:
            kept.append(error)  # as a debugger or sys.last_value does
            print(error.__cause__)
        """,
    )
    assert done.returncode == 0
    assert "there is no option 'destination'; did you mean 'destinations'?" in done.stdout
    assert done.stderr == ""


def test_a_variable_that_nobody_reads_is_said_once(tmp_path: Path) -> None:
    """Unless it looks like a misspelt one, which is an error; one that a configuration may name is no mistake."""
    done = run(tmp_path, CONFIGURED * 2, OTEL_AUDIT_TOKEN="s3cret")
    assert done.returncode == 0
    assert done.stderr.count("OTEL_AUDIT_TOKEN is no option of otel-audit and is not read") == 1
    assert "s3cret" not in done.stderr
    misspelt = run(tmp_path, CONFIGURED, OTEL_AUDIT_JOURNAl="x")
    assert "did you mean OTEL_AUDIT_JOURNAL?" in misspelt.stderr


def test_an_incomplete_log_call_is_named_with_what_to_give(tmp_path: Path) -> None:
    """Where it is, what was filled, and how to give it."""
    done = run(tmp_path, CONFIGURED + 'logging.getLogger("audit").info("user.login")')
    assert done.returncode == 0
    assert "<string>:" in done.stderr
    assert "give actor=, outcome= in the call" in done.stderr
    assert "audit_context(actor=…)" in done.stderr
