"""Which records are one event, and which are several: none of the latter is taken for a copy of another."""

from __future__ import annotations

import copy
import gc
import io
import logging
import logging.handlers
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from otel_audit import AuditContextFilter, AuditHandler, StructlogAuditProcessor, audit_context
from otel_audit.capture import once
from otel_audit.errors import JournalFullError
from otel_audit.testing import RecordingProvider

WHOLE = {"actor": "u-42", "outcome": "success"}


@pytest.fixture
def provider() -> RecordingProvider:
    """Takes everything and remembers it."""
    return RecordingProvider()


@pytest.fixture
def logger(provider: RecordingProvider) -> logging.Logger:
    """With two handlers of one provider, as propagation gives them to a record one after the other."""
    made = logging.Logger("shop", logging.INFO)
    made.addHandler(AuditHandler(provider))
    made.addHandler(AuditHandler(provider))
    return made


def names(provider: RecordingProvider) -> list[str]:
    """Of all that was journaled."""
    return [record.event_name for record in provider.records]


@pytest.fixture
def one_stamp() -> Iterator[None]:
    """All records have the same stamps, the very same objects."""
    before = logging.getLogRecordFactory()
    created, relative = 1.7e9, 12.5

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        record.created, record.relativeCreated = created, relative
        return record

    logging.setLogRecordFactory(factory)
    yield
    logging.setLogRecordFactory(before)


@pytest.mark.usefixtures("one_stamp")
def test_records_with_the_same_stamps_are_events_of_their_own(
    logger: logging.Logger, provider: RecordingProvider
) -> None:
    """A record factory that makes logs reproducible does not lose one."""
    for number in range(5):
        logger.info("user.login", extra={**WHOLE, "number": number})
    assert [record.attributes["number"] for record in provider.records] == [0, 1, 2, 3, 4]


def test_copies_that_somebody_logs_are_events_of_their_own(logger: logging.Logger, provider: RecordingProvider) -> None:
    """One record is taken apart into several."""
    template = logger.makeRecord("shop", logging.INFO, __file__, 1, "batch.begin", (), None, extra=WHOLE)
    for number in range(5):
        part = copy.copy(template)
        part.msg = f"item.{'abcde'[number]}"
        logger.handle(part)
    logger.handle(template)
    assert names(provider) == ["item.a", "item.b", "item.c", "item.d", "item.e", "batch.begin"]


def test_copies_that_a_handler_logs_are_events_of_their_own(provider: RecordingProvider) -> None:
    """Also where they are logged while the record that they were made from is on its way."""
    parts = logging.Logger("parts", logging.INFO)
    parts.addHandler(AuditHandler(provider))

    class Splitting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            for part in ("item.a", "item.b"):
                made = copy.copy(record)
                made.msg = part
                parts.handle(made)

    shop = logging.Logger("shop", logging.INFO)
    shop.addHandler(Splitting())
    shop.addHandler(AuditHandler(provider))
    structlog.wrap_logger(
        shop, processors=[StructlogAuditProcessor(provider), structlog.stdlib.render_to_log_kwargs]
    ).info("batch.begin", audit=True, **WHOLE)
    assert names(provider) == ["batch.begin", "item.a", "item.b"]


def test_copies_that_a_filter_of_the_logger_logs_are_events_of_their_own(provider: RecordingProvider) -> None:
    """A structlog event is journaled; what a filter makes of its record is something else."""
    parts = logging.Logger("parts", logging.INFO)
    parts.addHandler(AuditHandler(provider))

    def split(record: logging.LogRecord) -> bool:
        made = copy.copy(record)
        made.msg = "item.a"
        parts.handle(made)
        return True

    shop = logging.Logger("shop", logging.INFO)
    shop.addFilter(split)
    shop.addHandler(AuditHandler(provider))
    structlog.wrap_logger(
        shop, processors=[StructlogAuditProcessor(provider), structlog.stdlib.render_to_log_kwargs]
    ).info("batch.begin", audit=True, **WHOLE)
    assert names(provider) == ["batch.begin", "item.a"]


def test_what_is_logged_between_two_captures_does_not_hide_the_first(provider: RecordingProvider) -> None:
    """An event within an event, and another within that: each is journaled once."""
    shop = logging.Logger("shop", logging.INFO)
    nested = iter(["a.second", "a.third"])

    class Nesting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            following = next(nested, None)
            if following is not None:
                shop.info(following, extra=WHOLE)

    shop.addHandler(AuditHandler(provider))
    shop.addHandler(Nesting())
    shop.addHandler(AuditHandler(provider))
    shop.info("a.first", extra=WHOLE)
    assert names(provider) == ["a.first", "a.second", "a.third"]


