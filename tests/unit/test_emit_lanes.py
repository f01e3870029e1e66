"""``emit`` by a lane: the same bytes, receipts and errors as the long way, whatever comes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_audit import logger as logger_module
from otel_audit import record as record_module
from otel_audit.canonical import SEQUENCE_BYTES_MAX
from otel_audit.capture.fields import FIELDS
from otel_audit.context import audit_context
from otel_audit.errors import AuditError, JournalClosedError, JournalSyncError
from otel_audit.journal.files import Files
from otel_audit.lanes import EVENT_NAME, IDENTIFIERS, SIGHTS, STRINGS, Sites
from otel_audit.logger import AuditLogger
from otel_audit.provider import AuditProvider
from otel_audit.record import Actor, Target
from otel_audit.rules import SIZE_BYTES_MAX, Outcome
from support.interruption import interrupt
from support.provider import make_provider, stored


@pytest.fixture(autouse=True)
def no_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins without any."""
    monkeypatch.setattr(logger_module, "_sites", Sites())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "journal"


PLAIN: dict[str, Any] = {
    "actor": "u-1", "outcome": "success", "target": "document:7", "source": "192.0.2.7", "tenant": "acme",
    "session": "s-1", "request_id": "r-1", "user_agent": "agent/1.0", "reason": "password",
}  # fmt: skip


def warm_up(logger: AuditLogger, event: str = "user.login", **fields: Any) -> None:
    """Emit until there is a lane."""
    for _ in range(SIGHTS):
        logger.emit(event, **fields)
    assert (event, logger.name, *fields) in logger_module._sites.known


# -- the same as the long way ---------------------------------------------------------------------------------


class Text(str):
    """A string that is formatted as another."""

    def __format__(self, spec: str) -> str:
        return '"},"audit.outcome":{"stringValue":"success'


class Clock:
    """Says what it is told to."""

    now: Any = 10

    def time_ns(self) -> Any:
        """The time."""
        return self.now


