"""The canonical form: exact bytes, the fast way and the plain one, and back."""

from __future__ import annotations

import base64
import gc
import hashlib
import importlib.util
import itertools
import json
import math
import struct
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from otel_audit import canonical, encoding
from otel_audit import semconv as sc
from otel_audit.canonical import (
    ELEMENTS_MAX,
    NESTING_MAX,
    PROFILE_NESTING_MAX,
    SEQUENCE_BYTES_MAX,
    OutsideProfile,
    canonicalize,
    decode,
    number,
    sequence_fragment,
    tagged_text,
    untag,
)
from otel_audit.encoding import SHAPES_MAX, encode_parts

VECTORS = Path(__file__).parents[1] / "vectors"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STREAM = "0e4a4a68-53c8-4a0f-8f0f-9a2b3c4d5e6f"
NOW = 1_767_225_600_000_000_123

# -- strategies ------------------------------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
tag_names = st.sampled_from(["stringValue", "intValue", "boolValue", "doubleValue", "bytesValue"])
around_sequence = st.sampled_from(["audit.sequence", "audit.sequence-", "audit.sequence/", "audit.schema.version", "z"])
keys = text | tag_names | around_sequence
int64 = st.integers(-(2**63), 2**63 - 1)
doubles = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | int64 | doubles | text | st.binary(max_size=9)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=8
)
free = st.dictionaries(keys.filter(lambda key: not key.startswith(sc.RESERVED_PREFIXES)), values, max_size=8)
records = st.fixed_dictionaries(
    {
        "event_name": text,
        "timestamp_ns": st.sampled_from([0, 1, NOW, 2**63 - 1]),
        "observed_ns": st.sampled_from([0, 1, NOW, 2**63 - 1]),
        "body": values,
        "attributes": free,
        "trace_id": st.sampled_from(["", TRACE]),
        "span_id": st.sampled_from(["", SPAN]),
    }
)


# -- an encoder of its own ---------------------------------------------------------------------------------------


def tagged(value: Any) -> Any:
    """The tagged value as plain JSON, by isinstance and if: nothing of the encoder under test."""
    if value is None:
        return None
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, bytes):
        return {"bytesValue": base64.standard_b64encode(value).decode("ascii")}
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, dict):
        return {key: tagged(item) for key, item in value.items()}
    return [tagged(item) for item in value]


def oracle(
    event_name: str, timestamp_ns: int, observed_ns: int, body: Any, attributes: Any, trace_id: str, span_id: str
) -> bytes:
    """The canonical form by rfc8785."""
    signed = {key: tagged(value) for key, value in attributes.items() if not key.startswith("audit.integrity.")}
    members = {
        "event_name": event_name or None,
        "timestamp": str(timestamp_ns) if timestamp_ns else None,
        "observed_timestamp": str(observed_ns) if observed_ns else None,
        "attributes": signed or None,
        "trace_id": (trace_id.strip("0") and trace_id) or None,
        "span_id": (span_id.strip("0") and span_id) or None,
        "body": tagged(body),
    }
    return rfc8785.dumps({key: value for key, value in members.items() if value is not None})


def joined(record: dict[str, Any], number: int = 7, previous: str = "ab" * 32, end: bool = False) -> bytes:
    """Head, fragment and tail of a record."""
    head, tail = encode_parts(**record)
    return head + sequence_fragment(number, previous, STREAM, end) + tail


def with_sequence(record: dict[str, Any], number: int = 7, previous: str = "ab" * 32, end: bool = False) -> Any:
    """The same record with the attributes of the chain among the others."""
    chain = {sc.SEQUENCE_STREAM_ID: STREAM, sc.SEQUENCE_NUMBER: number}
    chain |= {sc.SEQUENCE_PREVIOUS_HASH: previous} if previous else {}
    chain |= {sc.SEQUENCE_END: True} if end else {}
    return {**record, "attributes": {**record["attributes"], **chain}}