def test_a_structlog_call_within_a_structlog_call_does_not_hide_it(provider: RecordingProvider) -> None:
    """A processor behind ours logs an audit event of its own through the same chain; both reach a handler, too."""
    shop = logging.Logger("shop", logging.INFO)
    shop.addHandler(AuditHandler(provider))
    shop.addHandler(AuditHandler(provider))
    nested = iter(["a.second"])

    def nesting(_: Any, __: str, event: Any) -> Any:
        following = next(nested, None)
        if following is not None:
            log.info(following, audit=True, **WHOLE)
        return event

    log = structlog.wrap_logger(
        shop, processors=[StructlogAuditProcessor(provider), nesting, structlog.stdlib.render_to_log_kwargs]
    )
    for _ in range(3):
        log.info("a.first", audit=True, **WHOLE)
    assert names(provider) == ["a.first", "a.second", "a.first", "a.first"]


def test_a_processor_that_makes_several_events_of_one_call(provider: RecordingProvider) -> None:
    """Each dictionary that one processor is given is an event; the same one again, or through another one, is not."""
    audit, other = StructlogAuditProcessor(provider), StructlogAuditProcessor(provider)

    def each_item(logger: Any, name: str, event: Any) -> Any:
        for item in event["items"]:
            one = {**event, "event": item}
            audit(logger, name, one)
            audit(logger, name, one)
            other(logger, name, one)
        raise structlog.DropEvent

    log = structlog.wrap_logger(None, processors=[each_item])
    log.info("a.all", audit=True, items=["a.first", "a.second", "a.third"], **WHOLE)
    assert names(provider) == ["a.first", "a.second", "a.third"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="before Python 3.12 what a filter returns is a truth value")
@pytest.mark.parametrize("where", ["logger", "handlers"])
def test_copies_that_filters_return_stand_for_their_record(provider: RecordingProvider, where: str) -> None:
    """Filters that take secrets out of a copy do not make two events of one."""

    def redact(record: logging.LogRecord) -> logging.LogRecord:
        made = copy.copy(record)
        made.password = "…"
        return made

    shop = logging.Logger("shop", logging.INFO)
    parent = logging.Logger("parent", logging.INFO)
    shop.parent = parent
    for each in (shop, parent):
        handler = AuditHandler(provider)
        each.addHandler(handler)
        if where == "handlers":
            handler.addFilter(redact)
    if where == "logger":
        shop.addFilter(redact)
    log = structlog.wrap_logger(
        shop, processors=[StructlogAuditProcessor(provider), structlog.stdlib.render_to_log_kwargs]
    )
    for number in range(3):
        shop.info("user.login", extra={**WHOLE, "password": "secret", "number": number})
        log.info("user.logout", **WHOLE, password="secret", number=number)
        log.info("user.delete", audit=True, **WHOLE, password="…", number=number)
    assert names(provider) == ["user.login", "user.logout", "user.delete"] * 3
    assert {record.attributes["password"] for record in provider.records} == {"…"}


def test_what_a_memory_handler_hands_on_later_is_the_same_event(provider: RecordingProvider) -> None:
    """However many others have been journaled since."""
    shop = logging.Logger("shop", logging.INFO)
    shop.addHandler(AuditHandler(provider))
    shop.addHandler(logging.handlers.MemoryHandler(5, target=AuditHandler(provider)))
    for _ in range(5):
        shop.info("user.login", extra=WHOLE)
    assert len(provider.records) == 5


def test_a_formatters_copy_stands_for_its_record(provider: RecordingProvider) -> None:
    """``ProcessorFormatter`` copies what it formats, and runs a processor of ours on the copy."""
    shop = logging.Logger("shop", logging.INFO)
    console = logging.StreamHandler(io.StringIO())
    console.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[StructlogAuditProcessor(provider, select="all"), structlog.dev.ConsoleRenderer()]
        )
    )
    between = logging.Logger("between", logging.INFO)
    between.addHandler(AuditHandler(provider))

    class Nesting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            between.info("a.second", extra=WHOLE)

    for handler in (AuditHandler(provider), Nesting(), console):
        shop.addHandler(handler)
    shop.info("a.first", extra=WHOLE)
    assert names(provider) == ["a.first", "a.second"]


def behind_a_queue(shop: logging.Logger, provider: RecordingProvider, *, carry: bool) -> logging.handlers.QueueListener:
    """Put a queue on the logger, and an ``AuditHandler`` behind it."""
    handler = logging.handlers.QueueHandler(queue.Queue())
    if carry:
        handler.addFilter(AuditContextFilter())
    shop.addHandler(handler)
    listener = logging.handlers.QueueListener(handler.queue, AuditHandler(provider))
    listener.start()
    return listener


def test_a_queues_copy_stands_for_its_record_where_the_filter_says_so(provider: RecordingProvider) -> None:
    """A direct handler before the queue, and one behind it; other events are journaled in between."""
    shop = logging.Logger("shop", logging.INFO)
    shop.addHandler(AuditHandler(provider))
    listener = behind_a_queue(shop, provider, carry=True)
    for _ in range(20):
        shop.info("user.login", extra=WHOLE)
    listener.stop()
    assert len(provider.records) == 20


