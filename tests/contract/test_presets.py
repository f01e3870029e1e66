"""What every preset promises, against a receiver that checks the wire format as its service documents it."""

from __future__ import annotations

import inspect
import json
import math
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from otel_audit.batch import RecordBatch
from otel_audit.delivery.deadletters import read_dead_letters
from otel_audit.delivery.pace import make_exporter
from otel_audit.delivery.shipper import Shipper, drain
from otel_audit.destinations import make_destination
from otel_audit.errors import (
    BlockedExportError,
    ConfigurationError,
    ExportError,
    PendingExportError,
    RejectedExportError,
    RetryableExportError,
)
from otel_audit.exporters import EXPORTERS, PRESETS, exporter_class
from otel_audit.options import REQUIRED
from otel_audit.testing import ReceivedRequest, Reply, ScriptedReceiver
from support.certificates import Authority
from support.delivery import append, make_journal
from support.records import batch_of
from support.services import SECRET, SERVICES, SIGNING, Service, running

ENVIRON = {"TOKEN": SECRET, "SIGNING": SIGNING}


class World(NamedTuple):
    """A preset in one of its modes, and a receiver for it."""

    kind: str
    service: Service

    @property
    def spec(self) -> dict[str, Any]:
        """A destination as people write it."""
        return {
            "type": self.kind, "url": self.service.receiver.url, "auth": {"env": "TOKEN"}, **self.service.OPTIONS,
        }  # fmt: skip

    def exporter(self, **options: Any) -> Any:
        """An exporter to the receiver."""
        own = {key: value for key, value in {**self.spec, **options}.items() if key != "type"}
        return exporter_class(self.kind).from_options(own, ENVIRON, where="destinations.x")

    def ids(self) -> list[str]:
        """The record ids that the service has."""
        return list(self.service.stored)


@pytest.fixture(params=SERVICES)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """One world for each preset and mode; nothing that it was sent is wrong."""
    for service in running(request.param):
        yield World(SERVICES[request.param][0], service)
        assert service.wrong == []


def world_of(name: str) -> Iterator[World]:
    """One world by its name."""
    for service in running(name):
        yield World(SERVICES[name][0], service)
        assert service.wrong == []


def export(exporter: Any, batch: RecordBatch) -> Any:
    """Export as the shipper does: what is pending is exported again, without what was accepted."""
    for _ in range(200):
        try:
            return exporter.export(batch, 10.0)
        except PendingExportError as error:
            batch = batch.part(error.accepted, len(batch.records))
            time.sleep(error.retry_after_s or 0)
    pytest.fail("pending for ever")


# -- all of them ---------------------------------------------------------------------------------------------------


def test_every_preset_has_a_receiver() -> None:
    """Nothing is offered that is not tried."""
    assert {kind for kind, _ in SERVICES.values()} == set(PRESETS)
    for kind in PRESETS:
        modes = list(exporter_class(kind).modes)  # type: ignore[attr-defined]
        assert len(modes) == sum(each == kind for each, _ in SERVICES.values())


def test_it_returns_when_all_is_delivered(world: World) -> None:
    """Batch after batch, in the form that the service documents, with its credentials."""
    made = world.exporter()
    for start in (1, 4):
        export(made, batch_of(*[f"r-{n}" for n in range(start, start + 3)], start=start))
        assert world.ids() == [f"r-{n}" for n in range(1, start + 3)]
    made.close()


def test_odd_records_go_too(world: World) -> None:
    """A body that is a map, a list, nothing; attributes of every type; no trace; a time before the first of it."""
    made = world.exporter()
    bodies: list[Any] = [{"a": {"b": [1, None]}}, [1, "x"], None, 7, 1.5, True, b"\x00\xff", ""]
    for start, body in enumerate(bodies, 1):
        export(made, batch_of(f"r-{start}", start=start, body=body, timestamp_ns=1, odd=[{"ü": b"x"}, -1, "\u2028"]))
    assert len(world.ids()) == len(bodies)
    made.close()


