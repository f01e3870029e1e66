"""Which records a destination is to have, and what becomes of the others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_audit import semconv as sc
from otel_audit.batch import StoredRecord
from otel_audit.delivery.replay import read_letters
from otel_audit.delivery.selection import RecordFilter, make_filter
from otel_audit.delivery.shipper import Shipper, drain
from otel_audit.destinations import make_destination
from otel_audit.errors import (
    BlockedExportError,
    ConfigurationError,
    DeliveryFilteredError,
    DeliveryTimeoutError,
    RejectedExportError,
    RetryableExportError,
)
from otel_audit.journal.cursor import Cursor
from otel_audit.journal.journal import Journal
from otel_audit.journal.ledger import Policy, trim
from otel_audit.journal.streams import list_streams
from support.delivery import Ships, Sink, append, dead_stream, destination, make_journal, own_stream
from support.provider import SOON, login, make_provider, stored

FACTS: dict[str, Any] = {sc.ACTION: "LOGIN", sc.OUTCOME: "failure", sc.TENANT: "acme", sc.SEVERITY_NUMBER: 13}

EVEN = RecordFilter(tenants=frozenset({"even"}), control=False)
"""Passes what :func:`mixed` gives the tenant ``even``."""


def mixed(journal: Journal, pattern: str) -> list[str]:
    """Emit one record for each letter: ``w`` is wanted by :data:`EVEN`, everything else is not; ids of the wanted."""
    wanted = []
    for letter in pattern:
        tenant = "even" if letter == "w" else "odd"
        ids = append(journal, 1, **{sc.TENANT: tenant})
        if letter == "w":
            wanted += ids
    return wanted


# -- the rule ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "passes"),
    [
        ({"events": ["user.*"]}, True),
        ({"events": ["user.login"]}, True),
        ({"events": ["user.log?n", "other"]}, True),
        ({"events": ["other.*"]}, False),
        ({"events": ["user"]}, False),
        ({"events": ["!user.*"]}, False),
        ({"events": ["!other.*"]}, True),
        ({"events": ["user.*", "!*.login"]}, False),
        ({"actions": ["login"]}, True),
        ({"actions": ["DELETE", "READ"]}, False),
        ({"outcomes": ["failure"]}, True),
        ({"outcomes": "success,unknown"}, False),
        ({"tenants": ["acme", "other"]}, True),
        ({"tenants": ["ACME"]}, False),
        ({"tenants": [""]}, False),
        ({"severity": "WARN"}, True),
        ({"severity": 13}, True),
        ({"severity": "14"}, False),
        ({"severity": "error"}, False),
        ({"events": ["user.*"], "outcomes": ["success"]}, False),
        ({"events": ["user.*"], "outcomes": ["failure"], "severity": "INFO"}, True),
    ],
)
def test_a_record_passes_where_it_fits_every_condition(given: dict[str, Any], passes: bool) -> None:
    """Conditions are joined by and, the words of one by or."""
    assert make_filter("filter", given).passes("user.login", FACTS) is passes


@pytest.mark.parametrize(("given", "passes"), [({"tenants": ["acme"]}, False), ({"tenants": ["", "acme"]}, True)])
def test_a_record_without_a_tenant_belongs_to_none(given: dict[str, Any], passes: bool) -> None:
    """It must not reach somebody else's destination by accident."""
    assert make_filter("filter", given).passes("user.login", {}) is passes


def test_a_record_without_a_severity_is_not_held_back() -> None:
    """It cannot be judged."""
    assert make_filter("filter", {"severity": "FATAL"}).passes("user.login", {})


def test_what_the_journal_records_passes_unless_it_is_unwanted() -> None:
    """That logging began and ended is part of every trail."""
    facts = {sc.CONTROL: True}
    assert make_filter("filter", {"events": ["user.*"]}).passes(sc.EVENT_STARTED, facts)
    assert not make_filter("filter", {"control": False}).passes(sc.EVENT_STARTED, facts)