def record_of(**changes: Any) -> dict[str, Any]:
    """A small record; changes are its members."""
    return {
        "event_name": "user.login", "timestamp_ns": NOW, "observed_ns": NOW, "body": None, "attributes": {},
        "trace_id": "", "span_id": "", **changes,
    }  # fmt: skip


# -- vectors -----------------------------------------------------------------------------------------------------


def _maker() -> Any:
    spec = importlib.util.spec_from_file_location("make_vectors", VECTORS / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _cases() -> list[dict[str, Any]]:
    return json.loads((VECTORS / "jcs-1.json").read_text("ascii"))["cases"]


def _plain(node: dict[str, Any]) -> Any:
    read: dict[str, Callable[[Any], Any]] = {
        "null": lambda _: None,
        "string": str,
        "bool": bool,
        "int": int,
        "double": lambda bits: struct.unpack(">d", bytes.fromhex(bits))[0],
        "bytes": bytes.fromhex,
        "array": lambda items: [_plain(item) for item in items],
        "map": lambda pairs: {key: _plain(item) for key, item in pairs},
    }
    return read[node["type"]](node.get("value"))


@pytest.mark.parametrize("case", _cases(), ids=lambda case: case["name"])
def test_vector(case: dict[str, Any]) -> None:
    """Every published record gives the published bytes and the published hash."""
    record = case["record"]
    form = canonicalize(
        record.get("event_name", ""),
        int(record.get("timestamp", "0")),
        int(record.get("observed_timestamp", "0")),
        _plain(record["body"]) if "body" in record else None,
        {key: _plain(value) for key, value in record.get("attributes", [])},
        record.get("trace_id", ""),
        record.get("span_id", ""),
    )
    assert form == case["canonical"].encode()
    assert hashlib.sha256(form).hexdigest() == case["sha256"]


def test_the_published_file_is_what_its_script_makes() -> None:
    """The file was not edited by hand, and the script not without the file."""
    made = _maker().document()
    assert made == (VECTORS / "jcs-1.json").read_text("ascii")


def test_the_vectors_cover_the_profile() -> None:
    """There are enough of them, with unique names, and every type of the notation occurs."""
    cases = _cases()
    assert len({case["name"] for case in cases}) == len(cases) >= 40
    file = json.dumps(cases)
    for kind in ("string", "bool", "int", "double", "bytes", "null", "array", "map"):
        assert f'"type": "{kind}"' in file


# -- the plain way -----------------------------------------------------------------------------------------------


@given(records, st.dictionaries(st.sampled_from(["audit.integrity.value", "audit.integrity.signer"]), text))
def test_canonicalize_is_rfc8785_of_the_table(record: dict[str, Any], integrity: dict[str, str]) -> None:
    """Against rfc8785 with values tagged by another encoder; signatures never count."""
    record["attributes"] |= integrity
    assert canonicalize(**record) == oracle(**record)


def test_ids_of_zeros_are_left_out() -> None:
    """An id of all zeros is no id."""
    assert canonicalize(**record_of(trace_id="0" * 32, span_id="0" * 16)) == canonicalize(**record_of())


@given(doubles)
def test_numbers_are_rfc8785(value: float) -> None:
    """Any finite double is laid out as ECMAScript does it."""
    assert number(value).encode() == rfc8785.dumps(value).replace(b"-0", b"0" if value == 0 else b"-0")


@given(st.integers(0, 2**64 - 1))
def test_numbers_are_rfc8785_for_any_bits(bits: int) -> None:
    """The same over all bit patterns, where very small and very large ones are as likely as others."""
    (value,) = struct.unpack(">d", struct.pack(">Q", bits))
    if math.isfinite(value):
        assert number(value).encode() == rfc8785.dumps(value)
        assert float(number(value)) == value
    else:
        with pytest.raises(OutsideProfile):
            number(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "0"), (-0.0, "0"), (1e21, "1e+21"), (1e20, "100000000000000000000"), (1e-7, "1e-7"), (1e-6, "0.000001"),
     (100000.0, "100000"), (5e-324, "5e-324"), (-1.5e-9, "-1.5e-9"), (123e18, "123000000000000000000")],
)  # fmt: skip
def test_numbers_at_the_edges(value: float, expected: str) -> None:
    """Where the layout changes."""
    assert number(value) == expected


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_the_escaping_of_strings_is_that_of_rfc8785(value: str) -> None:
    """The C function of the standard library, and msgspec's, escape as RFC 8785 does."""
    expected = rfc8785.dumps(value)
    assert canonical._quoted(value).encode() == expected
    assert encoding._to_json(value) == expected