class Pair:
    """The same calls by lanes and without; nothing is written."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.clock = Clock()
        self.written: list[Any] = []
        self.providers = [make_provider(root / name, clock=self.clock, **options) for name in ("lanes", "long")]
        self.providers[1].takes_parts_with = ()
        for provider in self.providers:
            provider.append = provider.journal.append = self._append  # type: ignore[method-assign]

    def _append(self, entry: Any, *, wait_s: float | None = None) -> str:
        self.written.append((entry.head, entry.tail))
        entry.sequence, entry.sha256 = 1, "0"
        return "stream"

    def emit(self, provider: AuditProvider, name: Any, event: Any, fields: dict[str, Any]) -> Any:
        """What is written, returned or raised, and counted."""
        self.written.clear()
        logger = provider.get_audit_logger(name)
        ids = itertools.count(1)
        with pytest.MonkeyPatch.context() as patched:
            for module in (logger_module, record_module):
                patched.setattr(module, "new_record_id", lambda: f"id-{next(ids)}")
            try:
                receipt = logger.emit(event, **fields)
                outcome: Any = (receipt.sequence, receipt.integrity_hash, receipt.durability, receipt.sink_timestamp_ns)
            except Exception as error:
                outcome = (type(error), str(error), error.journaled, error.receipt)  # type: ignore[attr-defined]
        written = [part.replace(b'"id-2"', b'"id-1"') for parts in self.written for part in parts]
        return written, outcome, provider.counters.read()

    def compare(self, name: Any, event: Any, fields: dict[str, Any]) -> Any:
        """Emit both ways."""
        ours, theirs = (self.emit(provider, name, event, fields) for provider in self.providers)
        assert ours == theirs
        return ours


@pytest.fixture
def pair(root: Path) -> Iterator[Pair]:
    pair = Pair(root)
    yield pair
    for provider in pair.providers:
        provider.shutdown(0)


ODD = [
    "", "x", "é😀", "\ud800", 'say "\\" \n\x00\x7f', "{v0}%s{{", "x" * 1024, "x" * 1025, "x" * 300_000, "denied", "OK",
    "failure", "unknown", "LOGIN", "login", "192.0.2.1", "2001:db8::1", "host", Text("success"), Text("u-1"), None,
    True, False, 7, 2**70, 1.5, float("nan"), b"x", ["a"], {"a": 1}, Outcome.FAILURE, Actor("u-2", type="service"),
    Target("t", type="role"),
]  # fmt: skip


@pytest.mark.parametrize("name", ["billing", None, "", 'é"{}\\', "\ud800", Text("billing"), 7, ["a"]], ids=repr)
@pytest.mark.parametrize("event", ["user.login", "user.login.denied", "user.9", "user.success.failure"])
def test_the_same_bytes_for_any_logger_and_event(pair: Pair, name: Any, event: str) -> None:
    """Whatever the logger is called and whatever the event name says of action and outcome."""
    without = {key: value for key, value in PLAIN.items() if key != "outcome"}
    for fields in (PLAIN, without, {**PLAIN, "action": "ENTER"}, {**without, "action": "enter"}):
        for _ in range(SIGHTS + 2):
            pair.compare(name, event, fields)


@pytest.mark.parametrize("field", [*PLAIN, "action"])
def test_the_same_for_any_value(pair: Pair, field: str) -> None:
    """A known site takes any value of any field: what the lane does not write goes the long way."""
    plain = {**PLAIN, "action": "ENTER"}
    for _ in range(SIGHTS):
        pair.compare("billing", "user.login", plain)
    assert logger_module._sites.known
    for value in ODD:
        pair.compare("billing", "user.login", {**plain, field: value})


def test_the_same_for_any_clock(pair: Pair) -> None:
    """The time of the record is that of ``emit``, also where the clock steps back or is out of order."""
    for now in [*range(100, 100 + SIGHTS), 50, 0, -1, 1.5, True, None, 2**64, 60]:
        pair.clock.now = now
        pair.compare("billing", "user.login", PLAIN)
    assert logger_module._sites.known


@pytest.mark.parametrize(
    "options", [{"strict": True}, {"size_bytes_max": 4096}, {"strict": True, "size_bytes_max": 4096}], ids=repr
)
def test_the_same_at_the_size_limit(root: Path, options: dict[str, Any]) -> None:
    """One byte more than there is room for is cut, or raises; one less is not."""
    limit = options.pop("size_bytes_max", SIZE_BYTES_MAX)
    pair = Pair(root, **options)
    for provider in pair.providers:
        object.__setattr__(provider.settings, "size_bytes_max", limit)
        provider.parts_bytes_max = limit - SEQUENCE_BYTES_MAX
    for _ in range(SIGHTS):
        written, _, _ = pair.compare(None, "user.login", PLAIN)
    room = pair.providers[0].parts_bytes_max - sum(map(len, written)) + len(PLAIN["reason"])
    fits, over = (pair.compare(None, "user.login", {**PLAIN, "reason": "x" * size})[0] for size in (room, room + 1))
    assert len(b"".join(fits)) == pair.providers[0].parts_bytes_max
    assert (over == []) is bool(options)


_VALUES = st.one_of(st.text(max_size=12), st.sampled_from(ODD), st.sampled_from(["success", "failure", "u-1"]))
_FIELDS = st.dictionaries(
    st.sampled_from([*PLAIN, "action", "severity", "body", "timestamp", "record_id", "attributes", "trace_id", "actr"]),
    _VALUES,
    max_size=6,
)
_EVENTS = st.sampled_from(["user.login", "user.login.failed", "Login", "user", "", "user.9", Text("user.login"), 7])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(st.tuples(_EVENTS, st.booleans(), _FIELDS, st.booleans()), max_size=6))
def test_the_same_for_any_calls(pair: Pair, calls: list[tuple[Any, bool, dict[str, Any], bool]]) -> None:
    """Fields that come and go, odd values, unknown keywords, within a context and without; lanes at second sight."""
    for event, mandatory, extra, in_context in calls:
        fields = {**({"actor": "u-1", "outcome": "success"} if mandatory else {}), **extra}
        for _ in range(2):
            for site in list(logger_module._sites._left):
                logger_module._sites._left[site] = (1, SIGHTS)
            if in_context:
                with audit_context(actor="u-9", tenant="other"):
                    pair.compare("billing", event, fields)
            else:
                pair.compare("billing", event, fields)


def test_the_tables_of_rules_agree() -> None:
    """What a lane takes for an identifier or a string is what the table of the captures says."""
    rows = [field for field in FIELDS.values() if field.attribute != EVENT_NAME]
    assert {field.attribute for field in rows if field.kind in ("identifier", "record_id")} == IDENTIFIERS
    strings = {"identifier", "record_id", "text", "outcome", "action"}
    assert {field.attribute for field in rows if field.kind in strings} == STRINGS - {EVENT_NAME}


# -- the lane is taken, and where not ---------------------------------------------------------------------------


def test_a_plain_emit_takes_the_lane(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is configured or by word of the call; not within a context, and not to destinations."""
    with make_provider(root) as provider:
        logger = provider.get_audit_logger("billing")
        warm_up(logger, **PLAIN)
        monkeypatch.setattr(AuditLogger, "_record", None)  # whatever needs it fails
        assert logger.emit("user.login", **PLAIN).durability == "process"
        assert logger.emit("user.login", durability="disk", **PLAIN).durability == "disk"
        with audit_context(tenant="acme"), pytest.raises(TypeError):
            logger.emit("user.login", **PLAIN)
    assert len(stored(root)) == SIGHTS + 2


