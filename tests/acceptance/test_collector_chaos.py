"""Application, agent, gateway, file: each is killed at random under load, and nothing that was logged is missing."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from otel_audit import semconv as sc
from support import application
from support.certificates import Authority
from support.collector import FORWARD, GATEWAY_FILES, RELAY, Collector, require_collector
from support.load import until


class Application:
    """The application of the end-to-end tests, started again and again over one journal."""

    def __init__(self, directory: Path, endpoint: str) -> None:
        self._journal, self._ids, self._endpoint = directory / "journal", directory / "ids", endpoint
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, count: int = 1_000_000) -> None:
        """Start it; it logs so many records, one each millisecond or less."""
        command = [sys.executable, application.__file__, self._journal, self._endpoint, str(count), self._ids, "0.001"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def finish(self) -> None:
        """Run it once more to its end: it delivers what the killed ones have left in the journal."""
        self.start(10)
        assert self._process is not None
        try:
            _, errors = self._process.communicate(timeout=120)
        finally:
            self._process.kill()
        assert self._process.returncode == 0, errors.decode()

    @property
    def logged(self) -> set[str]:
        """Ids of the records whose call to log has returned."""
        return set(self._ids.read_text().split()) if self._ids.exists() else set()


@pytest.mark.parametrize("cycles", [3, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("config", [RELAY, FORWARD], ids=["relay", "forward"])
def test_nothing_that_was_logged_is_lost(config: Path, cycles: int, tmp_path: Path) -> None:
    """Killed at random, also while starting, the chain stores every record whose call returned; copies have one id.

    The agent with a queue on disk is not killed again while it starts: there it can lose, as another test shows.
    """
    require_collector()
    authority = Authority(tmp_path / "tls")
    sender = authority.issue("agent")
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)
    with Collector(GATEWAY_FILES, {"OTELCOL_TLS_DIR": str(authority.directory)}) as gateway:
        environment = {
            "OTELCOL_GATEWAY_ENDPOINT": gateway.http_endpoint,
            "OTELCOL_GATEWAY_CA_FILE": str(authority.ca),
            "OTELCOL_GATEWAY_CERT_FILE": str(sender.cert),
            "OTELCOL_GATEWAY_KEY_FILE": str(sender.key),
            "OTELCOL_RETRY_INITIAL_INTERVAL": "100ms",
            "OTELCOL_RETRY_MAX_INTERVAL": "200ms",
        }
        with Collector(config, environment) as agent:
            program = Application(tmp_path, f"{agent.http_endpoint}/v1/logs")
            program.start()
            try:
                for cycle in range(cycles):
                    before = len(program.logged)
                    until(lambda before=before: len(program.logged) > before + 100, "the application logs")
                    time.sleep(chance.uniform(0, 0.5))
                    victim = (agent, gateway, program)[cycle % 3]
                    victim.kill()
                    if victim is gateway or (victim is agent and config == RELAY):
                        victim.kill_while_starting(chance.uniform(0, 0.2))
                    victim.start()
            finally:
                program.kill()
            program.finish()
            logged = program.logged
            until(lambda: logged <= _stored(gateway).keys(), f"everything that was logged arrives (seed {seed})")
        stored = _stored(gateway)
    print(f"{len(logged)} logged, {stored.total() - len(stored)} copies of records stored besides")
    assert len(logged) > 100 * cycles


def _stored(gateway: Collector) -> Counter[str]:
    """Record ids in the gateway's files, with how often each stands there."""
    return Counter(str(record["attributes"][sc.RECORD_ID]) for record in gateway.records())