def test_the_escaping_of_every_character() -> None:
    """The same for each character of Unicode by itself."""
    everything = [chr(code) for code in (*range(0xD800), *range(0xE000, 0x110000))]
    ours = [canonical._quoted(character).encode() for character in everything]
    assert ours == [encoding._to_json(character) for character in everything]
    changed = {
        character: form
        for character, form in zip(everything, ours, strict=True)
        if len(form) != 2 + len(character.encode())
    }
    assert changed == {character: rfc8785.dumps(character) for character in [*map(chr, range(32)), '"', "\\"]}


# -- what is outside ---------------------------------------------------------------------------------------------


class _Color(str, Enum):
    RED = "red"


class _Name(str):
    pass


OUTSIDE: dict[str, Any] = {
    "int of 65 bits": 2**63,
    "int of 65 bits, negative": -(2**63) - 1,
    "nan": math.nan,
    "infinity": math.inf,
    "lone surrogate": "a\udcff",
    "enum that is a string": _Color.RED,
    "subclass of str": _Name("x"),
    "set": {1},
    "object": object(),
    "bytearray": bytearray(b"x"),
    "key that is no string": {1: 2},
    "key with a surrogate": {"\ud800": 1},
    "key of a subclass": {_Name("x"): 1},
}


@pytest.mark.parametrize("value", OUTSIDE.values(), ids=list(OUTSIDE))
@pytest.mark.parametrize("place", ["body", "attribute", "list", "map"])
def test_values_outside_the_profile_are_refused(value: Any, place: str) -> None:
    """Both encoders raise the one exception, wherever the value stands, the first time and the second."""
    body = {"body": value, "attribute": None, "list": [value], "map": {"k": value}}[place]
    record = record_of(body=body, attributes={"k": value} if place == "attribute" else {})
    for encode in (canonicalize, encode_parts, encode_parts):
        with pytest.raises(OutsideProfile):
            encode(**record)


@pytest.mark.parametrize("name", ["event_name", "trace_id", "span_id", "timestamp_ns", "observed_ns"])
@pytest.mark.parametrize("value", [1.5, True, object()])
def test_members_of_a_wrong_type_are_refused(name: str, value: Any) -> None:
    """A name, a time or an id of another type raises the one exception."""
    record = record_of(trace_id=TRACE, span_id=SPAN) | {name: value}
    for encode in (canonicalize, encode_parts):
        with pytest.raises(OutsideProfile):
            encode(**record)


def test_times_beyond_the_profile_are_refused() -> None:
    """A time of 2^63 ns and more would wrap in the Collector."""
    for bad in (2**63, -1):
        with pytest.raises(OutsideProfile):
            canonicalize(**record_of(timestamp_ns=bad))


@pytest.mark.parametrize("name", ["audit.sequence.number", "audit.sequence.", "audit.integrity.value"])
@pytest.mark.parametrize("more", [0, 100])
def test_reserved_names_are_refused_by_the_fast_way(name: str, more: int) -> None:
    """An attribute of the chain or of a signer does not pass, in a remembered shape or in one too large for that."""
    record = record_of(attributes={name: "x", **{f"k{i}": i for i in range(more)}})
    for _ in range(2):
        with pytest.raises(OutsideProfile, match="reserved"):
            encode_parts(**record)


def _deep(levels: int, kind: str) -> Any:
    value: Any = "bottom"
    for _ in range(levels):
        value = [value] if kind == "list" else {"k": value}
    return value


