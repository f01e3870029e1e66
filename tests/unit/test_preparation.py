"""Preparation: times, conversion, reserved names and size, from a record to its bytes."""

from __future__ import annotations

import copy
import json
import re
import time
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_audit import preparation
from otel_audit import semconv as sc
from otel_audit.canonical import SEQUENCE_BYTES_MAX, canonicalize, decode, sequence_fragment, tagged_text, untag
from otel_audit.conversion import MARKS_MAX
from otel_audit.errors import InvalidRecordError
from otel_audit.preparation import prepare
from otel_audit.record import AuditRecord
from otel_audit.rules import FUTURE_NS_MAX, SIZE_BYTES_MAX

NOW = 1_767_225_600_000_000_000
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STREAM = "0e4a4a68-53c8-4a0f-8f0f-9a2b3c4d5e6f"
MANDATORY = {
    sc.RECORD_ID: "5f0c1c5e-7f0a-4a53-9a4f-0d8d7c1b2a3e",
    sc.ACTOR_ID: "u-42",
    sc.ACTOR_TYPE: "user",
    sc.ACTION: "LOGIN",
    sc.OUTCOME: "success",
}


def record_of(attributes: Any = None, **members: Any) -> AuditRecord:
    """A record with the mandatory attributes and these."""
    return AuditRecord.from_attributes("user.login", {**MANDATORY, **(attributes or {})}, **members)


def form_of(record: AuditRecord, observed_ns: int = NOW, **options: Any) -> bytes:
    """The canonical form as the journal has it, with the longest sequence there is."""
    head, tail = prepare(record, observed_ns, **options)
    return head + sequence_fragment(2**63 - 1, "f" * 64, STREAM, end=True) + tail