def test_a_long_batch_is_parted_as_the_service_wants(world: World) -> None:
    """Every record once, in order, and no request with more than it takes."""
    made = world.exporter()
    ids = [f"r-{n}" for n in range(120)]
    export(made, batch_of(*ids))
    assert world.ids() == ids
    assert world.service.requests_taken >= len(ids) / world.service.RECORDS_MAX
    made.close()


def test_from_the_journal_a_refused_record_is_a_dead_letter(world: World, tmp_path: Path) -> None:
    """The whole way: the refused one stands alone with the reason, all others arrive, none is counted twice."""
    journal = make_journal(tmp_path / "journal", required=["x"])
    ids = append(journal, 12)
    world.service.refuses = {ids[4], ids[9]}
    shipper = Shipper(journal, make_destination("x", world.spec, ENVIRON))
    assert drain(shipper, timeout_s=60)
    letters = list(read_dead_letters(journal.layout, "x"))
    assert [json.loads(bytes(each.record))["attributes"]["audit.record.id"]["stringValue"] for each in letters] == [
        ids[4], ids[9],
    ]  # fmt: skip
    assert all(letter.reason and "private" not in letter.reason for letter in letters)
    assert set(world.ids()) >= set(ids) - world.service.refuses
    assert not world.service.refuses.intersection(world.ids())
    assert (shipper.delivered, shipper.dead_lettered) == (11, 2)
    shipper.close()
    journal.close()


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(reset="before"), RetryableExportError),
        (Reply(408), RetryableExportError),
        (Reply(429, {"Retry-After": "3"}), RetryableExportError),
        (Reply(502), RetryableExportError),
        (Reply(503, {"Content-Type": "text/html"}, b"<title>down</title>"), RetryableExportError),
        (Reply(504), RetryableExportError),
        (Reply(301, {"Location": "https://elsewhere/"}), BlockedExportError),
        (Reply(401), BlockedExportError),
        (Reply(403), BlockedExportError),
        (Reply(404), BlockedExportError),
        (Reply(415), BlockedExportError),
        (Reply(500), BlockedExportError),
        (Reply(413), RejectedExportError),
        (Reply(raw=b"SSH-2.0-OpenSSH\r\n\r\n"), BlockedExportError),
    ],
    ids=lambda value: value.reset or (value.raw and "raw") or str(value.status) if isinstance(value, Reply) else "is",
)
def test_answers_that_are_no_success(world: World, reply: Reply, kind: type[ExportError]) -> None:
    """By the table; the error has what the service said; and the same batch goes through when it is over."""
    made = world.exporter()
    headers = {"Content-Type": "", "X-Request-Id": "their-request-7", **reply.headers}
    world.service.receiver.script(Reply(reply.status, headers, reply.body, reset=reply.reset, raw=reply.raw))
    with pytest.raises(ExportError) as caught:
        made.export(batch_of("r-1"), 10.0)
    assert type(caught.value) is kind
    assert caught.value.accepted == 0
    if not reply.reset and reply.raw is None:
        assert caught.value.status == reply.status
        assert caught.value.request_id == "their-request-7"
        assert caught.value.retry_after_s == (3 if reply.status == 429 else None)
    if kind is BlockedExportError:
        assert caught.value.repair
    assert world.ids() == []
    export(made, batch_of("r-1"))
    assert world.ids() == ["r-1"]
    made.close()


def test_an_answer_that_is_lost_makes_a_second_try(world: World) -> None:
    """The service stored it and the connection broke: it is sent again, under the same id."""
    made = world.exporter()

    def store_and_break(request: ReceivedRequest) -> Reply:
        world.service.answer(request)
        return Reply(reset="headers")

    world.service.receiver.script(store_and_break)
    with pytest.raises(RetryableExportError):
        made.export(batch_of("r-1"), 10.0)
    export(made, batch_of("r-1"))
    assert world.ids() == ["r-1"]
    made.close()