@pytest.mark.parametrize("kind", ["list", "map"])
@pytest.mark.parametrize("more", [0, 100])
def test_depth_is_limited(kind: str, more: int) -> None:
    """Each encoder accepts its limit and not one container more."""
    attributes: dict[str, Any] = {f"k{i}": i for i in range(more)}
    for place in ("body", "attribute"):
        for encode, limit in ((encode_parts, NESTING_MAX), (canonicalize, PROFILE_NESTING_MAX)):
            for levels in (limit, limit + 1):
                value = _deep(levels, kind)
                record = record_of(attributes=attributes | ({"deep": value} if place == "attribute" else {}))
                if place == "body":
                    record["body"] = value
                if levels == limit:
                    encode(**record)
                else:
                    with pytest.raises(OutsideProfile, match="deep"):
                        encode(**record)


def test_the_profile_is_never_128_deep() -> None:
    """Brackets and braces of the deepest form that is written at all stay below the profile's limit."""
    form = canonicalize(**record_of(attributes={"k": _deep(PROFILE_NESTING_MAX, "list")}))
    depth = deepest = 0
    for byte in form:
        depth += (byte in b"{[") - (byte in b"}]")
        deepest = max(deepest, depth)
    assert deepest == 127


def _otlp_accepts(levels: int) -> bool:
    request = ExportLogsServiceRequest()
    attribute = request.resource_logs.add().scope_logs.add().log_records.add().attributes.add()
    attribute.key, value = "k", attribute.value
    for _ in range(levels):
        item = value.kvlist_value.values.add()
        item.key, value = "k", item.value
    value.string_value = "bottom"
    try:
        ExportLogsServiceRequest.FromString(request.SerializeToString())
    except Exception:
        return False
    return True


def test_the_depth_limit_is_that_of_otlp_decoders() -> None:
    """Maps of the limit are read by protobuf, one more is not: a deeper record could never be delivered."""
    assert _otlp_accepts(NESTING_MAX)
    assert not _otlp_accepts(NESTING_MAX + 1)


def test_shared_containers_cannot_explode() -> None:
    """A small object that is huge when it is written out is refused soon."""
    value: Any = [1] * 10
    for _ in range(20):
        value = [value] * 10
    for record in (record_of(body=value), record_of(attributes={"k": value})):
        with pytest.raises(OutsideProfile, match="elements"):
            encode_parts(**record)
    with pytest.raises(OutsideProfile):
        encode_parts(**record_of(body=[None] * (ELEMENTS_MAX + 1)))
    assert encode_parts(**record_of(body=[None] * ELEMENTS_MAX))


def test_errors_do_not_show_values() -> None:
    """The message of a refusal, and of what caused it, may be logged: the value may be personal data."""
    for record in (
        record_of(body="secret\udcff"),
        record_of(attributes={"secret\udcff": 1}),
        record_of(body={"secret"}),
    ):
        with pytest.raises(OutsideProfile) as caught:
            encode_parts(**record)
        assert "secret" not in str(caught.value)


# -- the fast way ------------------------------------------------------------------------------------------------


@given(records, st.integers(1, 2**63 - 1), st.sampled_from(["", "ab" * 32]), st.booleans())
@settings(max_examples=300)
def test_parts_and_fragment_are_the_canonical_form(record: dict[str, Any], n: int, previous: str, end: bool) -> None:
    """Head, sequence and tail together are what the plain encoder writes, twice: without a template and with one."""
    expected = canonicalize(**with_sequence(record, n, previous, end))
    assert joined(record, n, previous, end) == expected
    assert joined(record, n, previous, end) == expected


@given(st.lists(records, min_size=2, max_size=6))
def test_templates_do_not_mix_records_up(several: list[dict[str, Any]]) -> None:
    """Records of changing shapes, one after another and again, each give their own bytes."""
    for record in (*several, *several):
        assert joined(record) == canonicalize(**with_sequence(record))


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 300])
def test_any_number_of_attributes(count: int) -> None:
    """Shapes that are remembered and those that are too large for it give the same kind of bytes."""
    record = record_of(attributes={f"k{i}": "v" for i in range(count)})
    for _ in range(2):
        assert joined(record) == canonicalize(**with_sequence(record))