@pytest.mark.parametrize("odd", [7, None, ["acme"], {"a": 1}])
def test_an_odd_value_fits_nothing(odd: Any) -> None:
    """Attributes are the caller's: whatever their type, nothing is raised."""
    chosen = make_filter("filter", {"tenants": ["acme", "7"]})
    assert not chosen.passes("user.login", {**FACTS, sc.TENANT: odd})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("user.*", "must be a mapping, like"),
        ({"event": ["user.*"]}, "did you mean 'events'"),
        ({"events": []}, "lets nothing through"),
        ({"events": ["User.*"]}, "can fit no event name"),
        ({"outcomes": ["denied"]}, "'denied' is none of failure, success, unknown"),
        ({"severity": "LOUD"}, r"filter\.severity: must be 1 to 24"),
        ({"severity": 25}, "must be 1 to 24"),
        ({"control": "perhaps"}, "true or false"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_an_error(given: Any, message: str) -> None:
    """It says where, and what would be right."""
    with pytest.raises(ConfigurationError, match=message):
        make_filter("destinations.x.filter", given)


def test_a_required_destination_misses_nothing_by_accident() -> None:
    """Its filter needs to be allowed in so many words."""
    spec = {"type": Sink(), "filter": {"events": ["user.*"]}}
    with pytest.raises(ConfigurationError, match=r"destinations\.x\.filter: the dest.* is required.*allow_filtered"):
        make_destination("x", spec, {})
    for more in ({"required": False}, {"allow_filtered": True}):
        made = make_destination("x", {**spec, **more}, {})
        assert made.filter is not None
        assert made.filter.events == ("user.*",)


# -- shipping ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["wwoo", "oowww", "owowow", "oooo", "wwww", "w"])
@pytest.mark.parametrize("records_max", [1, 3, 1000])
def test_what_is_passed_over_is_counted_apart(journal: Journal, ships: Ships, pattern: str, records_max: int) -> None:
    """The cursor reaches the end; delivered is what the destination has, and nothing else."""
    wanted = mixed(journal, pattern)
    sink = Sink()
    shipper = ships(sink, filter=EVEN, records_max=records_max)
    assert drain(shipper, timeout_s=20)
    assert sink.ids == wanted
    assert [record.is_control for record in sink.accepted] == [False] * len(wanted)
    assert shipper.cursor(own_stream(journal)) == Cursor(
        acknowledged=len(pattern) + 1, delivered=len(wanted), filtered=len(pattern) + 1 - len(wanted)
    )
    assert (shipper.delivered, shipper.filtered) == (len(wanted), len(pattern) + 1 - len(wanted))


def test_nothing_is_sent_where_nothing_is_wanted(journal: Journal, ships: Ships) -> None:
    """Passing over says nothing of the destination: it has not succeeded either."""
    mixed(journal, "oooo")
    sink = Sink(BlockedExportError("401"))
    shipper = ships(sink, filter=EVEN)
    assert drain(shipper, timeout_s=20)
    assert sink.requests == []
    assert shipper.state.last_success_ns == 0


def test_what_leads_is_settled_although_the_destination_is_down(journal: Journal, ships: Ships) -> None:
    """What stands before the first wanted record needs no answer of anybody."""
    wanted = mixed(journal, "ooowow")
    sink = Sink(RetryableExportError("down"))
    shipper = ships(sink, filter=EVEN)
    shipper.step()
    assert shipper.cursor(own_stream(journal)) == Cursor(acknowledged=4, filtered=4)
    assert drain(shipper, timeout_s=20)
    assert sink.ids == wanted
    assert shipper.cursor(own_stream(journal)) == Cursor(acknowledged=7, delivered=2, filtered=5)


def test_refused_and_passed_over_stand_side_by_side(journal: Journal, ships: Ships) -> None:
    """Each record is delivered, dead-lettered or filtered: exactly one of them."""
    wanted = mixed(journal, "wowowowo")
    bad = {wanted[1], wanted[3]}
    sink = Sink(refuses=lambda record: record.record_id in bad)
    shipper = ships(sink, filter=EVEN)
    assert drain(shipper, timeout_s=20)
    assert sink.ids == [wanted[0], wanted[2]]
    assert shipper.cursor(own_stream(journal)) == Cursor(acknowledged=9, delivered=2, dead_lettered=2, filtered=5)


def test_a_broken_run_counts_each_record_once(tmp_path: Path, ships: Ships, journal: Journal) -> None:
    """Whoever goes on after a crash begins at the cursor: the sums are those of one run."""
    wanted = mixed(journal, "oowwoowwoo")
    for answers in ([None, RetryableExportError("down")], [None]):
        shipper = ships(Sink(*answers), filter=EVEN, records_max=4)
        shipper.step()
        shipper.close()
    last = Sink()
    shipper = ships(last, filter=EVEN, records_max=4)
    assert drain(shipper, timeout_s=20)
    assert set(last.ids) <= set(wanted)
    assert shipper.cursor(own_stream(journal)) == Cursor(acknowledged=11, delivered=4, filtered=7)


def test_what_everybody_passed_over_may_be_removed(tmp_path: Path, ships: Ships, journal: Journal) -> None:
    """A dead stream of which nothing is wanted does not stay for ever."""
    dead_stream(journal.layout.root, 5, {sc.TENANT: "odd"})
    shipper = ships(Sink(), filter=EVEN)
    assert drain(shipper, timeout_s=20)
    (stream,) = list_streams(journal.layout)
    trim(stream, Policy(), own=False)
    assert list(list_streams(journal.layout)) == []


# -- what the caller and the operator see ---------------------------------------------------------------------


def filtered(sink: Any, **more: Any) -> dict[str, Any]:
    """A required destination that wants failures only."""
    return {"type": sink, "filter": {"outcomes": ["failure"]}, "allow_filtered": True, **more}


def test_flush_and_status_tell_filtered_from_delivered(tmp_path: Path) -> None:
    """Nothing is pending, and what was passed over is in neither sum of the others."""
    sink, everything = Sink(), Sink()
    with make_provider(
        tmp_path / "j", retry=SOON, destinations={"some": filtered(sink), "all": everything}
    ) as provider:
        logger = provider.get_audit_logger()
        for outcome in ("success", "failure", "success"):
            login(logger, outcome=outcome)
        result = provider.flush(20)
        assert result
        assert (result.delivered, result.filtered, result.pending) == (2 + 4, 2, 0)
        some = {each.name: each for each in provider.status().destinations}["some"]
        assert (some.delivered, some.filtered, some.pending) == (2, 2, 0)
    assert len(sink.ids) == 1
    assert len(everything.ids) == 3


def test_delivered_waits_only_for_those_who_are_to_have_it(tmp_path: Path) -> None:
    """A destination that is down holds up nothing that is not for it."""
    up, down = Sink(), Sink(*[RetryableExportError("down")] * 100_000)
    provider = make_provider(tmp_path / "j", retry=SOON, destinations={"up": up, "down": filtered(down)})
    logger = provider.get_audit_logger()
    receipt = login(logger, durability="delivered", timeout_s=20)
    assert receipt.durability == "delivered"
    assert up.ids == [receipt.record_id]
    with pytest.raises(DeliveryTimeoutError) as caught:
        login(logger, outcome="failure", durability="delivered", timeout_s=5)
    assert caught.value.missing == ("down",)
    provider.shutdown(0.0)


def test_delivered_to_nobody_is_an_error_and_the_record_is_journaled(tmp_path: Path) -> None:
    """No destination acknowledged it, so nothing claims that; the error says what to do."""
    with make_provider(tmp_path / "j", retry=SOON, destinations={"some": filtered(Sink())}) as provider:
        logger = provider.get_audit_logger()
        with pytest.raises(DeliveryFilteredError, match=r"\(some\) pass the record over; it is journaled") as caught:
            login(logger, durability="delivered")
        assert caught.value.journaled is True
        assert caught.value.filtered == ("some",)
        assert caught.value.receipt is not None
        assert login(logger, outcome="failure", durability="delivered", timeout_s=20).durability == "delivered"


def test_a_coroutine_is_told_the_same(tmp_path: Path) -> None:
    """``aemit`` asks the same filters, also for what a processor adds; so does a second try by ``record_id``."""
    asyncio.run(_coroutines(tmp_path))


async def _coroutines(tmp_path: Path) -> None:

    class Tenant:
        def on_emit(self, record: Any) -> dict[str, Any]:
            return {sc.TENANT: "acme"}

    destinations = {"some": {"type": Sink(), "filter": {"tenants": ["acme"]}, "allow_filtered": True}}
    async with make_provider(tmp_path / "j", retry=SOON, destinations=destinations, processors=[Tenant()]) as provider:
        logger = provider.get_audit_logger()
        receipt = await logger.aemit("user.login", actor="u", outcome="success", durability="delivered", timeout_s=20)
        assert receipt.durability == "delivered"
        for _ in range(2):  # the second is the same record, tried again
            again = logger.emit(
                "user.login", actor="u", outcome="success", record_id="r-1", durability="delivered", timeout_s=20
            )
            assert again.durability == "delivered"
    destinations = {"some": filtered(Sink())}
    async with make_provider(tmp_path / "k", destinations=destinations) as provider:
        with pytest.raises(DeliveryFilteredError):
            await provider.get_audit_logger().aemit("user.login", actor="u", outcome="success", durability="delivered")


def test_the_time_out_says_that_the_record_is_safe(tmp_path: Path) -> None:
    """Who is missing, that it is journaled and where, and that it goes on."""
    down = Sink(*[RetryableExportError("down")] * 100_000)
    provider = make_provider(tmp_path / "j", retry=SOON, destinations={"down": down, "up": Sink()})
    with pytest.raises(DeliveryTimeoutError, match=r"to down \(down\); .* is journaled \(stream .*, number 2\)"):
        login(provider.get_audit_logger(), durability="delivered", timeout_s=5)
    provider.shutdown(0.0)


def test_the_journal_is_untouched_by_filters(tmp_path: Path) -> None:
    """A filter decides what is sent, never what is kept."""
    journal = make_journal(tmp_path / "j")
    ids = append(journal, 3)
    assert len(ids) == 3
    assert journal.writer is not None
    assert journal.writer.sequence == 4
    journal.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pattern=st.text("wo", min_size=1, max_size=14),
    answers=st.lists(st.sampled_from(["take", "later", "blocked", "part", "refuse"]), max_size=10),
    records_max=st.integers(1, 6),
    bad=st.sets(st.integers(0, 13), max_size=4),
    restarts=st.integers(0, 3),
)
def test_every_record_is_exactly_one_of_the_four(
    tmp_path_factory: pytest.TempPathFactory,
    pattern: str,
    answers: list[str],
    records_max: int,
    bad: set[int],
    restarts: int,
) -> None:
    """Delivered, dead-lettered, filtered or pending, whatever is answered, and however often it begins anew."""
    journal = make_journal(tmp_path_factory.mktemp("selection"))
    wanted = mixed(journal, pattern)
    refused = {wanted[number] for number in bad if number < len(wanted)}
    script = [_answer(word) for word in answers]
    sink = Sink(*script, refuses=lambda record: record.record_id in refused)
    for _ in range(restarts + 1):
        shipper = Shipper(journal, destination(sink, filter=EVEN, records_max=records_max))
        for _ in range(4):
            shipper.step()
            cursor = shipper.cursor(own_stream(journal))
            assert cursor is not None
            assert cursor.acknowledged == cursor.delivered + cursor.dead_lettered + cursor.filtered
        shipper.close()
    sink.script.clear()  # in the end it works, and takes a newer record: evidence against the refused ones
    wanted += mixed(journal, "w")
    shipper = Shipper(journal, destination(sink, filter=EVEN))
    assert drain(shipper, timeout_s=10)
    shipper.close()
    cursor = shipper.cursor(own_stream(journal))
    letters = {letter.record.record_id for letter in read_letters(journal.layout, "sink")}
    assert set(sink.ids) | letters == set(wanted), "none is missing, and nothing that is not wanted was sent"
    assert cursor == Cursor(
        acknowledged=len(pattern) + 2,
        delivered=len(wanted) - len(letters),
        dead_lettered=len(letters),
        filtered=pattern.count("o") + 1,
    )
    journal.close()


