"""The shipped gateways, run with a real Collector: who is let in, where records go, and when one place is full."""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import pytest
import yaml
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub

from otel_audit import semconv as sc
from otel_audit.testing import Reply, ScriptedReceiver
from support.certificates import Authority
from support.collector import CONFIGURATIONS, FORWARD, GATEWAY, GATEWAY_FILES, Collector, require_collector
from support.load import until
from support.objects import ObjectStore
from support.otlp import APP_IDS, AUDIT_IDS, TEST_ID, audit_records, mixed_request, post, request

BEARER = CONFIGURATIONS / "gateway" / "bearer.yaml"
TENANTS = CONFIGURATIONS / "gateway" / "tenants.yaml"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    require_collector()
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def sender(authority: Authority) -> ssl.SSLContext:
    return authority.context(authority.issue("sender"))


class Places:
    """An S3 and a search backend."""

    def __init__(self) -> None:
        self.archive = ObjectStore()
        self.search_away = False
        self.search = ScriptedReceiver(default=lambda _: Reply(503 if self.search_away else 200))

    def environment(self, authority: Authority) -> dict[str, str]:
        """What a gateway is told of them."""
        return {
            **self.archive.environment(),
            "OTELCOL_TLS_DIR": str(authority.directory),
            "OTELCOL_TENANT_S3_BUCKET": "archive-acme",
            "OTELCOL_SEARCH_ENDPOINT": self.search.url,
            "OTELCOL_RETRY_INITIAL_INTERVAL": "50ms",
            "OTELCOL_RETRY_MAX_INTERVAL": "100ms",
        }

    def archived(self, bucket: str = "archive") -> Counter[str]:
        """Marks of the records in the objects of a bucket, with how often each stands there."""
        return self.archive.marks(bucket)

    def searchable(self) -> Counter[str]:
        """Marks of the records that the search backend took."""
        return Counter(str(record.attributes[TEST_ID]) for record in self.search.records)


@pytest.fixture
def places() -> Iterator[Places]:
    places = Places()
    with places.archive, places.search:
        yield places


# -- who is let in ------------------------------------------------------------------------------------------------


def test_only_certificates_of_our_authority_are_let_in(authority: Authority, tmp_path: Path) -> None:
    """Without a certificate, with a foreign one and with an expired one the handshake fails; nothing is stored."""
    stranger = Authority(tmp_path / "stranger").issue("stranger")
    refused = {"none": None, "stranger": stranger, "expired": authority.issue("expired", expired=True)}
    with Collector(GATEWAY_FILES, {"OTELCOL_TLS_DIR": str(authority.directory)}) as gateway:
        for name, certificate in refused.items():
            with pytest.raises((ssl.SSLError, ConnectionError)):
                post(gateway.audit_endpoint, request(audit_records([name])), context=authority.context(certificate))
        with pytest.raises(ssl.SSLCertVerificationError):  # nor does a sender trust another gateway
            post(gateway.audit_endpoint, request(audit_records(["x"])), context=ssl.create_default_context())
        plain = gateway.audit_endpoint.replace("https", "http")
        assert post(plain, request(audit_records(["plain"]))) == 400
        allowed = authority.context(authority.issue("sender"))
        assert post(gateway.audit_endpoint, request(audit_records(["allowed"])), context=allowed) == 200
        assert [record["attributes"][TEST_ID] for record in gateway.records()] == ["allowed"]


def test_an_agent_with_an_expired_certificate_loses_nothing(authority: Authority) -> None:
    """What an agent took while its certificate was no good arrives when it has a good one."""
    certificate = authority.issue("agent", expired=True)
    with Collector(GATEWAY_FILES, {"OTELCOL_TLS_DIR": str(authority.directory)}) as gateway:
        environment = {
            "OTELCOL_GATEWAY_ENDPOINT": gateway.http_endpoint,
            "OTELCOL_GATEWAY_CA_FILE": str(authority.ca),
            "OTELCOL_GATEWAY_CERT_FILE": str(certificate.cert),
            "OTELCOL_GATEWAY_KEY_FILE": str(certificate.key),
            "OTELCOL_RETRY_INITIAL_INTERVAL": "50ms",
            "OTELCOL_RETRY_MAX_INTERVAL": "100ms",
        }
        with Collector(FORWARD, environment) as agent:
            assert post(agent.audit_endpoint, request(audit_records(["early"]))) == 200
            until(lambda: "Will retry the request" in agent.log(), "the handshake fails")
            assert gateway.records() == []
            agent.kill()
            authority.issue("agent")
            agent.start()
            until(gateway.records, "the record arrives")
        assert [record["attributes"][TEST_ID] for record in gateway.records()] == ["early"]