def test_the_order_of_attributes_does_not_matter() -> None:
    """The same attributes in another order are another shape, and the same bytes."""
    attributes = {"b": "1", "\U0001f600": "2", "\ufb33": "3", "audit.action": "4", "a": 5}
    backwards = dict(reversed(attributes.items()))
    assert encode_parts(**record_of(attributes=attributes)) == encode_parts(**record_of(attributes=backwards))


def test_types_that_compare_equal_are_told_apart() -> None:
    """1, True and 1.0 are equal to a dictionary, and not to the profile."""
    forms = [encode_parts(**record_of(attributes={"k": value})) for value in (1, True, 1.0, "1", 1)]
    assert len(set(forms)) == 4
    assert forms[0] == forms[4]


def test_the_record_is_not_changed() -> None:
    """Neither its attributes nor a container in them."""
    attributes = {"b": [1, {"y": 2, "x": b"3"}], "a": 1}
    before = json.dumps(attributes, default=repr)
    encode_parts(**record_of(attributes=attributes))
    canonicalize(**record_of(attributes=attributes))
    assert json.dumps(attributes, default=repr) == before


def test_the_fragment_needs_no_more_than_its_room() -> None:
    """The longest fragment that a journal writes stays within what is reserved for it."""
    assert len(sequence_fragment(2**63 - 1, "f" * 64, STREAM, end=True)) <= SEQUENCE_BYTES_MAX


