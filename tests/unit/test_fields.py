"""The table of short names, and what becomes of values that do not keep their rule."""

from __future__ import annotations

import uuid
from enum import Enum
from typing import Any

import pytest

from otel_audit import semconv as sc
from otel_audit.capture.draft import Draft
from otel_audit.capture.fields import FIELDS, Reading
from otel_audit.capture.shapes import SHAPES_MAX, Shapes
from otel_audit.context import audit_context
from otel_audit.errors import InvalidRecordError
from otel_audit.record import Actor, AuditRecord, Source, Target, check

OWN = (sc.LOGGER_NAME,)


def read(given: dict[Any, Any], message: Any = "user.login", *, strict: bool = False) -> AuditRecord:
    """A record, the careful way."""
    return Draft(given, message).record(strict=strict)


def attributes(given: dict[Any, Any], **options: Any) -> dict[str, Any]:
    """Its attributes, without the id."""
    return {key: value for key, value in read(given, **options).attributes.items() if key != sc.RECORD_ID}


WHOLE = {"actor": "u-42", "outcome": "success"}


@pytest.mark.parametrize(
    ("name", "value", "attribute", "stored"),
    [
        ("actor", "u-1", sc.ACTOR_ID, "u-1"),
        ("actor_type", "service", sc.ACTOR_TYPE, "service"),
        ("target", "document:7", sc.TARGET_ID, "document:7"),
        ("target_type", "document", sc.TARGET_TYPE, "document"),
        ("target_name", "Plan", sc.TARGET_NAME, "Plan"),
        ("source", "10.0.0.1", sc.SOURCE_ID, "10.0.0.1"),
        ("source_type", "ipv4", sc.SOURCE_TYPE, "ipv4"),
        ("action", "APPROVE", sc.ACTION, "APPROVE"),
        ("outcome", "failure", sc.OUTCOME, "failure"),
        ("record_id", "r-1", sc.RECORD_ID, "r-1"),
        ("tenant", "acme", sc.TENANT, "acme"),
        ("session", "s-9", sc.SESSION_ID, "s-9"),
        ("request_id", "q-1", sc.REQUEST_ID, "q-1"),
        ("user_agent", "curl", sc.USER_AGENT, "curl"),
        ("reason", "lost key", sc.REASON, "lost key"),
        ("severity", "WARN", sc.SEVERITY_NUMBER, 13),
    ],
)
def test_every_short_name_is_stored_under_its_attribute(name: str, value: Any, attribute: str, stored: Any) -> None:
    """Each row of the table, also where the attribute's own name is used."""
    assert read({**WHOLE, name: value}).attributes[attribute] == stored
    if name != "severity":
        rest = {key: given for key, given in WHOLE.items() if key != name}
        assert read({**rest, attribute: value}).attributes[attribute] == stored


def test_the_table_has_no_row_that_is_not_tested() -> None:
    """A new short name needs a row in the test above."""
    rows = next(mark for mark in test_every_short_name_is_stored_under_its_attribute.pytestmark if mark.args)
    tested = {row[0] for row in rows.args[1]} | {"event_name", "body"}
    assert tested == {name for name in FIELDS if "." not in name}


def test_every_other_name_is_a_free_attribute_as_it_stands() -> None:
    """Type and value stay, None included."""
    given = {"amount": 12.5, "tags": ["a"], "flag": True, "nothing": None, "http.route": "/x"}
    assert given.items() <= attributes({**WHOLE, **given}).items()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"actor": Actor("u-1", "service")}, {sc.ACTOR_ID: "u-1", sc.ACTOR_TYPE: "service"}),
        ({"actor": {"id": "u-1", "type": "service"}}, {sc.ACTOR_ID: "u-1", sc.ACTOR_TYPE: "service"}),
        ({"actor": "u-1"}, {sc.ACTOR_ID: "u-1", sc.ACTOR_TYPE: "user"}),
        (
            {"target": Target("7", "document", "Plan")},
            {sc.TARGET_ID: "7", sc.TARGET_TYPE: "document", sc.TARGET_NAME: "Plan"},
        ),
        ({"target": {"id": 7, "name": "Plan"}}, {sc.TARGET_ID: "7", sc.TARGET_NAME: "Plan"}),
        ({"source": Source("::1")}, {sc.SOURCE_ID: "::1", sc.SOURCE_TYPE: "ipv6"}),
        ({"source": "db-1"}, {sc.SOURCE_ID: "db-1", sc.SOURCE_TYPE: "hostname"}),
        ({sc.ACTOR_ID: Actor("u-1", "system")}, {sc.ACTOR_ID: "u-1", sc.ACTOR_TYPE: "system"}),
    ],
)
def test_objects_and_mappings_give_their_parts(given: dict[str, Any], expected: dict[str, Any]) -> None:
    """Actor, Target and Source, and mappings in their place."""
    assert expected.items() <= attributes({"outcome": "success", **given}).items()