def test_it_needs_its_credentials() -> None:
    """Where a service cannot do without, that is said at once, with the variable that would be read."""
    for kind in PRESETS:
        preset: Any = exporter_class(kind)
        needed = {option.name: "x" for option in preset.OPTIONS if option.default is REQUIRED and option.name != "url"}
        if kind == "webhook":
            with pytest.raises(ConfigurationError, match="WEBHOOK_SECRET"):
                preset.from_options({"url": "https://h"}, {})
            continue
        if preset.auth_required:
            with pytest.raises(ConfigurationError, match=f"set {preset.env}, or give auth"):
                preset.from_options({"url": "https://h", **needed}, {})
        environ = {preset.env: SECRET} if preset.env else {}
        made = preset.from_options({"url": "https://h", **needed}, environ)
        assert SECRET not in repr(made)
        assert kind in repr(made)


def test_options_are_described() -> None:
    """Each with what it is for; no option of direct HTTP that the preset decides itself."""
    for kind in PRESETS:
        options = exporter_class(kind).OPTIONS
        names = [option.name for option in options]
        assert len(names) == len(set(names))
        assert all(option.doc for option in options)
        assert not {"template", "body", "list_name", "method", "success"}.intersection(names)
        assert len(repr(exporter_class(kind))) < 60
    assert inspect.isclass(exporter_class("http"))