def test_with_a_processor_nothing_takes_the_lane(root: Path) -> None:
    """A lane that others made is not for a provider that has something to add."""

    class Adds:
        def on_emit(self, _: Any) -> dict[str, Any]:
            return {"added": True}

    with make_provider(root / "a") as provider:
        warm_up(provider.get_audit_logger(), **PLAIN)
    with make_provider(root / "b", processors=[Adds()]) as provider:
        provider.get_audit_logger().emit("user.login", **PLAIN)
    assert [record.attributes["added"] for record in stored(root / "b")] == [True]


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_the_successor_takes_what_comes_by_a_lane(root: Path, durability: str) -> None:
    """After a second ``configure()`` the record is in the new journal, once, with the id of the receipt."""
    with make_provider(root / "a", durability=durability) as provider, make_provider(root / "b") as successor:
        logger = provider.get_audit_logger()
        warm_up(logger, **PLAIN)
        provider.shutdown()
        with pytest.raises(JournalClosedError) as caught:
            logger.emit("user.login", **PLAIN)
        assert caught.value.journaled is False
        assert provider.counters.read()["records.not_journaled"] == 1
        provider.successor = successor
        receipt = logger.emit("user.login", **PLAIN)
    assert [record.record_id for record in stored(root / "b")] == [receipt.record_id]
    assert len(stored(root / "a")) == SIGHTS


# -- what goes wrong around the append ------------------------------------------------------------------------


class Failing(Files):
    """The real system calls, until one is to fail."""

    due: BaseException | None = None
    after: Any = None

    def write(self, fd: int, data: bytes) -> int:
        done = super().write(fd, data)
        if self.after is not None:
            after, self.after = self.after, None
            after()
        if self.due is not None:
            error, self.due = self.due, None
            raise error
        return done


def test_an_interruption_behind_the_write_has_the_receipt(root: Path) -> None:
    """Ctrl-C right behind the write: the line is in the journal, and the exception says so."""
    files = Failing()
    with make_provider(root, files=files) as provider:
        logger = provider.get_audit_logger()
        warm_up(logger, **PLAIN)
        files.due = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt) as caught:
            logger.emit("user.login", **PLAIN)
        error: Any = caught.value
        assert error.journaled is True
        assert "records.not_journaled" not in provider.counters.read()
    assert stored(root)[-1].record_id == error.receipt.record_id
    assert stored(root)[-1].sequence == error.receipt.sequence


def test_an_emit_within_an_emit_is_deferred(root: Path) -> None:
    """A signal handler that emits by the same lane: its receipt says that the outer call writes it."""
    files = Failing()
    receipts = []
    with make_provider(root, files=files) as provider:
        logger = provider.get_audit_logger()
        warm_up(logger, **PLAIN)
        files.after = lambda: receipts.append(logger.emit("user.login", **PLAIN))
        receipts.append(logger.emit("user.login", **PLAIN))
    assert [receipt.durability for receipt in receipts] == ["deferred", "process"]
    assert [record.record_id for record in stored(root)[-2:]] == [receipt.record_id for receipt in reversed(receipts)]


def test_a_failed_sync_is_said_as_ever(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Durability ``disk``: the error is the journal's, and an interruption has the receipt."""
    with make_provider(root, durability="disk") as provider:
        logger = provider.get_audit_logger()
        warm_up(logger, **PLAIN)
        for error in (JournalSyncError("no", journaled=None), KeyboardInterrupt()):

            def fail(*_: Any, error: BaseException = error) -> None:
                raise error

            with monkeypatch.context() as patched:
                patched.setattr(provider.journal, "commit", fail)
                with pytest.raises(type(error)) as caught:
                    logger.emit("user.login", **PLAIN)
            said: Any = caught.value
            assert said is error
            if isinstance(error, AuditError):
                assert said.journaled is None
            else:
                assert said.journaled is True
                assert said.receipt.record_id == stored(root)[-1].record_id


def _interrupted(logger: AuditLogger, line: int) -> Any:
    """Emit, and be interrupted before the n-th line of a lane's way; the exception, ``None`` where it has no such."""
    within = False

    def counts(frame: FrameType) -> bool:
        nonlocal within
        within = within or frame.f_code.co_name == "_emit_straight"
        return within and Path(frame.f_code.co_filename).name in ("logger.py", "receipts.py")

    return interrupt(lambda: logger.emit("user.login", **PLAIN), line, counts)


def test_an_interruption_at_any_line_says_whether_the_record_is_there(root: Path) -> None:
    """``.journaled`` is true of the journal, and where the record is there the receipt is on the exception."""
    with make_provider(root) as provider:
        logger = provider.get_audit_logger()
        warm_up(logger, **PLAIN)
        said = set()
        for line in range(1, 100):
            before = len(stored(root))
            error = _interrupted(logger, line)
            if error is None:
                break
            there = len(stored(root)) - before
            journaled = getattr(error, "journaled", "nothing")
            if there:
                assert error.receipt.record_id == stored(root)[-1].record_id
            assert journaled is bool(there) or (journaled == "nothing" and not there and not said)
            if journaled != "nothing":
                said.add(journaled)
        assert said == {True, False}