def test_a_mapping_with_other_parts_is_kept_whole() -> None:
    """What has no attribute of its own is not dropped."""
    who = {"id": "u-1", "email": "a@example.org"}
    found = attributes({**WHOLE, "actor": who})
    assert found[sc.ACTOR_ID] == "u-1"
    assert found[sc.ORIGINAL_PREFIX + sc.ACTOR_ID] == who


def test_an_explicit_type_wins_over_the_objects() -> None:
    """The differing part is kept."""
    found = attributes({**WHOLE, "actor": Actor("u-1"), "actor_type": "service"})
    assert (found[sc.ACTOR_TYPE], found[sc.ORIGINAL_PREFIX + sc.ACTOR_TYPE]) == ("service", "user")
    assert found[sc.CONVERTED] == [f"attributes.{sc.ACTOR_TYPE}: given twice"]


@pytest.mark.parametrize("first", ["actor", sc.ACTOR_ID])
def test_a_field_given_twice_is_one_attribute(first: str) -> None:
    """The short name wins in either order, and a differing other value is kept: a duplicate key could be forged."""
    given = dict.fromkeys([first, "actor", sc.ACTOR_ID])
    given.update({"actor": "u-true", sc.ACTOR_ID: "u-forged"})
    found = attributes({"outcome": "success", **given})
    assert found[sc.ACTOR_ID] == "u-true"
    assert found[sc.ORIGINAL_PREFIX + sc.ACTOR_ID] == "u-forged"
    assert found[sc.CONVERTED] == [f"attributes.{sc.ACTOR_ID}: given twice"]


def test_a_field_given_twice_with_one_value_leaves_no_mark() -> None:
    """The same actor under both names is not worth a word."""
    found = attributes({"outcome": "success", "actor": "u-1", sc.ACTOR_ID: "u-1"})
    assert not [name for name in found if name.startswith(sc.ORIGINAL_PREFIX)]


def test_several_originals_of_one_attribute_are_all_kept() -> None:
    """A conflict and a mapping each leave one."""
    found = attributes({"actor": {"id": "u-1", "x": 1}, sc.ACTOR_ID: "u-2", "outcome": "success"})
    name = sc.ORIGINAL_PREFIX + sc.ACTOR_ID
    assert [found[name], found[f"{name}.2"]] == [{"id": "u-1", "x": 1}, "u-2"]


@pytest.mark.parametrize("value", [42, 4.5, uuid.UUID(int=7), True])
def test_an_id_that_is_no_string_becomes_one(value: Any) -> None:
    """By ``str()``, and it is noted."""
    found = attributes({**WHOLE, "actor": value})
    assert found[sc.ACTOR_ID] == str(value)
    assert found[sc.CONVERTED] == [f"attributes.{sc.ACTOR_ID}: str() of {type(value).__name__}"]


def test_an_id_that_is_a_container_is_kept_besides() -> None:
    """Its text is not enough to have it back."""
    found = attributes({**WHOLE, "session": ["a", 1]})
    assert found[sc.SESSION_ID] == "['a', 1]"
    assert found[sc.ORIGINAL_PREFIX + sc.SESSION_ID] == ["a", 1]


def test_an_object_that_cannot_be_written_does_not_lose_the_record() -> None:
    """Its type stands for it."""

    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    assert attributes({**WHOLE, "actor": Broken()})[sc.ACTOR_ID] == "<Broken that cannot be written>"


def test_members_of_a_string_enumeration_are_their_values() -> None:
    """For ids, outcomes and actions; no mark, since no character changes."""

    class Word(str, Enum):
        WHO = "u-1"
        HOW = "failure"
        WHAT = "LOGIN"

    found = attributes({"actor": Word.WHO, "outcome": Word.HOW, "action": Word.WHAT})
    assert [found[key] for key in (sc.ACTOR_ID, sc.OUTCOME, sc.ACTION)] == ["u-1", "failure", "LOGIN"]
    assert all(type(found[key]) is str for key in (sc.ACTOR_ID, sc.OUTCOME, sc.ACTION))
    assert sc.CONVERTED not in found