# -- how they are written --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("splunk-hec:https://h:8088", "<HttpExporter splunk-hec https://h:8088/services/collector/event>"),
        ("datadog:https://http-intake.logs.datadoghq.eu", "<HttpExporter datadog https://http-intake.logs.datadoghq.eu/api/v2/logs>"),
        ("loki:http://localhost:3100/", "<HttpExporter loki http://localhost:3100/loki/api/v1/push>"),
        ("cloudevents:https://h/in?x=1", "<HttpExporter cloudevents https://h/in>"),
        ("events:https://h/v1/mine", "<HttpExporter events https://h/v1/mine>"),
    ],
)  # fmt: skip
def test_the_short_form(text: str, shown: str) -> None:
    """``PRESET:URL``: the service's own path where the URL has none, credentials from its own variable."""
    made = make_destination("d", text, {"SPLUNK_HEC_TOKEN": "token", "DD_API_KEY": "token"})
    assert repr(made.make_exporter()) == shown


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("splunk:https://h", "no preset 'splunk'; did you mean 'splunk-hec'"),
        ("elastic:https://h", "no preset 'elastic'; did you mean 'elasticsearch'"),
        ({"type": "data-dog", "url": "https://h"}, "did you mean 'datadog'"),
        ({"type": "loki", "url": "https://h", "label": {}}, "did you mean 'labels'"),
        ({"type": "opensearch", "url": "https://h"}, "index: has to be given"),
        ({"type": "events", "url": "https://h", "mode": "bulk"}, "one of batch, single"),
        ({"type": "loki", "url": "https://h", "auth": "s3cret"}, "expected a mapping"),
        ({"type": "loki", "url": "https://h", "auth": {"type": "header", "env": "T"}}, "auth.name"),
        ({"type": "splunk-hec", "url": "https://h/x", "auth": {"env": "T"}}, "services/collector"),
        ({"type": "webhook", "url": "https://h", "secret": {"env": "T"}}, "24 to 64 bytes"),
        ({"type": "audit-log-framework", "url": "https://h", "auth": {"env": "T"}}, "tenant: has to be given"),
        ({"type": "datadog", "url": "https://h", "auth": {"env": "T"}, "request_records": 0}, "at least 1"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(spec: Any, says: str) -> None:
    """With the nearest right word, at once."""
    with pytest.raises(ConfigurationError, match=says) as caught:
        make_destination("d", spec, {"T": "token"})
    assert "s3cret" not in str(caught.value)


def test_nothing_heavy_is_loaded_before_the_first_export() -> None:
    """Presets are read when a configuration names them, and cost no HTTP library."""
    script = """
import sys
from otel_audit.exporters import PRESETS, exporter_class
options = {"opensearch": {"index": "a"}, "elasticsearch": {"index": "a"}, "webhook": {"secret": {"env": "S"}},
           "audit-log-framework": {"tenant": "a"}, "audit-log-framework-sdk": {"tenant": "a"}}
for kind in PRESETS:
    preset = exporter_class(kind)
    auth = {} if kind == "webhook" else {"auth": {"env": "T"}}
    preset.from_options({"url": "https://h", **auth, **options.get(kind, {})}, {"T": "token", "S": SIGNING}).close()
heavy = ("httpx", "httpcore", "google.protobuf", "opentelemetry", "grpc", "requests")
found = [name for name in sys.modules if name.startswith(heavy)]
assert not found, found
"""
    subprocess.run(
        [sys.executable, "-c", script.replace("SIGNING", repr(SIGNING), 1)],
        check=True,
        timeout=60,
        env=dict(os.environ),
    )


# -- one by one ------------------------------------------------------------------------------------------------------


def test_ids_that_the_service_gives() -> None:
    """Kept only where that is chosen, one for each record."""
    for name in ("logvault", "audit-log-framework", "audit-log-framework-sdk, single", "events"):
        for world in world_of(name):
            assert export(world.exporter(), batch_of("r-1")).response_ids == {}
            made = world.exporter(keep_ids=True)
            prefix = "" if name == "events" else "their-"
            found = export(made, batch_of("r-2", "r-3")).response_ids
            assert found == {"r-2": f"{prefix}r-2", "r-3": f"{prefix}r-3"}


def test_a_login_of_the_audit_log_framework() -> None:
    """Name and password with the tenant, then the token alone; renewed once when it is not accepted any more."""
    for world in world_of("audit-log-framework"):
        tokens: list[str] = []

        def answer(request: ReceivedRequest, world: World = world, tokens: list[str] = tokens) -> Reply:
            body = {"access_token": f"jwt-{len(tokens) + 1}", "refresh_token": "again", "expires_in": 1800}
            if request.path == "/api/v1/auth/login":
                assert request.json == {"username": "u", "password": SECRET, "tenant_id": "acme"}
            elif request.path == "/api/v1/auth/refresh":
                assert request.json == {"refresh_token": "again"}
            elif request.headers["authorization"] != f"Bearer {tokens[-1]}" or request.headers.get("x-tenant-id"):
                return Reply(401)
            else:
                return Reply(201, {"Content-Type": "application/json"}, b"[]", accept=True)
            tokens.append(body["access_token"])  # type: ignore[arg-type]
            return Reply(200, {"Content-Type": "application/json"}, json.dumps(body).encode())

        world.service.receiver._default = answer
        made = world.exporter(auth={"type": "login", "env": "TOKEN", "username": "u"})
        made.export(batch_of("r-1"), 10.0)
        tokens.append("revoked")
        made.export(batch_of("r-2"), 10.0)
        assert [request.path.rpartition("/")[2] for request in world.service.receiver.requests] == [
            "login", "batch", "batch", "refresh", "batch",
        ]  # fmt: skip
        world.service.receiver.script(401, answer, 401)
        with pytest.raises(BlockedExportError, match="401"):
            made.export(batch_of("r-3"), 10.0)
        made.close()


def test_client_certificates(tmp_path: Path) -> None:
    """The service and where tokens are fetched ask for one: with ours both are reached, without it neither is."""
    authority = Authority(tmp_path)
    ours = authority.issue("billing")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.ca)
    tls.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    tls.verify_mode = ssl.CERT_REQUIRED
    json_type = {"Content-Type": "application/json"}
    token = Reply(200, json_type, b'{"access_token":"t0ken"}')
    with (
        ScriptedReceiver(default=Reply(201, json_type, b"{}"), tls=tls) as api,
        ScriptedReceiver(default=token, tls=tls) as login,
    ):
        auth = {"type": "oauth2", "client_id": "c", "env": "TOKEN", "token_url": login.url}
        options = {"url": api.url, "certificate": str(authority.ca), "auth": auth}
        files = {"client_certificate": str(ours.cert), "client_key": str(ours.key)}
        made: Any = exporter_class("logvault").from_options({**options, **files}, ENVIRON)
        made.export(batch_of("r-1"), 10.0)
        assert [request.headers["authorization"] for request in api.requests] == ["Bearer t0ken"]
        made.close()
        made = exporter_class("logvault").from_options(options, ENVIRON)
        with pytest.raises(ExportError) as caught:
            made.export(batch_of("r-2"), 10.0)
        assert not isinstance(caught.value, RejectedExportError)
        assert len(login.requests) == 1
        made.close()