def _remembered() -> int:
    return sum(len(order[2]) for orders in (encoding._orders,) for order in orders.values())


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is remembered, and nothing counted."""
    monkeypatch.setattr(encoding, "_remembered", itertools.count(1))
    for orders in (encoding._orders,):
        orders.clear()
    yield
    for orders in (encoding._orders,):
        orders.clear()


@pytest.mark.usefixtures("empty_cache")
def test_memory_is_bounded_over_20000_shapes() -> None:
    """After 20 times the shapes that fill the cache, about as much memory is in use as when it was full first."""

    def memory_after(first: int, end: int) -> int:
        for i in range(first, end):
            encode_parts(**record_of(attributes={"audit.action": "X", f"key-{i:05d}": "v", "n": 1}))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        full = memory_after(0, SHAPES_MAX - 1)
        assert _remembered() == SHAPES_MAX - 1
        after = memory_after(SHAPES_MAX - 1, 21 * SHAPES_MAX - 1)
    finally:
        tracemalloc.stop()
    assert _remembered() <= SHAPES_MAX
    assert after < full * 1.5


@pytest.mark.usefixtures("empty_cache")
def test_memory_is_bounded_over_types_of_one_shape() -> None:
    """The same attributes with ever other types of values count as shapes too."""
    for i in range(3 * SHAPES_MAX):
        attributes = {f"k{bit}": "v" if i >> bit & 1 else 1 for bit in range(12)}
        encode_parts(**record_of(attributes=attributes))
        assert _remembered() <= SHAPES_MAX


@pytest.mark.usefixtures("empty_cache")
def test_large_keys_are_not_remembered() -> None:
    """A thousand shapes of keys of a megabyte would be a gigabyte."""
    for i in range(20):
        encode_parts(**record_of(attributes={f"{i}" + "k" * 100_000: 1}))
        encode_parts(**record_of(attributes={f"{i}-{j}": 1 for j in range(65)}))
    assert _remembered() == 0


@pytest.mark.usefixtures("empty_cache")
def test_threads_do_not_disturb_each_other() -> None:
    """Eight threads over shapes that overflow the cache all the time get the right bytes each time."""
    wrong: list[Any] = []

    def work(seed: int) -> None:
        for i in range(2500):
            record = record_of(
                attributes={"audit.action": "X", f"k{(i * 7 + seed) % 2000}": str(i) if i % 3 else i},
                body=None if i % 2 else f'body "{i}"',
                **({"trace_id": TRACE, "span_id": SPAN} if i % 5 else {}),
            )
            if joined(record) != canonicalize(**with_sequence(record)):
                wrong.append(record)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert _remembered() <= SHAPES_MAX + len(threads)


def test_hostile_keys_are_refused() -> None:
    """A key that raises when it is compared is one more value outside the profile."""

    class Hostile:
        armed = False

        def __hash__(self) -> int:
            if self.armed:
                raise ZeroDivisionError
            return hash("k")

        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError

    key = Hostile()
    attributes: Any = {key: 1}
    for armed in (False, True):
        key.armed = armed
        with pytest.raises(OutsideProfile):
            encode_parts(**record_of(attributes=attributes))


def test_an_interrupt_leaves_nothing_half_done() -> None:
    """A KeyboardInterrupt at any line of the encoder leaves it right for the next record."""
    record = record_of(attributes={"audit.action": "X", "z": 1, "zz": [1]}, body="b", trace_id=TRACE, span_id=SPAN)
    expected = canonicalize(**with_sequence(record))

    def interrupted_at(line: int) -> bool:
        encoding._orders.clear()
        left = line

        def trace(frame: Any, event: str, _: Any) -> Any:
            nonlocal left
            if frame.f_globals.get("__name__") not in (canonical.__name__, encoding.__name__):
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            encode_parts(**record)
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False

    before, line = sys.gettrace(), 1
    try:
        while interrupted_at(line):
            assert joined(record) == expected
            line += 1
    finally:
        sys.settrace(before)
    assert line > 50


# -- back --------------------------------------------------------------------------------------------------------


def as_read(value: Any) -> Any:
    """What a value is after a round trip: tuples are lists, minus zero is zero."""
    if isinstance(value, dict):
        return {key: as_read(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_read(item) for item in value]
    return value


@given(records)
def test_what_is_written_is_read_back(record: dict[str, Any]) -> None:
    """Values come back equal and of the same type."""
    members = decode(joined(record))
    for name, value in record["attributes"].items():
        back = untag(members["attributes"][name])
        assert back == as_read(value)
        assert type(back) is type(as_read(value))
    assert untag(members.get("body")) == as_read(record["body"])
    assert members.get("event_name", "") == record["event_name"]


@pytest.mark.parametrize(
    "value",
    [{"stringValue": "x"}, {"intValue": "7"}, {"intValue": 7}, {"boolValue": True}, {"doubleValue": 1.5},
     {"bytesValue": "AA=="}, {"stringValue": None}, {"stringValue": {"stringValue": "x"}}, {"other": "x"}, {}],
    ids=repr,
)  # fmt: skip
def test_maps_that_look_like_tags_stay_maps(value: Any) -> None:
    """A caller's map is not taken for a tagged scalar."""
    assert untag(json.loads(tagged_text(value))) == value


def test_untag_reads_every_double() -> None:
    """A double that is written like an integer is a double again."""
    for value in (0.0, 1.0, 1e20, 1e21, -5e-324):
        back = untag(json.loads(tagged_text(value)))
        assert type(back) is float
        assert back == value


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'"x"', b"{", b'{"a":1}x', b'{"a":NaN}', b'{"a":\xff}', b'{"a":"\xff"}', b'{"a":' * 9999],
    ids=lambda data: repr(data[:12]),
)  # fmt: skip
def test_what_is_no_canonical_form_raises_value_error(data: bytes) -> None:
    """Damage in a line is one kind of exception, however it looks."""
    with pytest.raises(ValueError, match="canonical form"):
        decode(data)


@pytest.mark.parametrize("value", ["bare", 7, True, 1.5, {"k": "bare"}, ["bare"], {"intValue": True}], ids=repr)
def test_untagged_values_raise_value_error(value: Any) -> None:
    """A bare scalar is not guessed at."""
    with pytest.raises(ValueError, match="untagged"):
        untag(value)
