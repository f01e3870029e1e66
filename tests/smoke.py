"""Does an installed otel-audit work?  Run with the interpreter that it is installed for, outside the checkout.

    python -I tests/smoke.py               with the extra `cli`
    python -I tests/smoke.py --no-cli      without it: the command must say what is missing

Needs nothing but the package.  Reads the journal without the package's help, as an auditor would.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import logging
import os
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import otel_audit


def expect(holds: object, what: str) -> None:
    """Go on, or end with what was expected."""
    if not holds:
        sys.exit(f"smoke: FAILED: expected that {what}")
    print(f"smoke: ok: {what}")


def untag(value: object) -> object:
    """``{"stringValue": "x"}`` as ``"x"``; anything but a simple value stays as it is."""
    return next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else value


def check_package() -> None:
    """It is the installed one, whole."""
    expect(Path(otel_audit.__file__).is_relative_to(sys.prefix), "the package is imported from its environment")
    installed = importlib.metadata.version("otel-audit")
    expect(otel_audit.__version__ == installed, f"__version__ is the installed version, {installed}")
    expect((files("otel_audit") / "py.typed").is_file(), "py.typed is installed")
    metadata = importlib.metadata.metadata("otel-audit")
    expect(metadata["License-Expression"] == "Apache-2.0", "the licence is named")
    names = {Path(str(path)).name for path in importlib.metadata.files("otel-audit") or ()}
    expect("LICENSE" in names, "the licence's text is installed")
    missing = [name for name in otel_audit.__all__ if getattr(otel_audit, name, None) is None]
    expect(not missing, f"every public name can be loaded {missing or ''}".rstrip())


def check_journal(directory: Path) -> None:
    """What is emitted is in the journal, chained, and can be read by anybody."""
    journal = directory / "journal"
    otel_audit.configure(service_name="smoke", journal=journal, destinations={}, loggers=["audit"])
    audit = otel_audit.get_audit_logger("smoke")
    receipt = audit.emit("user.login", actor="u-42", outcome="success", target="session:s-1")
    logging.getLogger("audit").info("user.logout", extra={"actor": "u-42", "outcome": "success"})
    otel_audit.shutdown(timeout_s=10)

    lines = [line for path in sorted(journal.glob("streams/*/*.jsonl")) for line in path.read_bytes().splitlines(True)]
    records = []
    previous = None
    for number, line in enumerate(lines, 1):
        stored = json.loads(line)
        record = stored["record"]
        attributes = {name: untag(value) for name, value in record["attributes"].items()}
        digest = hashlib.sha256(line[86:-2]).hexdigest()
        expect(stored["sha256"] == digest, f"line {number} of the journal has the hash that it states")
        expect(attributes.get("audit.sequence.previous_hash") == previous, f"line {number} is chained")
        previous = digest
        records.append((record["event_name"], attributes))
    names = [name for name, _ in records]
    expect(names.count("user.login") == 1, "what emit was given is in the journal")
    expect(names.count("user.logout") == 1, "what logging was given is in the journal")
    login = dict(records)["user.login"]
    expect(login["audit.record.id"] == receipt.record_id, "the receipt names the record")
    expect(receipt.integrity_hash in {json.loads(line)["sha256"] for line in lines}, "the receipt has its hash")
    expect(login["audit.actor.id"] == "u-42", "the actor is who it was")


def check_command(*, with_cli: bool) -> None:
    """The command answers, or says what to install."""
    command = Path(sys.executable).with_name("otel-audit")
    env = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "100"}
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=False, timeout=60, env=env)
    said = done.stdout + done.stderr
    if with_cli:
        expect(done.returncode == 0, "otel-audit --help succeeds")
        expect("verify" in said or "status" in said, "otel-audit --help lists the commands")
        check_collector(command, env)
    else:
        expect(done.returncode != 0, "otel-audit without the extra fails")
        expect("Traceback" not in said, "it does not fail with a traceback")
        expect("otel-audit[cli]" in said, "it says what to install: otel-audit[cli]")


def check_collector(command: Path, env: dict[str, str]) -> None:
    """What comes from elsewhere in the repository is in the package: configurations, and the linter's pages."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [command, "collector", *arguments], capture_output=True, text=True, check=False, timeout=60, env=env
        )

    with tempfile.TemporaryDirectory(prefix="otel-audit-smoke-") as directory:
        for kind in ("agent", "gateway", "scale-out"):
            to = Path(directory) / kind
            expect(run("init", kind, "--to", str(to)).returncode == 0, f"otel-audit collector init {kind} succeeds")
            expect(list(to.glob("*.yaml")), f"it writes configurations of {kind}")
    expect("sending_queue" in run("lint", "--explain", "memory-queue").stdout, "the linter's pages are installed")


def main() -> None:
    """Run every check; the first that fails ends it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--no-cli", action="store_true", help="the extra 'cli' is not installed")
    options = parser.parse_args()
    check_package()
    with tempfile.TemporaryDirectory(prefix="otel-audit-smoke-") as directory:
        check_journal(Path(directory))
    check_command(with_cli=not options.no_cli)


if __name__ == "__main__":
    main()