def read(record: AuditRecord, observed_ns: int = NOW, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Members and attributes of what was prepared, those of the chain not among them."""
    members = decode(form_of(record, observed_ns, **options))
    attributes = {key: untag(value) for key, value in members["attributes"].items()}
    return members, {key: value for key, value in attributes.items() if not key.startswith(sc.SEQUENCE_PREFIX)}


# -- records that are right ----------------------------------------------------------------------------------------


def test_a_record_that_is_right_is_only_written_down() -> None:
    """Nothing is added to what the caller gave."""
    record = record_of({"n": 7, "m": {"a": [1]}}, body="text", timestamp_ns=NOW - 1, trace_id=TRACE, span_id=SPAN)
    chain = {
        sc.SEQUENCE_NUMBER: 2**63 - 1,
        sc.SEQUENCE_PREVIOUS_HASH: "f" * 64,
        sc.SEQUENCE_STREAM_ID: STREAM,
        sc.SEQUENCE_END: True,
    }
    expected = canonicalize("user.login", NOW - 1, NOW, "text", {**record.attributes, **chain}, TRACE, SPAN)
    assert form_of(record) == expected
    assert form_of(record, strict=True) == expected


def test_a_record_made_by_its_constructor() -> None:
    """What ``emit`` makes goes through as it is."""
    record = AuditRecord("user.login", actor="u-42", outcome="denied", severity="INFO", attributes={"k": b"\x00"})
    members, attributes = read(record)
    assert attributes == record.attributes
    assert members["timestamp"] == str(NOW)


def test_the_record_is_not_changed() -> None:
    """Neither a right one nor one that is clamped, converted, renamed and cut."""
    right = record_of({"k": [1]})
    wrong = record_of(
        {"k": {1, 2}, "audit.sequence.number": 1, "big": "x" * 400_000, "l": [[3]]},
        timestamp_ns=NOW + 1,
        body=["y" * 400_000],
    )
    for record in (right, wrong):
        before = copy.deepcopy(record)
        form_of(record)
        assert record == before


# -- times ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given_ns", "stored_ns"), [(0, NOW), (1, 1), (NOW - 1, NOW - 1), (NOW, NOW)])
def test_times_up_to_now_stay(given_ns: int, stored_ns: int) -> None:
    """A time that is not after the observed one is kept; none means now."""
    for strict in (False, True):
        members, attributes = read(record_of(timestamp_ns=given_ns), strict=strict)
        assert (members["timestamp"], members["observed_timestamp"]) == (str(stored_ns), str(NOW))
        assert attributes == MANDATORY


@pytest.mark.parametrize("after_ns", [1, FUTURE_NS_MAX, FUTURE_NS_MAX + 1, 2**63 - 1 - NOW])
def test_times_after_now_are_clamped(after_ns: int) -> None:
    """A time after the observed one becomes that, and is kept beside it."""
    members, attributes = read(record_of(timestamp_ns=NOW + after_ns))
    assert members["timestamp"] == str(NOW)
    assert attributes == {**MANDATORY, sc.ORIGINAL_TIMESTAMP: str(NOW + after_ns)}


def test_strict_refuses_times_far_after_now() -> None:
    """The clock may step back a little; five seconds and more are the caller's mistake."""
    members, attributes = read(record_of(timestamp_ns=NOW + FUTURE_NS_MAX), strict=True)
    assert members["timestamp"] == str(NOW)
    assert attributes[sc.ORIGINAL_TIMESTAMP] == str(NOW + FUTURE_NS_MAX)
    with pytest.raises(InvalidRecordError, match="more than 5 s") as caught:
        prepare(record_of(timestamp_ns=NOW + FUTURE_NS_MAX + 1), NOW, strict=True)
    assert caught.value.field == "timestamp"


@pytest.mark.parametrize("bad", [-1, 2**63, 1.5, True, "2026-01-01", object()], ids=lambda bad: type(bad).__name__)
def test_times_that_are_none(bad: Any) -> None:
    """What is no time at all is kept as text, or refused by strict."""
    members, attributes = read(record_of(timestamp_ns=bad))
    assert members["timestamp"] == str(NOW)
    assert attributes[sc.ORIGINAL_TIMESTAMP] == (str(bad) if type(bad) is not object else repr(bad))
    with pytest.raises(InvalidRecordError, match="timestamp"):
        prepare(record_of(timestamp_ns=bad), NOW, strict=True)


def test_an_attribute_in_the_way_moves_aside() -> None:
    """A caller's attribute with the name of ours is not lost."""
    mine = {sc.ORIGINAL_TIMESTAMP: "mine", sc.ORIGINAL_PREFIX + sc.ORIGINAL_TIMESTAMP: "older"}
    _, attributes = read(record_of(mine, timestamp_ns=NOW + 1))
    assert attributes[sc.ORIGINAL_TIMESTAMP] == str(NOW + 1)
    assert attributes[sc.ORIGINAL_PREFIX + sc.ORIGINAL_TIMESTAMP] == "mine"
    assert attributes[sc.ORIGINAL_PREFIX * 2 + sc.ORIGINAL_TIMESTAMP] == "older"


# -- conversion ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [False, True])
def test_values_outside_the_profile_are_converted(strict: bool) -> None:
    """Each leaves a mark, those beside them stay, and strict does not refuse them."""
    record = record_of({"id": UUID(int=1), "n": 2**64, "fine": 1.5}, body={"tags": {"b", "a"}})
    members, attributes = read(record, strict=strict)
    assert untag(members["body"]) == {"tags": ["a", "b"]}
    assert attributes == {
        **MANDATORY,
        "id": str(UUID(int=1)),
        "n": str(2**64),
        "fine": 1.5,
        sc.CONVERTED: [
            "attributes.id: identifier to string",
            "attributes.n: integer beyond 64 bits to string",
            "body.tags: set to sorted list",
        ],
    }


def test_a_mandatory_attribute_is_converted_like_any() -> None:
    """A record id that is a UUID is the string of it."""
    _, attributes = read(record_of({sc.RECORD_ID: UUID(int=7)}))
    assert attributes[sc.RECORD_ID] == str(UUID(int=7))


def test_names_of_attributes_are_converted() -> None:
    """A name that is no string becomes one."""
    _, attributes = read(record_of({7: "seven", "\ud800": 1}))
    assert attributes["7"] == "seven"
    assert attributes["\\ud800"] == 1
    assert attributes[sc.CONVERTED] == ["attributes.7: key to string", "attributes.\\ud800: key to string"]


@pytest.mark.parametrize("strict", [False, True])
def test_reserved_names_are_never_emitted(strict: bool) -> None:
    """What a capture found under a name of the chain or of a signer is kept under another."""
    forged = {"audit.sequence.number": 99, "audit.sequence.stream_id": "forged", "audit.integrity.value": "AAAA"}
    for _ in range(2):
        members = decode(form_of(record_of(forged), strict=strict))
        attributes = {key: untag(value) for key, value in members["attributes"].items()}
        assert attributes[sc.SEQUENCE_NUMBER] == 2**63 - 1
        assert attributes[sc.SEQUENCE_STREAM_ID] == STREAM
        assert "audit.integrity.value" not in attributes
        assert {name: attributes[sc.ORIGINAL_PREFIX + name] for name in forged} == forged
        assert attributes[sc.CONVERTED] == [f"attributes.{sc.ORIGINAL_PREFIX}{name}: reserved name" for name in forged]


def test_marks_of_a_capture_are_kept() -> None:
    """A capture that converted something before has its marks before ours; anything else by that name moves aside."""
    _, attributes = read(record_of({sc.CONVERTED: ["before"], "k": {1}}))
    assert attributes[sc.CONVERTED] == ["before", "attributes.k: set to sorted list"]
    _, attributes = read(record_of({sc.CONVERTED: "mine", "k": {1}}))
    assert attributes[sc.CONVERTED] == ["attributes.k: set to sorted list"]
    assert attributes[sc.ORIGINAL_PREFIX + sc.CONVERTED] == "mine"


def test_members_that_are_no_strings_are_kept_as_attributes() -> None:
    """A name or an id of another type does not stop a record."""
    record = AuditRecord.from_attributes(7, dict(MANDATORY), trace_id=object(), span_id=5)  # type: ignore[arg-type]
    record.trace_id = 3  # type: ignore[assignment]
    members, attributes = read(record)
    assert members["event_name"] == sc.UNKNOWN
    assert attributes[sc.ORIGINAL_EVENT_NAME] == 7
    assert attributes[sc.ORIGINAL_PREFIX + "trace_id"] == 3
    assert attributes[sc.ORIGINAL_PREFIX + "span_id"] == 5
    assert not {"trace_id", "span_id"} & set(members)
    assert attributes[sc.CONVERTED] == [f"{name}: not a string" for name in ("event_name", "trace_id", "span_id")]


# -- size ----------------------------------------------------------------------------------------------------------


def test_the_limit_counts_the_whole_form() -> None:
    """A record that fits exactly is not cut, one byte more is."""
    fixed = len(prepare(record_of(body=""), NOW)[0]) + len(prepare(record_of(body=""), NOW)[1])
    room = SIZE_BYTES_MAX - SEQUENCE_BYTES_MAX - fixed
    assert read(record_of(body="x" * room))[1] == MANDATORY
    assert sc.TRUNCATED in read(record_of(body="x" * (room + 1)))[1]
    prepare(record_of(body="x" * room), NOW, strict=True)
    with pytest.raises(InvalidRecordError):
        prepare(record_of(body="x" * (room + 1)), NOW, strict=True)


def test_strict_names_the_largest() -> None:
    """The error says which field, how large it is and what is allowed."""
    record = record_of({"small": "x" * 1000, "big": ["y" * 300_000]}, body="z" * 200_000)
    with pytest.raises(InvalidRecordError) as caught:
        prepare(record, NOW, strict=True)
    assert caught.value.field == "attributes['big']"
    size = len(tagged_text(["y" * 300_000]))
    assert re.search(rf"\b{size} bytes\b.*\b{SIZE_BYTES_MAX}\b.*list of length 1", str(caught.value))
    assert "yyy" not in str(caught.value)


def kept_of(mark: str) -> tuple[str, int, int]:
    """Path, kept and all bytes of a mark."""
    match = re.fullmatch(r"(.*): ([0-9]+) of ([0-9]+) bytes kept", mark, re.DOTALL)
    assert match is not None, mark
    return match[1], int(match[2]), int(match[3])


def test_a_long_body_is_cut() -> None:
    """The prefix that is left nearly fills the limit, and the mark counts bytes."""
    body = "é" * 400_000
    members, attributes = read(record_of(body=body))
    kept = untag(members["body"])
    assert body.startswith(kept)
    assert attributes == {**MANDATORY, sc.TRUNCATED: [f"body: {2 * len(kept)} of 800000 bytes kept"]}
    assert len(form_of(record_of(body=body))) > SIZE_BYTES_MAX - 1000


def test_escapes_count_as_they_are_written() -> None:
    """A text of control characters is six times as long when it is written down."""
    members, _ = read(record_of(body="\x00" * 400_000))
    assert 40_000 < len(untag(members["body"])) < 44_000


LARGE: list[Any] = [["x" * 99] * 5000, {f"k{i}": i for i in range(20_000)}, b"\xff" * 300_000]


@pytest.mark.parametrize("value", LARGE, ids=["list", "dict", "bytes"])
def test_containers_and_bytes_are_cut_as_json_text(value: Any) -> None:
    """What is left is the beginning of the canonical JSON text, as a string."""
    text = tagged_text(value)
    for record in (record_of({"k": value}), record_of(body=value)):
        members, attributes = read(record)
        kept = attributes.get("k") or untag(members["body"])
        assert text.startswith(kept)
        assert len(kept) > 100_000
        _, n, m = kept_of(attributes[sc.TRUNCATED][0])
        assert (n, m) == (len(kept), len(text))


def test_the_largest_are_cut_to_one_level() -> None:
    """Small values stay whole; several large ones share the room."""
    attributes = {"small": "s" * 50_000, "big": "b" * 200_000, "bigger": "c" * 900_000}
    _, after = read(record_of(attributes, body="body"))
    assert after["small"] == attributes["small"]
    assert abs(len(after["big"]) - len(after["bigger"])) < 10
    assert [kept_of(mark)[0] for mark in after[sc.TRUNCATED]] == ["attributes.big", "attributes.bigger"]


def test_too_many_attributes_are_left_out_with_a_count() -> None:
    """Where cutting does not help the last of the caller's own go; those of the conventions and the numbers stay."""
    attributes: dict[str, Any] = {f"key-{i}": f"value {i}" * 5 for i in range(10_000)}
    _, after = read(record_of({**attributes, sc.TENANT: "acme", sc.TARGET_ID: "t-1"}, body="b" * 3000))
    kept = [name for name in after if name.startswith("key-")]
    assert {name: after[name] for name in kept} == {name: attributes[name] for name in list(attributes)[: len(kept)]}
    assert (after[sc.TENANT], after[sc.TARGET_ID]) == ("acme", "t-1")
    assert after[sc.TRUNCATED] == [f"attributes: {len(kept) + 2} of 10002 kept"]
    assert len(form_of(record_of(attributes))) > 0.95 * SIZE_BYTES_MAX


def test_a_name_too_large_is_left_out() -> None:
    """A name cannot be cut; its attribute goes."""
    _, after = read(record_of({"k" * 300_000: 1}))
    assert after == {**MANDATORY, sc.TRUNCATED: ["attributes: 0 of 1 kept"]}


def test_the_actor_is_cut_last() -> None:
    """An actor that keeps its rule outlives every free attribute; a longer one is cut."""
    actor = "\x01" * 1024
    _, after = read(record_of({sc.ACTOR_ID: actor, **{f"k{i}": "v" * 200 for i in range(100)}}), size_bytes_max=8000)
    assert after[sc.ACTOR_ID] == actor
    _, after = read(record_of({sc.ACTOR_ID: "a" * 300_000, "k": "v"}))
    assert kept_of(after[sc.TRUNCATED][0])[0] == f"attributes.{sc.ACTOR_ID}"
    assert after["k"] == "v"


@pytest.mark.parametrize("name", [sc.RECORD_ID, sc.ACTION, sc.OUTCOME])
def test_what_is_never_cut_is_refused_where_it_does_not_fit(name: str) -> None:
    """A record that breaks the rule for its id is an error, even without strict."""
    with pytest.raises(InvalidRecordError) as caught:
        prepare(record_of({name: "x" * 300_000, "k": "v" * 500_000}, body="b"), NOW)
    assert caught.value.field == f"attributes[{name!r}]"


def test_marks_of_conversion_are_cut_by_entries() -> None:
    """The list of marks stays a list, and says how many are missing."""
    attributes = {f"{'long name ' * 6}{i}": {i} for i in range(500)}
    _, after = read(record_of(attributes), size_bytes_max=12_000)
    marks = after[sc.CONVERTED]
    assert all(mark.endswith(": set to sorted list") for mark in marks[:-1])
    assert marks[-1] == f"… {500 - (len(marks) - 1)} more"
    assert len(marks) < MARKS_MAX


def test_marks_of_cuts_before_are_kept_as_there_is_room() -> None:
    """A list of marks that a capture set goes before ours and is shortened by entries; anything else moves aside."""
    _, after = read(record_of({sc.TRUNCATED: ["before"], "k": "v" * 3000}), size_bytes_max=2000)
    assert after[sc.TRUNCATED][0] == "before"
    assert kept_of(after[sc.TRUNCATED][1])[0] == "attributes.k"
    _, after = read(record_of({sc.TRUNCATED: ["x" * 3000, 7], "k": "v" * 3000}), size_bytes_max=2000)
    assert after[sc.TRUNCATED][0] == "… 2 more"
    _, after = read(record_of({sc.TRUNCATED: "x" * 3000, "k": "v" * 3000}), size_bytes_max=2000)
    assert [kept_of(mark)[0] for mark in after[sc.TRUNCATED]] == [f"attributes.{sc.TRUNCATED}", "attributes.k"]
    assert set(after[sc.ORIGINAL_PREFIX + sc.TRUNCATED]) == {"x"}


def test_the_count_of_what_is_left_out_is_always_marked() -> None:
    """However many values are cut besides."""
    attributes = {f"k{i}": "v" * 500 for i in range(500)}
    _, after = read(record_of(attributes), size_bytes_max=64_000)
    assert after[sc.TRUNCATED][0] == f"attributes: {len(after) - 6} of 500 kept"
    assert after[sc.TRUNCATED][-1].endswith(" more")


def test_cutting_is_quick() -> None:
    """A record of many megabytes costs a moment, not minutes."""
    records = [
        record_of(body="\x00é" * 5_000_000),
        record_of({f"k{i}": "v" * (i % 977) for i in range(50_000)}),
        record_of({f"k{i}": [i] * 50 for i in range(2000)}, body=list(range(90_000))),
    ]
    for record in records:
        start = time.perf_counter()
        assert len(form_of(record)) <= SIZE_BYTES_MAX
        assert time.perf_counter() - start < 30


text = st.text(st.characters(), max_size=8)
value = st.one_of(
    st.builds(lambda part, count: part * count, text, st.integers(0, 3000)),
    st.builds(lambda part, count: [part] * count, text, st.integers(0, 300)),
    st.builds(lambda part, count: {f"{part}{i}": i for i in range(count)}, text, st.integers(0, 300)),
    st.builds(lambda part, count: part * count, st.binary(max_size=8), st.integers(0, 2000)),
    st.sampled_from([None, True, 7, 2**64, float("nan"), {1, 2}, UUID(int=1)]),
)
attributes_ = st.dictionaries(
    text | st.sampled_from(["k" * 2000, sc.TARGET_ID, "audit.sequence.number", sc.FILLED]),
    value,
    max_size=12,
)


@given(attributes_, value, text, st.integers(1500, 40_000), st.integers(0, 400))
@settings(max_examples=300, deadline=None)
def test_every_record_fits(attributes: Any, body: Any, actor: str, limit: int, many: int) -> None:
    """Whatever is in it: within the limit, valid, id, action and outcome whole, and a mark where something is cut."""
    attributes = {**attributes, **{f"many-{i}": "v" for i in range(many)}}
    record = record_of({**attributes, sc.ACTOR_ID: actor * 100}, body=body)
    form = form_of(record, size_bytes_max=limit)
    assert len(form) <= limit
    assert json.loads(form) == decode(form)
    members, after = read(record, size_bytes_max=limit)
    for name in (sc.RECORD_ID, sc.ACTION, sc.OUTCOME):
        assert after[name] == MANDATORY[name]
    whole_members, whole = read(record, size_bytes_max=2**40)
    ours = {sc.TRUNCATED, sc.CONVERTED}
    gone = whole.keys() - after.keys() - ours
    cut = {f"attributes.{name}" for name in whole.keys() & after.keys() - ours if whole[name] != after[name]}
    cut |= {"body"} if members.get("body") != whole_members.get("body") else set()
    if gone or cut:
        marks = after[sc.TRUNCATED]
        assert any(re.fullmatch(r"attributes: [0-9]+ of [0-9]+ kept", mark) for mark in marks) == bool(gone)
        marked = {kept_of(mark)[0] for mark in marks if mark.endswith(" bytes kept")}
        expected = {path for path in cut if len(path) < 200} | {path for path in marked if "…" in path}
        assert marked == expected or (marked < expected and marks[-1].endswith(" more"))
    else:
        assert (members, after) == (whole_members, whole)


# -- the price -------------------------------------------------------------------------------------------------------


def test_a_right_record_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual case makes no draft: that is what keeps it fast."""
    monkeypatch.setattr(preparation, "_Draft", None)
    assert prepare(record_of({"k": 1}, body="b", trace_id=TRACE, span_id=SPAN), NOW)