@pytest.mark.parametrize(
    ("given", "stored", "kept"),
    [("denied", "failure", "denied"), (True, "success", True), ("SUCCESS", "success", "SUCCESS"), (3, "unknown", 3)],
)
def test_an_outcome_outside_the_vocabulary_is_mapped(given: Any, stored: str, kept: Any) -> None:
    """Where it is no known synonym, to ``unknown``; the original stands beside it."""
    found = attributes({"actor": "u-1", "outcome": given})
    assert (found[sc.OUTCOME], found[sc.ORIGINAL_OUTCOME]) == (stored, kept)
    assert sc.FILLED not in found


@pytest.mark.parametrize(
    ("given", "stored"),
    [("login", "LOGIN"), ("sign in", "SIGN_IN"), ("Löschen!", "L_SCHEN"), (7, None), ("", None), ("日本", None)],
)
def test_an_action_is_put_right_where_that_is_possible(given: Any, stored: str | None) -> None:
    """Else it is what the event name says; the original stands beside it either way."""
    found = attributes({**WHOLE, "action": given}, message="user.rename")
    assert found[sc.ACTION] == (stored or "RENAME")
    assert found[sc.ORIGINAL_PREFIX + sc.ACTION] == given


@pytest.mark.parametrize(
    ("given", "event_name"),
    [("User.Login", "user.login"), ("user login.done", "user_login.done"), ("login", "x.y"), (7, "x.y"), ("", "x.y")],
)
def test_an_event_name_is_put_right_where_that_is_possible(given: Any, event_name: str) -> None:
    """Else it is the message, or the default; the original stands in the record either way."""
    record = read({**WHOLE, "event_name": given}, message="x.y")
    assert record.event_name == event_name
    assert record.attributes[sc.ORIGINAL_EVENT_NAME] == given


@pytest.mark.parametrize(("given", "stored"), [("Service", "service"), ("agent", "user"), (7, "user")])
def test_an_actor_type_outside_the_vocabulary_is_kept_besides(given: Any, stored: str) -> None:
    """It is put into lower case, or becomes the default."""
    found = attributes({**WHOLE, "actor_type": given})
    assert (found[sc.ACTOR_TYPE], found[sc.ORIGINAL_PREFIX + sc.ACTOR_TYPE]) == (stored, given)


def test_a_severity_that_is_none_is_kept_besides() -> None:
    """The level's severity stays."""
    draft = Draft({**WHOLE, "severity": "loud"}, "user.login")
    draft.severity = (9, "INFO")
    found = draft.record().attributes
    assert (found[sc.SEVERITY_NUMBER], found[sc.ORIGINAL_PREFIX + sc.SEVERITY_TEXT]) == (9, "loud")


@pytest.mark.parametrize("name", ["actor", "target", "source"])
def test_an_id_that_is_too_long_is_cut_and_kept(name: str) -> None:
    """1024 characters are the rule."""
    found = attributes({**WHOLE, name: "x" * 1025})
    attribute = FIELDS[name].attribute
    assert found[attribute] == "x" * 1024
    assert found[sc.ORIGINAL_PREFIX + attribute] == "x" * 1025


@pytest.mark.parametrize("value", ["", "x" * 1025])
def test_a_record_id_that_breaks_its_rule_is_replaced(value: str) -> None:
    """Cut, it might be another record's."""
    found = read({**WHOLE, "record_id": value}).attributes
    assert len(found[sc.RECORD_ID]) == 36
    assert found[sc.ORIGINAL_PREFIX + sc.RECORD_ID] == value


@pytest.mark.parametrize("missing", [{}, {"actor": None, "outcome": None}, {"actor": "", "outcome": None}])
def test_what_is_mandatory_and_missing_is_filled(missing: dict[str, Any]) -> None:
    """With ``unknown``, and the record says what; None and an empty id are missing too."""
    found = attributes({"a": 1, **missing}, message="user.2fa")
    assert (found[sc.ACTOR_ID], found[sc.ACTOR_TYPE]) == ("unknown", "user")
    assert (found[sc.ACTION], found[sc.OUTCOME]) == ("UNKNOWN", "unknown")
    assert found[sc.FILLED] == [sc.ACTOR_ID, sc.ACTION, sc.OUTCOME]


