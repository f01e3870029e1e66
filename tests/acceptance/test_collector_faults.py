"""What a real Collector does when the other side is away, full, or answers with an error: kept, or lost and seen."""

from __future__ import annotations

import grpc  # type: ignore[import-untyped]
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub

from otel_audit.testing import ReceivedRequest, Reply, ScriptedReceiver
from support.collector import FORWARD, RELAY, Collector, require_collector
from support.load import until
from support.otlp import TEST_ID, audit_records, post, request
from support.peers import Answer, GrpcPeer, refuse

SOON = {"OTELCOL_RETRY_INITIAL_INTERVAL": "50ms", "OTELCOL_RETRY_MAX_INTERVAL": "100ms"}

pytestmark = pytest.mark.usefixtures("collector_binary")


@pytest.fixture(scope="module")
def collector_binary() -> None:
    require_collector()


class Switch:
    """Answers 503 while ``away``, and success afterwards."""

    def __init__(self) -> None:
        self.away = True

    def __call__(self, _: ReceivedRequest) -> Reply:
        return Reply(503 if self.away else 200)


class Hang:
    """Does not answer while ``hang``, and success afterwards."""

    def __init__(self) -> None:
        self.hang = True

    def __call__(self, _: ReceivedRequest) -> Reply:
        return Reply(hang=self.hang)


def _send(agent: Collector, *ids: str) -> int:
    return post(agent.audit_endpoint, request(audit_records(ids)))


def _ids(receiver: ScriptedReceiver) -> set[str]:
    return {str(record.attributes[TEST_ID]) for record in receiver.records}


# -- away -------------------------------------------------------------------------------------------------------


def test_nothing_is_dropped_however_long_the_gateway_is_away() -> None:
    """What waits while the gateway is away arrives; a copy that may give up has dropped it by then, and says so."""
    gives_up = FORWARD.read_text(encoding="utf-8")
    gives_up = gives_up.replace("max_elapsed_time: 0s", "max_elapsed_time: 1s")
    switch = Switch()
    with (
        ScriptedReceiver(default=switch) as gateway,
        Collector(FORWARD, {**SOON, "OTELCOL_GATEWAY_ENDPOINT": gateway.url}) as shipped,
        Collector(gives_up, {**SOON, "OTELCOL_GATEWAY_ENDPOINT": gateway.url}) as control,
    ):
        assert _send(shipped, "shipped") == 200
        assert _send(control, "control") == 200
        until(lambda: "no more retries left" in control.log(), "the control gives up")
        switch.away = False
        until(lambda: _ids(gateway), "the shipped one arrives")
        assert _send(control, "later") == 200
        until(lambda: _ids(gateway) >= {"shipped", "later"}, "what follows arrives")
        assert _ids(gateway) == {"shipped", "later"}
        assert control.metric("otelcol_exporter_send_failed_log_records") == 1
        assert shipped.metric("otelcol_exporter_send_failed_log_records") == 0


# -- full -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_full_queue_refuses_and_recovers(protocol: str) -> None:
    """A sender meets 503 or UNAVAILABLE when the queue is full; when the gateway is back everything arrives."""
    switch = Switch()
    ids = [f"r-{number}" for number in range(40)]
    with ScriptedReceiver(default=switch) as gateway:
        environment = {**SOON, "OTELCOL_GATEWAY_ENDPOINT": gateway.url, "OTELCOL_QUEUE_BYTES": "2000"}
        with Collector(FORWARD, environment) as agent, grpc.insecure_channel(agent.grpc_target) as channel:
            stub = LogsServiceStub(channel)  # type: ignore[no-untyped-call]

            def send(name: str) -> str:
                if protocol == "http":
                    return str(_send(agent, name))
                try:
                    stub.Export(request(audit_records([name])), timeout=10)
                except grpc.RpcError as error:
                    return str(error.code().name)
                return "200"

            answers = {name: send(name) for name in ids}
            assert set(answers.values()) == {"200", "503" if protocol == "http" else "UNAVAILABLE"}
            switch.away = False
            for name, answer in answers.items():
                if answer != "200":
                    until(lambda name=name: send(name) == "200", "what was refused is taken")
            until(lambda: _ids(gateway) == set(ids), "everything arrives")


# -- answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kept"),
    [(429, True), (502, True), (503, True), (504, True)]
    + [(status, False) for status in (301, 400, 401, 403, 404, 408, 413, 500, 501)],
)
def test_an_agent_keeps_what_is_refused_for_now_and_drops_what_is_refused_for_good(status: int, kept: bool) -> None:
    """429, 502, 503 and 504 are repeated; any other answer makes it drop the request, log it and count it."""
    with ScriptedReceiver(status) as gateway:
        with Collector(FORWARD, {**SOON, "OTELCOL_GATEWAY_ENDPOINT": gateway.url}) as agent:
            assert _send(agent, "first") == 200
            until(lambda: gateway.requests, "the first try")
            assert _send(agent, "second") == 200
            until(lambda: "second" in _ids(gateway), "the second arrives")
            if kept:
                until(lambda: "first" in _ids(gateway), "the first arrives after all")
            else:
                until(lambda: "Dropping data" in agent.log(), "the log says so")
                assert agent.metric("otelcol_exporter_send_failed_log_records") == 1
        assert _ids(gateway) == ({"first", "second"} if kept else {"second"})