def test_a_queues_copy_is_journaled_twice_rather_than_not_at_all(provider: RecordingProvider) -> None:
    """Without the filter nobody can tell which copies are meant; copies that somebody logs go through a queue too."""
    shop = logging.Logger("shop", logging.INFO)
    listener = behind_a_queue(shop, provider, carry=True)
    template = shop.makeRecord("shop", logging.INFO, __file__, 1, "batch.begin", (), None, extra=WHOLE)
    shop.handle(template)
    for name in ("item.a", "item.b"):
        part = copy.copy(template)
        part.msg = name
        shop.handle(part)
    listener.stop()
    assert names(provider) == ["batch.begin", "item.a", "item.b"]

    provider.records.clear()
    shop.handlers.clear()
    shop.addHandler(AuditHandler(provider))
    listener = behind_a_queue(shop, provider, carry=False)
    shop.info("user.login", extra=WHOLE)
    listener.stop()
    assert names(provider) == ["user.login", "user.login"]


def test_what_a_filter_changes_after_the_context_filter_holds(provider: RecordingProvider) -> None:
    """What the context filter has seen before does not come back: a secret may have been taken out."""
    shop = logging.Logger("shop", logging.INFO)
    carrying = logging.NullHandler()
    carrying.handle = carrying.filter  # type: ignore[assignment]
    carrying.addFilter(AuditContextFilter())

    def redact(record: logging.LogRecord) -> bool:
        record.msg, record.args = "password *** refused", ()
        return True

    audited = AuditHandler(provider)
    audited.addFilter(redact)
    shop.addHandler(carrying)
    shop.addHandler(audited)
    with audit_context(actor="u-1"):
        shop.info("password %s refused", "secret", extra={"outcome": "failure"})
    (record,) = provider.records
    assert record.body == "password *** refused"
    assert "secret" not in repr(record.attributes)
    assert record.actor.id == "u-1"


def test_a_failure_is_that_of_one_provider(provider: RecordingProvider) -> None:
    """Where one provider does not take the event, the other has it all the same, once."""
    failing = RecordingProvider()
    shop = logging.Logger("shop", logging.INFO)
    refused: list[Exception] = []

    def refuse(*_: Any, **__: Any) -> Any:
        raise JournalFullError("full")

    failing.emit_record = refuse  # type: ignore[method-assign]
    for each in (provider, failing, provider, failing):
        shop.addHandler(AuditHandler(each, on_error=lambda error, _: refused.append(error)))
    shop.info("user.login", extra=WHOLE)
    assert (len(provider.records), len(refused)) == (1, 2)


def test_two_threads_may_handle_one_record(provider: RecordingProvider) -> None:
    """A record that went through a queue object as it is, to two listeners, is one event."""
    record = logging.LogRecord("shop", logging.INFO, __file__, 1, "user.login", (), None)
    record.__dict__.update(WHOLE)
    AuditHandler(provider).handle(record)
    thread = threading.Thread(target=AuditHandler(provider).handle, args=(record,))
    thread.start()
    thread.join()
    assert len(provider.records) == 1


def test_what_is_remembered_is_bounded(provider: RecordingProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that are gone are forgotten first; records that live are, where there is no room left."""
    monkeypatch.setattr(once, "RECORDS_MAX", 8)
    monkeypatch.setattr(once, "_records", {})
    handler = AuditHandler(provider)
    alive = [logging.LogRecord("shop", logging.INFO, __file__, 1, "user.login", (), None) for _ in range(5)]
    dead = [logging.LogRecord("shop", logging.INFO, __file__, 1, "user.login", (), None) for _ in range(3)]
    for record in (*alive, *dead):
        handler.handle(record)
    del dead, record
    more = [logging.LogRecord("shop", logging.INFO, __file__, 1, "user.login", (), None) for _ in range(2)]
    for record in more:
        handler.handle(record)
    assert {id(record) for record in (*alive, *more)} <= set(once._records)
    for _ in range(100):
        more.append(logging.LogRecord("shop", logging.INFO, __file__, 1, "user.login", (), None))
        handler.handle(more[-1])
    assert len(once._records) <= 8
    assert len(provider.records) == 110
    for _ in range(100):  # as where a filter gives a new record for each
        more.append(logging.LogRecord("shop", logging.INFO, __file__, 1, "user.login", (), None))
        once.stand_for(more[-1], more[0])
    assert len(once._records) <= 8


def test_a_finaliser_may_log_while_room_is_made(monkeypatch: pytest.MonkeyPatch):
    """Garbage can be collected at any allocation, and what logs then must not disturb the one who makes room."""
    provider = object()
    logged: list[logging.LogRecord] = []

    class Logs:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            logged.append(logging.makeLogRecord({}))
            once.claim(logged[-1], provider)

    monkeypatch.setattr(once, "_records", {})
    kept = [logging.makeLogRecord({}) for _ in range(9000)]  # more than tuples are kept for use again
    for record in kept:
        once.claim(record, provider)
    before = gc.get_threshold()
    gc.collect()
    gc.disable()
    garbage = [Logs() for _ in range(50)]
    del garbage
    gc.set_threshold(2500)
    gc.enable()
    try:
        once._make_room()
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert len(logged) == 50
    assert len(once._records) == 9050