def test_a_limit_on_requests_counts_those_that_are_made(world: World) -> None:
    """The exporter says how many records one of its requests holds."""
    paced: Any = make_exporter(make_destination("x", {**world.spec, "requests_per_s": 2}, ENVIRON))
    assert paced._per_request == (world.service.RECORDS_MAX if world.service.RECORDS_MAX < 10_000 else math.inf)
    paced.close()


def test_splunk_is_not_believed_before_an_indexer_has_it() -> None:
    """Received is pending; only when it is acknowledged is it delivered, and it is not sent twice for that."""
    for world in world_of("splunk-hec"):
        service: Any = world.service
        service.polls = 3
        made = world.exporter()
        for _ in range(4):
            with pytest.raises(PendingExportError) as caught:
                made.export(batch_of("r-1", "r-2"), 10.0)
            assert (caught.value.accepted, world.ids()) == (0, [])
        with pytest.raises(PendingExportError) as caught:
            made.export(batch_of("r-1", "r-2", "r-3"), 10.0)
        assert (caught.value.accepted, world.ids()) == (2, ["r-1", "r-2"])
        export(made, batch_of("r-3", start=3))
        assert world.ids() == ["r-1", "r-2", "r-3"]
        assert service.requests_taken == 2
        made.close()


def test_splunk_is_asked_for_a_part_of_what_it_has_and_sent_nothing_twice() -> None:
    """Where a limit on our side lets fewer records through than the time before, they are known all the same."""
    for world in world_of("splunk-hec"):
        service: Any = world.service
        made = world.exporter()
        with pytest.raises(PendingExportError):
            made.export(batch_of("r-1", "r-2", "r-3"), 10.0)
        export(made, batch_of("r-1"))
        export(made, batch_of("r-2", "r-3", start=2))
        assert world.ids() == ["r-1", "r-2", "r-3"]
        assert service.requests_taken == 1
        made.close()


def test_splunk_sends_again_what_is_not_acknowledged_in_time() -> None:
    """An indexer that never has it: a second try, under the same record id."""
    for world in world_of("splunk-hec"):
        service: Any = world.service
        service.polls = None
        made = world.exporter(acknowledge_timeout=1)
        with pytest.raises(PendingExportError):
            made.export(batch_of("r-1"), 10.0)
        time.sleep(1.1)
        service.polls = 0
        export(made, batch_of("r-1"))
        assert world.ids() == ["r-1"]
        assert service.requests_taken == 2
        made.close()


def test_splunk_is_not_believed_for_another_stream_after_a_restart() -> None:
    """A restarted collector counts from the start: what it acknowledges of one stream says nothing of another."""
    for world in world_of("splunk-hec"):
        service: Any = world.service
        made = world.exporter()
        with pytest.raises(PendingExportError):
            made.export(batch_of("r-1"), 10.0)
        service.restart()
        with pytest.raises(PendingExportError):
            made.export(replace(batch_of("r-2"), stream_id="another"), 10.0)
        service.polls = 0
        with pytest.raises(PendingExportError):
            made.export(batch_of("r-1"), 10.0)
        assert world.ids() == []
        export(made, replace(batch_of("r-2"), stream_id="another"))
        assert world.ids() == ["r-2"]
        made.close()


def test_splunk_is_restarted_within_a_batch() -> None:
    """An ackId that comes twice is of another request: everything is sent again."""
    for world in world_of("splunk-hec"):
        service: Any = world.service
        service.polls = 0
        made = world.exporter(request_records=1)
        service.restarts_at = "r-2"
        with pytest.raises(RetryableExportError, match="ackId twice") as caught:
            made.export(batch_of("r-1", "r-2"), 10.0)
        assert caught.value.accepted == 0
        service.restarts_at = ""
        export(made, batch_of("r-1", "r-2"))
        assert world.ids() == ["r-1", "r-2"]
        made.close()