def test_what_a_peer_takes_only_in_part_is_lost_in_silence() -> None:
    """`partial_success` is a warning of the agent; the records that were rejected are neither repeated nor counted."""
    with ScriptedReceiver(Reply.partial(1, "no room")) as gateway:
        with Collector(FORWARD, {**SOON, "OTELCOL_GATEWAY_ENDPOINT": gateway.url}) as agent:
            assert _send(agent, "first") == 200
            until(lambda: "Partial success response" in agent.log(), "the warning")
            assert agent.metric("otelcol_exporter_send_failed_log_records") == 0
            assert agent.metric("otelcol_exporter_sent_log_records") == 1
        assert _ids(gateway) == set()


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (refuse(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after_s=1), True),
        (refuse(grpc.StatusCode.RESOURCE_EXHAUSTED), False),
        (refuse(grpc.StatusCode.UNAVAILABLE), True),
        (refuse(grpc.StatusCode.UNAUTHENTICATED), False),
        (refuse(grpc.StatusCode.INTERNAL), False),
    ],
    ids=["exhausted with RetryInfo", "exhausted", "unavailable", "unauthenticated", "internal"],
)
def test_over_grpc_too(answer: Answer, kept: bool) -> None:
    """UNAVAILABLE is repeated, RESOURCE_EXHAUSTED only with `RetryInfo`, and what is meant for good is not."""
    forward = FORWARD.read_text(encoding="utf-8").replace("otlp_http/", "otlp_grpc/")
    forward = forward.replace("ca_file: ${env:OTELCOL_GATEWAY_CA_FILE:-}", "insecure: true")
    with GrpcPeer(answer) as peer:
        environment = {**SOON, "OTELCOL_GATEWAY_ENDPOINT": peer.url}
        with Collector(forward, environment) as agent:
            assert _send(agent, "first") == 200
            until(lambda: peer.requests, "the first try")
            assert _send(agent, "second") == 200
            until(lambda: len(peer.accepted) == (2 if kept else 1), "what is kept arrives")
            if not kept:
                until(lambda: "Dropping data" in agent.log(), "the log says so")


# -- memory -----------------------------------------------------------------------------------------------------


def test_a_memory_queue_loses_what_it_acknowledged() -> None:
    """The kill test sees loss: the same agent with the Collector's default queue loses what it has answered for."""
    lines = FORWARD.read_text(encoding="utf-8").splitlines(keepends=True)
    in_memory = "".join(line for line in lines if "storage: file_storage/queue" not in line)
    for config, kept in ((FORWARD, True), (in_memory, False)):
        switch = Switch()
        with ScriptedReceiver(default=switch) as gateway:
            with Collector(config, {**SOON, "OTELCOL_GATEWAY_ENDPOINT": gateway.url}) as agent:
                assert _send(agent, "first") == 200
                agent.kill()
                switch.away = False
                agent.start()
                assert _send(agent, "second") == 200
                until(lambda gateway=gateway: "second" in _ids(gateway), "the second arrives")
                if kept:
                    until(lambda gateway=gateway: "first" in _ids(gateway), "the first arrives")
            assert ("first" in _ids(gateway)) is kept


# -- the agent that keeps nothing, and the moment that costs -----------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 413, 429, 500, 502, 503, 504])
def test_a_relay_answers_for_nothing_that_the_gateway_refused(status: int) -> None:
    """Whatever the gateway answers but success, or nothing at all, the sender gets an error and keeps its records."""
    with ScriptedReceiver(status) as gateway:
        with Collector(RELAY, {"OTELCOL_GATEWAY_ENDPOINT": gateway.url}) as agent:
            assert _send(agent, "first") >= 400
            assert _send(agent, "second") == 200
            gateway.close()
            assert _send(agent, "third") == 503
        assert _ids(gateway) == {"second"}


@pytest.mark.slow
def test_a_kill_at_the_wrong_moment_of_a_start_loses_what_was_being_sent() -> None:
    """What the README warns of: a queue on disk that is killed again while it starts can lose. Hence the relay."""
    ids = {f"r-{number}" for number in range(10)}
    for _ in range(30):
        switch = Hang()
        with ScriptedReceiver(default=switch) as gateway:
            with Collector(FORWARD, {**SOON, "OTELCOL_GATEWAY_ENDPOINT": gateway.url}) as agent:
                for name in ids:
                    assert _send(agent, name) == 200
                until(lambda gateway=gateway: len(gateway.requests) >= len(ids), "all are being sent")
                agent.kill()
                switch.hang = False
                agent.kill_while_starting(said="Fetching items left for dispatch")
                agent.start()
                assert _send(agent, "last") == 200
                until(lambda gateway=gateway: "last" in _ids(gateway), "what came last arrives")
                until(lambda agent=agent: agent.metric("otelcol_exporter_queue_size") == 0, "the queue is empty")
            lost = ids - _ids(gateway)
        if lost:
            print(f"lost {sorted(lost)}")
            return
    pytest.fail("nothing was lost: is the window closed? Then forward.yaml can promise more")