def test_what_the_context_says_is_not_filled() -> None:
    """And what the record says itself wins over it."""
    with audit_context(actor=Actor("batch", "service"), tenant="acme"):
        assert attributes({"outcome": "success"})[sc.ACTOR_TYPE] == "service"
        found = attributes({"outcome": "success", "actor": "u-1"})
    assert (found[sc.ACTOR_ID], found[sc.ACTOR_TYPE], found[sc.TENANT]) == ("u-1", "user", "acme")
    assert sc.FILLED not in found


@pytest.mark.parametrize("name", ["audit.sequence.number", "audit.integrity.value", sc.CONTROL])
def test_a_reserved_name_is_kept_under_another(name: str) -> None:
    """A caller can neither write the chain nor pass a record off as the journal's own."""
    found = attributes({**WHOLE, name: 7})
    assert name not in found
    assert found[sc.ORIGINAL_PREFIX + name] == 7


def test_a_name_that_is_no_string_becomes_one() -> None:
    """Even where there is one by that name already."""
    found = attributes({**WHOLE, "7": "a", 7: "b"})
    assert (found["7"], found[sc.ORIGINAL_PREFIX + "7"]) == ("a", "b")


def test_an_attribute_that_the_capture_writes_is_not_lost() -> None:
    """A caller's ``otel_audit.logger`` is moved aside."""
    draft = Draft({**WHOLE, sc.LOGGER_NAME: "theirs"}, "user.login")
    draft.found[sc.LOGGER_NAME] = "ours"
    found = draft.record().attributes
    assert (found[sc.LOGGER_NAME], found[sc.ORIGINAL_PREFIX + sc.LOGGER_NAME]) == ("ours", "theirs")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"outcome": "success"}, "actor"),
        ({"actor": "u-1"}, "outcome"),
        ({**WHOLE, "actor": 7}, "actor"),
        ({**WHOLE, "actor": ""}, "actor"),
        ({**WHOLE, "actor": "x" * 1025}, "actor"),
        ({**WHOLE, "actor": {"id": "a", "x": 1}}, "actor"),
        ({**WHOLE, sc.ACTOR_ID: "other"}, "actor"),
        ({**WHOLE, "actor_type": "agent"}, "actor_type"),
        ({**WHOLE, "outcome": "perhaps"}, "outcome"),
        ({**WHOLE, "action": "login"}, "action"),
        ({**WHOLE, "event_name": "Login"}, "event_name"),
        ({**WHOLE, "severity": "loud"}, "severity"),
        ({**WHOLE, "record_id": ""}, "record_id"),
        ({**WHOLE, 7: 1}, "attributes"),
        ({**WHOLE, "audit.sequence.number": 1}, "attributes['audit.sequence.number']"),
    ],
)
def test_strict_raises_instead(given: dict[Any, Any], field: str) -> None:
    """For everything that would else be filled or put right; the message has no value in it."""
    with pytest.raises(InvalidRecordError) as caught:
        read(given, strict=True)
    assert caught.value.field == field


def test_strict_takes_what_emit_takes() -> None:
    """A synonym is mapped as ``emit`` maps it, and the naming rule applies."""
    found = attributes({"actor": "u-1", "outcome": "denied"}, strict=True)
    assert (found[sc.ACTION], found[sc.OUTCOME]) == ("LOGIN", "failure")


# -- the quick way ------------------------------------------------------------------------------------------


def quick(shapes: Shapes, given: dict[str, Any], message: str = "user.login") -> Any:
    """What the quick way reads at the second time that it sees a shape."""
    shapes.read(given, message, ("log",), "audit.log", {})
    return shapes.read(given, message, ("log",), "audit.log", {})


VALUES: list[Any] = [
    "u-1", "", "x" * 1025, 7, None, True, 1.5, ["a"], Actor("u-1"), "success", "denied", "10.0.0.1", "LOGIN",
    "login", "user.login", "r-1",
]  # fmt: skip


