"""What the linter calls a loss is one: the bad configuration loses with a real Collector, the repaired one does not.

Each test runs the very configuration of the linter's corpus, with addresses and directories of this machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest as Request
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs

from otel_audit.collector.rules import RULES
from otel_audit.testing.receiver import Reply, ScriptedReceiver
from support.collector import Collector, CollectorError, require_collector, validate
from support.corpus import BAD, Case, case_of, read_case, runnable
from support.load import until
from support.otlp import post

pytestmark = pytest.mark.usefixtures("collector_binary")

COUNT = 5
NAMES = [f"record-{number}" for number in range(COUNT)]


@pytest.fixture(scope="module")
def collector_binary() -> Path:
    return require_collector()


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_the_collector_accepts_what_the_linter_finds(path: Path) -> None:
    """A bad configuration passes the Collector's own check, but for the few whose first lines say that it does not."""
    case = read_case(path)
    checked = validate(path)
    assert (checked.returncode == 0) == (case.collector == "accepts"), checked.stderr


# -- what is sent, and what arrives -----------------------------------------------------------------------------------


class Peer(ScriptedReceiver):
    """The next hop, whose answer can be changed."""

    def __init__(self, answer: Reply) -> None:
        self.answer = answer
        super().__init__(default=lambda _: self.answer)

    @property
    def names(self) -> set[str]:
        return {each.severity_text for each in self.records}


AWAY = Reply(503)
TAKES = Reply(200)


def audit_record(name: str, *, with_id: bool = True, size: int = 0) -> LogRecord:
    """An audit record; its severity text is its name."""
    id_attribute = KeyValue(key="audit.record.id", value=AnyValue(string_value=name))
    made = LogRecord(event_name="user.login", attributes=[id_attribute] if with_id else [], severity_text=name)
    if size:
        made.body.string_value = "x" * size
    return made


def send(url: str, *records: LogRecord) -> int:
    """Send records as one request; the status of the answer."""
    return post(url, Request(resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=records)])]))


def acknowledged(collector: Collector, *names: str, size: int = 0) -> set[str]:
    """Send audit records, one a request, and see each acknowledged; their names."""
    for name in names:
        assert send(collector.audit_endpoint, audit_record(name, size=size)) == 200
    return set(names)


def stored(collector: Collector, file: str = "audit") -> set[str]:
    """The names of the records in a file of the file exporter."""
    return {each["severity_text"] for each in collector.records(file)}


def settled(collector: Collector, peer: Peer, wanted: set[str]) -> set[str]:
    """What has arrived at the peer once these have, and the Collector was stopped in order: nothing is pending."""
    collector.stop()
    collector.start()
    until(lambda: wanted <= peer.names, f"{sorted(wanted)} arrive")
    collector.stop()
    return peer.names


# -- the ways of losing: each returns what was acknowledged and is not stored ------------------------------------------
#
# `whole` says that nothing may be missing, and so what to wait for; else the last record alone is waited for.


def killed_while_the_peer_is_away(text: str, *, whole: bool) -> set[str]:
    with Peer(AWAY) as peer, Collector(runnable(text, peer.url)) as collector:
        sent = acknowledged(collector, *NAMES)
        collector.kill()
        peer.answer = TAKES
        collector.start()
        sent |= acknowledged(collector, "last")
        return sent - settled(collector, peer, sent if whole else {"last"})


def a_file_is_damaged(text: str, *, whole: bool) -> set[str]:
    with Peer(AWAY) as peer, Collector(runnable(text, peer.url)) as collector:
        sent = acknowledged(collector, *NAMES)
        collector.kill()
        (queue,) = (path for path in (collector.data_directory / "queue").iterdir() if path.is_file())
        with open(queue, "r+b") as file:
            file.seek(8192)  # behind the pages that say what the file is: with those gone, it does not start at all
            file.write(b"\xff" * (queue.stat().st_size - 8192))
        peer.answer = TAKES
        if whole:
            with pytest.raises(CollectorError):
                collector.start()
            assert queue.exists()
            return set()
        collector.start()
        sent |= acknowledged(collector, "last")
        return sent - settled(collector, peer, {"last"})


def refused(answer: Reply) -> Callable[..., set[str]]:
    """The peer answers so for a while."""

    def scenario(text: str, *, whole: bool) -> set[str]:
        with Peer(answer) as peer, Collector(runnable(text, peer.url)) as collector:
            sent = acknowledged(collector, *NAMES)
            if whole:
                time.sleep(3)
            else:
                until(lambda: collector.log().count("Dropping data") >= COUNT, "they are dropped")
            peer.answer = TAKES
            sent |= acknowledged(collector, "last")
            return sent - settled(collector, peer, sent if whole else {"last"})

    return scenario


def one_is_too_large(text: str, *, whole: bool) -> set[str]:
    with Peer(AWAY) as peer, Collector(runnable(text, peer.url)) as collector:
        sent = acknowledged(collector, "small")
        sent |= acknowledged(collector, "large", size=5_000)
        peer.answer = TAKES
        sent |= acknowledged(collector, "last")
        return sent - settled(collector, peer, sent if whole else {"last"})


def restarted(text: str, *, whole: bool) -> set[str]:
    with Collector(runnable(text)) as collector:
        sent = acknowledged(collector, *NAMES)
        collector.stop()
        collector.start()
        sent |= acknowledged(collector, "last")
        collector.stop()
        return sent - stored(collector)