def _answer(word: str) -> Exception | None:
    return {
        "take": None,
        "later": RetryableExportError("503"),
        "blocked": BlockedExportError("401"),
        "part": RetryableExportError("reset", accepted=1),
        "refuse": RejectedExportError("400"),
    }[word]


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"tenant": "acme", "severity": "WARN"}, True),
        ({"tenant": "acme", "severity": "INFO"}, False),
        ({"tenant": "other", "severity": "ERROR"}, False),
        ({"tenant": "acme"}, True),
        ({"severity": "ERROR"}, False),
        ({"tenant": 'ac"me\\ü', "severity": "ERROR"}, False),
        ({"tenant": "acme", "severity": "ERROR", "body": {"otel_audit.tenant": "other"}}, True),
        ({"tenant": "acme", "attributes": {"nested": {"otel_audit.control": True}}}, True),
    ],
)
def test_stored_records_are_judged_as_emitted_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], wanted: bool
) -> None:
    """What the shipper reads and what ``emit`` has in its hand give the same answer; a nested name does not count."""
    chosen = make_filter("filter", {"tenants": ["acme"], "severity": "WARN"})
    with make_provider(tmp_path / "j", retention=3600) as provider:
        login(provider.get_audit_logger(), **fields)
    (record,) = stored(tmp_path / "j")
    assert chosen.wants(record) is wanted
    assert chosen.passes(record.event_name, record.attributes) is wanted
    again = StoredRecord(record.sequence, record.sha256, record.canonical)
    monkeypatch.setattr("otel_audit.batch.decode", lambda _: pytest.fail("the record is taken to pieces, and held"))
    assert chosen.wants(again) is wanted


def test_what_cannot_be_read_is_not_withheld() -> None:
    """The exporter says what is wrong with it."""
    assert EVEN.wants(StoredRecord(1, "", b"{}"))