@pytest.mark.parametrize("message", ["user.login", "user.login.failure", "Disk is full", "", "user.2fa"])
@pytest.mark.parametrize(
    "name",
    [
        *(name for name in FIELDS if name != sc.RECORD_ID),
        "free",
        "free.dotted",
        "n'a\\\"me",
        sc.SEQUENCE_NUMBER,
        sc.CONTROL,
        sc.LOGGER_NAME,
        sc.FILLED,
        sc.SEVERITY_NUMBER,
        sc.EXCEPTION_TYPE,
    ],
)
def test_both_ways_read_the_same(name: str, message: str) -> None:
    """Whatever the quick way does not leave to the careful one, it reads as that does; and it is right."""
    for value in VALUES:
        given = {"actor": "u-42", "outcome": "success", "tenant": "acme", name: value}
        found = quick(Shapes((), OWN), given, message)
        if found is None:
            continue
        event_name, body, attributes, chosen_id = found
        draft = Draft(given, message)
        draft.found[sc.LOGGER_NAME] = "log"
        record = draft.record()
        assert chosen_id == draft.chosen_id
        if not chosen_id:
            record.attributes[sc.RECORD_ID] = attributes[sc.RECORD_ID]
        assert (event_name, body, attributes) == (record.event_name, record.body, record.attributes)
        check(AuditRecord.from_attributes(event_name, attributes))


def test_the_quick_way_reads_plain_records() -> None:
    """It must not leave them all to the careful way, or the test above would say nothing."""
    given = {"actor": "u-42", "outcome": "success", "target": "t", "tenant": "acme", "ip": "10.0.0.1", "n": 7}
    shapes = Shapes((), OWN)
    assert shapes.read(given, "user.login", ("log",), "audit.log", {}) is None  # the first time
    assert shapes.read(given, "user.login", ("log",), "audit.log", {}) is not None
    assert shapes.read(given, "Hello", ("log",), "audit.log", {}) is not None
    assert shapes.read({**given, "actor": 7}, "user.login", ("log",), "audit.log", {}) is None


def test_the_quick_way_applies_the_context() -> None:
    """As the careful way does."""
    shapes = Shapes((), OWN)
    facts = {sc.ACTOR_ID: "u-9", sc.ACTOR_TYPE: "service", sc.TENANT: "acme"}
    for given in ({"outcome": "success"}, {"outcome": "success", "actor": "u-1", "tenant": "other"}):
        shapes.read(given, "user.login", ("log",), "audit.log", facts)
        found = shapes.read(given, "user.login", ("log",), "audit.log", facts)
        assert found is not None
        draft = Draft(dict(given), "user.login")
        draft.facts = facts
        draft.found[sc.LOGGER_NAME] = "log"
        expected = {**draft.record().attributes, sc.RECORD_ID: found[2][sc.RECORD_ID]}
        assert found[2] == expected


def test_the_quick_way_leaves_incomplete_records_to_the_careful_one() -> None:
    """No actor, in the record or the context; no outcome; no action."""
    for given, message in (
        ({"outcome": "success"}, "user.login"),
        ({"actor": "u-1"}, "user.login"),
        ({"actor": "u-1", "outcome": "success"}, "user.2fa"),
    ):
        shapes = Shapes((), OWN)
        for facts in ({}, {sc.TENANT: "acme"}):
            for _ in range(3):
                assert shapes.read(given, message, ("log",), "audit.log", facts) is None


def test_the_caches_are_bounded() -> None:
    """20,000 shapes, names and actions must not fill the memory."""
    shapes = Shapes((), OWN)
    for number in range(3 * SHAPES_MAX):
        for _ in range(2):
            given = {"actor": "u", "outcome": "success", "action": f"A{number}", f"x{number}": 1}
            shapes.read(given, f"user.n{number}", ("log",), "audit.log", {})
    assert len(shapes) <= 2 * SHAPES_MAX
    assert len(shapes._events) <= 4096
    assert len(shapes._actions) <= 4096


def test_names_enter_the_generated_source_as_literals_only() -> None:
    """A name is the caller's: it must not run."""
    name = "x'] or __import__('os').abort() or given['"
    given = {"actor": "u", "outcome": "success", name: "v", "\n return 1\n#": 2}
    found = quick(Shapes((), OWN), given)
    assert found[2][name] == "v"


def test_a_reading_starts_with_nothing() -> None:
    """No state is shared between two of them."""
    one = Reading()
    one.read({"actor": 7})
    assert Reading().attributes == {} and Reading().converted == []