def _over_grpc(gateway: Collector, authority: Authority, token: str | None) -> str:
    credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes())
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.secure_channel(gateway.grpc_target, credentials) as channel:
        stub = LogsServiceStub(channel)  # type: ignore[no-untyped-call]
        try:
            stub.Export(request(audit_records([f"grpc-{token}"])), timeout=10, metadata=metadata)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


def test_only_known_tokens_are_let_in(authority: Authority, places: Places, tmp_path: Path) -> None:
    """Without a token and with a wrong one the answer is 401 or UNAUTHENTICATED; each known one is accepted."""
    tokens = tmp_path / "tokens"
    tokens.write_text("first\nsecond\n")
    environment = {**places.environment(authority), "OTELCOL_TOKENS_FILE": str(tokens)}
    context = authority.context()
    with Collector(BEARER, environment) as gateway:
        for url in (gateway.audit_endpoint, f"{gateway.http_endpoint}/v1/logs"):
            for token, status in {None: 401, "wrong": 401, "first": 200, "second": 200}.items():
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                content = request(audit_records([f"http-{token}"]))
                assert post(url, content, context=context, headers=headers) == status
        answers = [_over_grpc(gateway, authority, token) for token in (None, "wrong", "first")]
        assert answers == ["UNAUTHENTICATED", "UNAUTHENTICATED", "OK"]
        expected = {"http-first", "http-second", "grpc-first"}
        until(lambda: places.searchable().keys() == places.archived().keys() == expected, "what was accepted arrives")


# -- where records go ---------------------------------------------------------------------------------------------


def test_a_mixed_request_is_parted_and_fanned_out(authority: Authority, sender: ssl.SSLContext, places: Places) -> None:
    """Audit records go to archive and search, each once; application logs to search alone."""
    with Collector(GATEWAY, places.environment(authority)) as gateway:
        assert post(f"{gateway.http_endpoint}/v1/logs", mixed_request(), context=sender) == 200
        until(lambda: places.archived() and places.searchable().keys() >= AUDIT_IDS | APP_IDS, "all arrives")
        assert places.archived() == Counter(AUDIT_IDS)
        assert places.searchable() == Counter(AUDIT_IDS | APP_IDS)


def test_a_tenant_has_its_own_archive(authority: Authority, sender: ssl.SSLContext, places: Places) -> None:
    """The named tenant's records are in its bucket and in no other; all the rest is in the common one."""
    acme = audit_records(["acme-1", "acme-2"], **{sc.TENANT: "acme"})
    others = [*audit_records(["other"], **{sc.TENANT: "other"}), *audit_records(["none"])]
    mixed = request([acme[0], *others, acme[1]])
    mixed.MergeFrom(request(audit_records(["on-resource"]), {sc.TENANT: "acme"}))
    with Collector(TENANTS, places.environment(authority)) as gateway:
        assert post(gateway.audit_endpoint, mixed, context=sender) == 200
        until(lambda: places.archived() and places.archived("archive-acme"), "both archives are written")
        assert places.archived("archive-acme") == Counter({"acme-1", "acme-2"})
        assert places.archived() == Counter({"other", "none", "on-resource"})
        until(lambda: places.searchable().total() == 5, "search has all of them")


# The routing that one would write first: a row for each kind, and no default.  The rows, and where records end.
NAIVE = {
    "by its name": (
        {
            "audit": """context: log, condition: 'log.event_name != ""'""",
            "app": "context: log, condition: log.body != nil",
        },
        {"audit": {"audit", "name-only"}, "app": {"app"}},
    ),
    "by its id, in no context": (
        {
            "audit": """condition: 'attributes["audit.record.id"] != nil'""",
            "app": """context: log, condition: 'log.event_name == ""'""",
        },
        {"audit": {"app-id-on-resource"}, "app": {"app", "app-looks-like-audit", "id-only", "empty-id"}},
    ),
}