def killed_after_each_answer(text: str, *, whole: bool) -> set[str]:
    with Collector(runnable(text)) as collector:
        for name in NAMES:
            if collector.pid is None:
                collector.start()
            acknowledged(collector, name)
            collector.kill()
        return set(NAMES) - stored(collector)


def rotated_often(text: str, *, whole: bool) -> set[str]:
    with Collector(runnable(text.replace("max_megabytes: 100", "max_megabytes: 1"))) as collector:
        sent = set()
        for number in range(105):
            sent |= acknowledged(collector, f"record-{number}", size=600_000)
            time.sleep(0.005)  # files rotated in the same millisecond replace one another
        if not whole:
            until(lambda: len(stored(collector)) < len(sent), "files are deleted")
        collector.stop()
        return sent - stored(collector)


def sent_once(text: str, *, whole: bool) -> set[str]:
    with Collector(runnable(text)) as collector:
        sent = acknowledged(collector, *NAMES)
        collector.stop()
        return sent - stored(collector)


def sent_mixed(text: str, *, whole: bool) -> set[str]:
    records = [audit_record("audit"), audit_record("without id", with_id=False), LogRecord(severity_text="app")]
    with Collector(runnable(text)) as collector:
        if send(f"{collector.http_endpoint}/v1/logs", *records) != 200:
            assert whole, "an error is no loss: the sender knows, and keeps the records"
            return set()
        collector.stop()
        assert "app" not in stored(collector) or "no-default" in text
        return {"audit", "without id"} - stored(collector)


SCENARIOS: dict[str, Callable[..., set[str]]] = {
    "application-too-wide": sent_mixed,
    "audit-not-default": sent_mixed,
    "batch-processor": killed_while_the_peer_is_away,
    "error-mode": sent_mixed,
    "file-append": killed_after_each_answer,
    "file-deleted": rotated_often,
    "file-truncated": restarted,
    "filter": sent_once,
    "memory-queue": killed_while_the_peer_is_away,
    "no-default-route": sent_mixed,
    "nowhere": sent_once,
    "queue-batch-max-size": one_is_too_large,
    "retry-disabled": refused(AWAY),
    "retry-gives-up": refused(AWAY),
    "storage-recreate": a_file_is_damaged,
    "wrong-context": sent_mixed,
}

SHOWN_BELOW = {"next-hop-limit", "token-refused"}
SHOWN_WITH_KAFKA = {"kafka-initial-offset", "kafka-marking", "kafka-message-size"}  # test_collector_lint_kafka.py

NOT_SHOWN = {
    "dedup": "the Collector of the tests has no log_dedup",
    "kafka-acks": "needs several brokers, of which one fails",
    "s3-same-name": "happens by chance, at a rate that no test waits for",
    "sampling": "the Collector of the tests has no sampler",
    "storage-fsync": "needs a power cut",
}
"""Rules that say that records get lost, without a test that shows it; their page says so too."""


def configuration(rule: str, *, repaired: bool) -> str:
    """The corpus's configuration, with times that a test can wait for."""
    case: Case = case_of(rule)
    text = case.repaired() if repaired else case.body
    return text.replace("max_elapsed_time: 1h", "max_elapsed_time: 1s")


def test_every_loss_is_shown_or_it_is_said_why_not() -> None:
    """For each rule that says that it loses there is a scenario, or a reason why there is none."""
    assert {*SCENARIOS, *SHOWN_BELOW, *SHOWN_WITH_KAFKA, *NOT_SHOWN} == {
        rule.id for rule in RULES.values() if rule.loses
    }


@pytest.mark.parametrize("rule", SCENARIOS)
def test_the_bad_configuration_loses(rule: str) -> None:
    """The Collector has acknowledged records with it that are not stored."""
    assert SCENARIOS[rule](configuration(rule, repaired=False), whole=False)


@pytest.mark.parametrize("rule", SCENARIOS)
def test_the_repaired_configuration_does_not(rule: str) -> None:
    """The same scenario, with the repair that the corpus names: everything that was acknowledged is stored."""
    assert SCENARIOS[rule](configuration(rule, repaired=True), whole=True) == set()


@pytest.mark.parametrize("status", [401, 403, 413, 500])
def test_a_final_answer_drops_what_is_queued(status: int) -> None:
    """With a token, an answer that the Collector takes for final drops records although it never gives up retrying."""
    assert refused(Reply(status))(configuration("token-refused", repaired=False), whole=False) == set(NAMES)


def test_a_broken_connection_does_not() -> None:
    """A connection that fails, as one does whose certificate is refused, is tried again until it holds."""
    assert refused(Reply(reset="before"))(configuration("token-refused", repaired=False), whole=True) == set()


@pytest.mark.parametrize(("limit", "lost"), [(4_000, {"large"}), (100_000, set())])
def test_a_next_hop_that_takes_less_loses(limit: int, lost: set[str]) -> None:
    """What the first hop lets in and the second refuses for its size is dropped; with the same limit it is not."""
    second = case_of("file-truncated").repaired().replace(
        "logs_url_path: /v1/audit", f"max_request_body_size: {limit}"
    )  # fmt: skip
    with Collector(runnable(second)) as gateway:
        first = configuration("retry-gives-up", repaired=True)
        peer = gateway.audit_endpoint.removesuffix("/v1/audit")
        with Collector(runnable(first, peer)) as agent:
            acknowledged(agent, "large", size=20_000)
            acknowledged(agent, "last")
            until(lambda: {"large", "last"} - lost <= stored(gateway), "the others are stored")
            if lost:
                until(lambda: "Dropping data" in agent.log(), "it is dropped")
            assert {"large", "last"} - stored(gateway) == lost
