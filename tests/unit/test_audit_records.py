"""What users' tests are given: ``RecordingProvider`` and the fixture ``audit_records``."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from otel_audit import default
from otel_audit import semconv as sc
from otel_audit.capture.stdlib import AuditHandler
from otel_audit.errors import InvalidRecordError, JournalClosedError
from otel_audit.record import Actor, AuditRecord
from otel_audit.testing.memory import RecordingProvider

pytest_plugins = ["pytester"]


def test_emit_is_recorded_in_memory() -> None:
    """As it would be delivered: converted, and without the attributes of the chain."""
    provider = RecordingProvider()
    receipt = provider.get_audit_logger("billing").emit(
        "permission.grant", actor=Actor("u-1"), outcome=True, attributes={"ratio": float("nan")}
    )
    (record,) = provider
    assert isinstance(record, AuditRecord)
    assert (record.event_name, record.actor, record.outcome.value) == ("permission.grant", Actor("u-1"), "success")
    assert record.attributes["ratio"] == "NaN"
    assert not [name for name in record.attributes if name.startswith(sc.SEQUENCE_PREFIX)]
    assert (receipt.record_id, receipt.sequence) == (record.record_id, 1)
    assert len(receipt.integrity_hash) == 64


def test_it_checks_as_a_journal_would() -> None:
    """A test must not pass where production raises."""
    logger = RecordingProvider().get_audit_logger()
    with pytest.raises(InvalidRecordError):
        logger.emit("user.login", outcome="success")
    with pytest.raises(InvalidRecordError, match="byte"):
        RecordingProvider(strict=True).get_audit_logger().emit(
            "user.login", actor="u", outcome="success", body="x" * 300_000
        )


def test_the_same_record_again_gives_the_first_receipt() -> None:
    """Where the caller chose the id; another record by that id is refused."""
    provider = RecordingProvider()
    emit = provider.get_audit_logger().emit
    first = emit("user.login", actor="u", outcome="success", record_id="r-1")
    assert emit("user.login", actor="u", outcome="success", record_id="r-1") == first
    with pytest.raises(InvalidRecordError):
        emit("user.logout", actor="u", outcome="success", record_id="r-1")
    assert len(provider) == 1


def test_coroutines_shutdown_and_status() -> None:
    """The rest of what a provider is asked for."""
    provider = RecordingProvider()
    asyncio.run(provider.get_audit_logger().aemit("user.login", actor="u", outcome="success"))
    provider.count("x")
    assert provider.flush()
    assert (provider.status().records, provider.status().counters) == (1, {"x": 1})
    provider.shutdown()
    with pytest.raises(JournalClosedError):
        provider.get_audit_logger().emit("user.login", actor="u", outcome="success")


def test_the_fixture(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that uses the process-wide provider ends in its list, for that test only."""
    pytester.makepyfile(
        """
        import logging
        import otel_audit.default
        from otel_audit.capture.stdlib import AuditHandler

        def test_one(audit_records):
            logger = logging.getLogger("audit")
            logger.setLevel("INFO")
            logger.addHandler(AuditHandler())
            logger.info("user.login", extra={"actor": "u-1", "outcome": "success"})
            otel_audit.default.get_audit_logger().emit("user.logout", actor="u-1", outcome="success")
            assert [record.event_name for record in audit_records] == ["user.login", "user.logout"]

        def test_two():
            assert otel_audit.default._provider is None
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=2)


def test_the_fixture_outlives_configure(pytester: pytest.Pytester) -> None:
    """An application that configures itself, once or twice, or by ``dictConfig``, writes nothing and is recorded."""
    pytester.makepyfile(
        """
        import logging, logging.config, pathlib
        import otel_audit, pytest
        from otel_audit import default

        WHOLE = {"actor": "u-1", "outcome": "success"}

        def start(**options):
            return otel_audit.configure(
                service_name="shop", journal="journal", destinations={"archive": "file:audit.jsonl"},
                loggers=["shop.audit"], **options
            )

        def test_configure(audit_records):
            first = start()
            logging.getLogger("shop.audit").info("user.login", extra=WHOLE)
            start(event_name="shop.log")
            logging.getLogger("shop.audit").info("somebody came", extra=WHOLE)
            first.get_audit_logger().emit("user.logout", record_id="r-1", **WHOLE)
            otel_audit.get_audit_logger().emit("user.logout", record_id="r-1", **WHOLE)
            assert otel_audit.flush() and otel_audit.check_health().status == "ok"
            assert otel_audit.status().unreachable_handlers == []
            otel_audit.shutdown()
            assert [record.event_name for record in audit_records] == ["user.login", "shop.log", "user.logout"]

        def test_its_options_hold(audit_records):
            with pytest.raises(otel_audit.ConfigurationError, match="durability"):
                start(durability="safe")
            start(strict=True)
            with pytest.raises(otel_audit.InvalidRecordError):
                logging.getLogger("shop.audit").info("user.login")
            assert audit_records == []

        def test_dict_config(audit_records):
            logging.config.dictConfig({
                "version": 1,
                "handlers": {"audit": {"class": "otel_audit.AuditHandler", "journal": "journal"}},
                "loggers": {"shop.own": {"level": "INFO", "handlers": ["audit"]}},
            })
            logging.getLogger("shop.own").info("user.login", extra=WHOLE)
            assert [record.event_name for record in audit_records] == ["user.login"]

        def test_nothing_is_left():
            assert default._provider is None
            for name in ("shop.audit", "shop.own"):
                logger = logging.getLogger(name)
                assert (logger.handlers, logger.level) == ([], logging.NOTSET)
            assert not pathlib.Path("journal").exists() and not pathlib.Path("audit.jsonl").exists()
            assert otel_audit.check_health().reasons == ["auditing is not configured: nothing is recorded"]
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=4)


def test_the_receivers(pytester: pytest.Pytester) -> None:
    """They are there, take what comes, and are gone afterwards."""
    pytester.makepyfile(
        """
        import otel_audit, pytest, socket

        ports = []

        @pytest.mark.parametrize("protocol", ["grpc", "http/protobuf", "http/json"])
        def test_delivery(audit_receiver, audit_grpc_receiver, tmp_path, protocol):
            receiver = audit_grpc_receiver if protocol == "grpc" else audit_receiver
            receiver.script("UNAVAILABLE" if protocol == "grpc" else 503)
            ports.append(receiver.port)
            to = {"type": "otlp", "protocol": protocol, "endpoint": receiver.endpoint}
            otel_audit.configure(service_name="shop", journal=tmp_path / "journal", destinations={"collector": to})
            receipt = otel_audit.get_audit_logger().emit("user.login", actor="u-1", outcome="success")
            assert otel_audit.flush(60)
            otel_audit.shutdown()
            assert receipt.record_id in receiver.record_ids

        def test_they_are_gone():
            assert len(ports) == 3
            for port in ports:
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port))
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=4)


def test_no_directory_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written anywhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    provider = RecordingProvider()
    monkeypatch.setattr(default, "_provider", provider)
    logger = logging.Logger("audit")
    logger.addHandler(AuditHandler())
    logger.info("user.login", extra={"actor": "u-1", "outcome": "success"})
    assert len(provider) == 1
    assert list(tmp_path.iterdir()) == []