@pytest.mark.parametrize(
    ("code", "kind", "repair"),
    [
        (5, BlockedExportError, None), (6, RejectedExportError, None), (7, BlockedExportError, "index"),
        (10, BlockedExportError, "Channel"), (11, BlockedExportError, "Channel"), (12, RejectedExportError, None),
        (13, RejectedExportError, None), (14, BlockedExportError, "acknowledge"), (15, RejectedExportError, None),
        (16, BlockedExportError, None),
    ],
)  # fmt: skip
def test_codes_of_splunk(code: int, kind: type[ExportError], repair: str | None) -> None:
    """400 is about an event only where its code says so; the event that it names is refused by itself."""
    for world in world_of("splunk-hec"):
        made = world.exporter()
        body = json.dumps({"text": "why", "code": code, "invalid-event-number": 1}).encode()
        world.service.receiver.script(Reply(400, {"Content-Type": "application/json"}, body))
        with pytest.raises(kind, match=f"code {code}: why") as caught:
            made.export(batch_of("r-1", "r-2", "r-3"), 10.0)
        assert list(caught.value.refused) == ([2] if kind is RejectedExportError else [])
        assert (repair or "") in (caught.value.repair or "")
        made.close()


def test_splunk_without_acknowledgement() -> None:
    """A token that has none is a mistake, unless none is wanted."""
    for world in world_of("splunk-hec"):
        world.service.enabled = False  # type: ignore[attr-defined]
        made = world.exporter()
        with pytest.raises(BlockedExportError) as caught:
            made.export(batch_of("r-1"), 10.0)
        assert "set acknowledge to false" in str(caught.value.repair)
        made = world.exporter(acknowledge=False)
        made.export(batch_of("r-2"), 10.0)
        assert world.ids() == ["r-1", "r-2"]


def test_bulk_answers_for_each_record() -> None:
    """Taken, refused and busy in one answer: the error has all three, and the worst of them is what follows."""
    for world in world_of("opensearch"):
        service: Any = world.service
        service.refuses, service.busy = {"r-2"}, {"r-3"}
        made = world.exporter()
        with pytest.raises(RetryableExportError, match="did not take 2 of 4") as caught:
            made.export(batch_of("r-1", "r-2", "r-3", "r-4"), 10.0)
        assert caught.value.taken == {1, 4}
        assert list(caught.value.refused) == [2]
        assert "private" not in f"{caught.value} {caught.value.refused[2]} {caught.value.details}"
        service.busy = set()
        made.export(batch_of("r-3", start=3), 10.0)
        assert set(world.ids()) == {"r-1", "r-3", "r-4"}


def test_a_taken_id_is_not_believed_while_it_cannot_be_looked_up() -> None:
    """Nobody knows yet whose record has it: the same is tried again, and then another's is refused."""
    for world in world_of("opensearch"):
        service: Any = world.service
        made = world.exporter()
        made.export(batch_of("r-1", "r-2"), 10.0)
        service.stored["r-2"]["sha256"] = "of another record"
        service.receiver.script(service._checked, Reply(503))
        with pytest.raises(RetryableExportError, match="503"):
            made.export(batch_of("r-1", "r-2"), 10.0)
        with pytest.raises(RejectedExportError) as caught:
            made.export(batch_of("r-1", "r-2"), 10.0)
        assert list(caught.value.refused) == [2]
        made.close()


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b"<html>", b'{"items":[]}', b'{"items":[{"index":{"_id":"r-1","status":201}}]}',
        b'{"items":[{"create":{"_id":"other","status":201}}]}', b'{"items":[{"create":{"_id":"r-1"}}]}',
    ],
)  # fmt: skip
def test_a_bulk_answer_that_is_not_one(body: bytes) -> None:
    """Success without an answer for each record is none: blocked, nothing lost."""
    for world in world_of("elasticsearch"):
        made = world.exporter()
        world.service.receiver.script(Reply(200, {"Content-Type": "application/json"}, body))
        with pytest.raises(BlockedExportError, match="bulk answer"):
            made.export(batch_of("r-1"), 10.0)
        made.close()