@pytest.mark.parametrize("name", NAIVE)
def test_naive_routing_loses_records_in_silence(authority: Authority, sender: ssl.SSLContext, name: str) -> None:
    """Routed without a default the same request is acknowledged, and the records that no row names are nowhere."""
    rows, expected = NAIVE[name]
    config = yaml.safe_load(GATEWAY_FILES.read_text(encoding="utf-8"))
    config["connectors"]["routing"] = {
        "table": [{**yaml.safe_load(f"{{{row}}}"), "pipelines": [f"logs/{kind}"]} for kind, row in rows.items()]
    }
    with Collector(yaml.safe_dump(config), {"OTELCOL_TLS_DIR": str(authority.directory)}) as gateway:
        assert post(f"{gateway.http_endpoint}/v1/logs", mixed_request(), context=sender) == 200
        stored = {kind: {str(each["attributes"][TEST_ID]) for each in gateway.records(kind)} for kind in rows}
    lost = (AUDIT_IDS | APP_IDS) - stored["audit"] - stored["app"]
    print(f"{name}: lost {sorted(lost)}, audit records among the application's {sorted(stored['app'] & AUDIT_IDS)}")
    assert stored == expected
    assert lost & AUDIT_IDS


# -- one place away ------------------------------------------------------------------------------------------------


def test_one_full_destination_refuses_and_nothing_is_missing_in_either(
    authority: Authority, sender: ssl.SSLContext, places: Places
) -> None:
    """While the queue of one is full the sender is refused; what it repeats is in both, once after deduplication."""
    ids = [f"r-{number}" for number in range(30)]
    environment = {**places.environment(authority), "OTELCOL_QUEUE_BYTES": "2000", "OTELCOL_S3_OBJECT_BYTES": "200"}
    places.search_away = True

    def send(name: str) -> bool:
        return post(gateway.audit_endpoint, request(audit_records([name])), context=sender) == 200

    with Collector(GATEWAY, environment) as gateway:
        refused = [name for name in ids if not send(name)]
        assert refused, "the queue was never full"
        places.search_away = False
        for name in refused:
            until(lambda name=name: send(name), "what was refused is taken")
        until(lambda: places.archived().keys() == places.searchable().keys() == set(ids), "all is in both")
        copies = places.archived().total() - len(ids)
    print(f"{len(refused)} of {len(ids)} refused, {copies} copies in the archive")
    assert copies > 0, "the archive took what search refused, and again"


@pytest.mark.parametrize("away", ["s3", "search"])
def test_a_destination_that_is_away_gets_everything_later(
    authority: Authority, sender: ssl.SSLContext, places: Places, away: str
) -> None:
    """The other destination is served meanwhile; after a kill of the gateway and its return the absent one has all."""
    places.archive.status, places.search_away = 503 if away == "s3" else 200, away == "search"
    ids = {f"r-{number}" for number in range(10)}
    with Collector(GATEWAY, places.environment(authority)) as gateway:
        for name in ids:
            assert post(gateway.audit_endpoint, request(audit_records([name])), context=sender) == 200
        present = places.searchable if away == "s3" else places.archived
        until(lambda: present().keys() == ids, "the other one has all")
        gateway.kill()
        places.archive.status, places.search_away = 200, False
        gateway.start()
        until(lambda: places.archived().keys() == places.searchable().keys() == ids, "both have all")


@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_whatever_s3_refuses_is_tried_again(
    authority: Authority, sender: ssl.SSLContext, places: Places, status: int
) -> None:
    """A missing bucket, a wrong credential: the queue keeps the records until somebody has repaired it."""
    places.archive.status = status
    with Collector(GATEWAY, places.environment(authority)) as gateway:
        assert post(gateway.audit_endpoint, request(audit_records(["r-1"])), context=sender) == 200
        until(lambda: "Will retry the request" in gateway.log(), "the first try fails")
        places.archive.status = 200
        until(lambda: places.archived() == Counter(["r-1"]), "the record is archived")
        assert "Dropping data" not in gateway.log()