def test_bulk_does_not_believe_in_an_id_that_it_cannot_look_up() -> None:
    """Whose id it is may be known in a moment, so it is asked again; only where nobody may ask, it is believed."""
    for world in world_of("opensearch"):
        made = world.exporter()
        made.export(batch_of("r-1"), 10.0)
        taken = Reply(
            200,
            {"Content-Type": "application/json"},
            b'{"errors":true,"items":[{"create":{"_id":"r-1","status":409,"error":{"type":"version_conflict"}}}]}',
        )
        for failure, kind in ((503, RetryableExportError), (429, RetryableExportError), (500, BlockedExportError)):
            world.service.receiver.script(taken, failure)
            with pytest.raises(kind, match=str(failure)):
                made.export(batch_of("r-1"), 10.0)
        world.service.receiver.script(taken, Reply(200, {"Content-Type": "application/json"}, b'{"docs":'))
        with pytest.raises(BlockedExportError, match="looked up"):
            made.export(batch_of("r-1"), 10.0)
        world.service.receiver.script(taken, 403)
        made.export(batch_of("r-1"), 10.0)
        made.close()


def test_bulk_does_not_believe_in_a_success_with_an_error() -> None:
    """A created document with an error beside it is none."""
    for world in world_of("opensearch"):
        made = world.exporter()
        body = b'{"errors":false,"items":[{"create":{"_id":"r-1","status":201,"error":{"type":"full","reason":"no"}}}]}'
        world.service.receiver.script(Reply(200, {"Content-Type": "application/json"}, body))
        with pytest.raises(BlockedExportError, match="full: no"):
            made.export(batch_of("r-1"), 10.0)
        made.close()


def test_datadog_gets_old_records_without_a_time_that_it_would_drop() -> None:
    """A record that waited for days arrives with the time of its arrival; its own stands in it."""
    for world in world_of("datadog"):
        made = world.exporter()
        now_ns = time.time_ns()
        made.export(batch_of("new", timestamp_ns=now_ns), 10.0)
        made.export(batch_of("old", start=2, timestamp_ns=now_ns - 20 * 3600 * 10**9), 10.0)
        assert world.service.stored["new"]["timestamp"] == now_ns // 1_000_000
        assert "timestamp" not in world.service.stored["old"]
        assert world.service.stored["old"]["event"]["timestamp"]
        made.close()


def test_a_webhook_is_signed_by_every_secret() -> None:
    """While one takes the other's place, both signatures are there; the id is the same at every attempt."""
    other = "whsec_" + "QUJD" * 12
    for world in world_of("webhook"):
        made = world.exporter(secret={"call": lambda: f"{other} {SIGNING}"})
        world.service.receiver.script(503)
        with pytest.raises(RetryableExportError):
            made.export(batch_of("r-1"), 10.0)
        made.export(batch_of("r-1"), 10.0)
        first, second = world.service.receiver.requests
        assert first.headers["webhook-id"] == second.headers["webhook-id"] == "r-1"
        assert len(second.headers["webhook-signature"].split(" ")) == 2
        made.close()


def test_cloudevents_say_who_and_what() -> None:
    """The source is a service's, or what was chosen; names may get a prefix."""
    for world in world_of("cloudevents"):
        world.exporter().export(batch_of("r-1"), 10.0)
        world.exporter(source="urn:x", type_prefix="com.example.").export(batch_of("r-2"), 10.0)
        first, second = world.service.stored["r-1"], world.service.stored["r-2"]
        assert (first["source"], first["type"], first["subject"]) == ("/billing", "user.login", "s-1")
        assert (second["source"], second["type"]) == ("urn:x", "com.example.user.login")
        assert first["traceparent"] == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_an_unknown_type_names_presets_too() -> None:
    """The nearest of all that there are."""
    with pytest.raises(ConfigurationError, match="did you mean 'logvault'"):
        exporter_class("logvalt")
    assert not set(PRESETS).intersection(EXPORTERS)
