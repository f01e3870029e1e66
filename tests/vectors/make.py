"""Writes jcs-1.json, the published test vectors of profile ``jcs/1``.

It does not use the package: values are tagged here, and the library ``rfc8785`` writes the JSON.  So the file checks
the package as it checks any other implementation.

    python tests/vectors/make.py            prints the file
    python tests/vectors/make.py --write    replaces it
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import sys
from pathlib import Path
from typing import Any

import rfc8785

FILE = Path(__file__).with_name("jcs-1.json")

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
TIME = "1767225600000000000"
UUID = "5f0c1c5e-7f0a-4a53-9a4f-0d8d7c1b2a3e"


# -- the notation of values ----------------------------------------------------------------------------------------


def string(value: str) -> dict[str, Any]:
    return {"type": "string", "value": value}


def boolean(value: bool) -> dict[str, Any]:
    return {"type": "bool", "value": value}


def integer(value: int) -> dict[str, Any]:
    return {"type": "int", "value": str(value)}


def double(value: float) -> dict[str, Any]:
    return {"type": "double", "value": struct.pack(">d", value).hex()}


def octets(value: bytes) -> dict[str, Any]:
    return {"type": "bytes", "value": value.hex()}


def array(*values: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "value": list(values)}


def mapping(*pairs: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return {"type": "map", "value": [list(pair) for pair in pairs]}


NULL = {"type": "null"}


def tagged(node: dict[str, Any]) -> Any:
    """The tagged value of a node of the notation."""
    kind, value = node["type"], node.get("value")
    if kind == "null":
        return None
    if kind == "array":
        return [tagged(item) for item in value]
    if kind == "map":
        return {key: tagged(item) for key, item in value}
    if kind == "double":
        (number,) = struct.unpack(">d", bytes.fromhex(value))
        return {"doubleValue": number}
    if kind == "bytes":
        return {"bytesValue": base64.b64encode(bytes.fromhex(value)).decode()}
    return {{"string": "stringValue", "bool": "boolValue", "int": "intValue"}[kind]: value}


def canonical(record: dict[str, Any]) -> bytes:
    """The canonical form of a record of the notation."""
    members: dict[str, Any] = {}
    if record.get("event_name"):
        members["event_name"] = record["event_name"]
    if "body" in record:
        members["body"] = tagged(record["body"])
    for member in ("timestamp", "observed_timestamp"):
        if record.get(member, "0") != "0":
            members[member] = record[member]
    for member in ("trace_id", "span_id"):
        if record.get(member, "").strip("0"):
            members[member] = record[member]
    attributes = {
        key: tagged(value) for key, value in record.get("attributes", []) if not key.startswith("audit.integrity.")
    }
    if attributes:
        members["attributes"] = attributes
    return rfc8785.dumps(members)


# -- the cases -----------------------------------------------------------------------------------------------------

MANDATORY = [
    ["audit.record.id", string(UUID)],
    ["audit.actor.id", string("u-42")],
    ["audit.actor.type", string("user")],
    ["audit.action", string("LOGIN")],
    ["audit.outcome", string("success")],
]
FIRST = [
    ["audit.sequence.stream_id", string("0e4a4a68-53c8-4a0f-8f0f-9a2b3c4d5e6f")],
    ["audit.sequence.number", integer(1)],
]
LATER = [*FIRST[:1], ["audit.sequence.number", integer(7)], ["audit.sequence.previous_hash", string("ab" * 32)]]
COMMON = {"event_name": "user.login", "timestamp": TIME, "observed_timestamp": "1767225600000000123"}


def cases() -> list[tuple[str, dict[str, Any]]]:
    """Name and record of each case."""
    return [*records(), *members(), *values(), *strings(), *doubles(), *containers()]


def records() -> list[tuple[str, dict[str, Any]]]:
    """Whole records, as a journal has them."""
    target = [["audit.target.type", string("document")], ["audit.target.id", string("document:7")]]
    everything = {
        **COMMON,
        "body": string("Reader opened the document"),
        "attributes": [*MANDATORY, *LATER, *target, ["audit.schema.version", string("0.1")], ["attempt", integer(2)]],
        "trace_id": TRACE,
        "span_id": SPAN,
    }
    return [
        ("empty record", {}),
        ("first record of a stream", {**COMMON, "attributes": [*MANDATORY, *FIRST]}),
        ("later record of a stream", {**COMMON, "attributes": [*MANDATORY, *LATER]}),
        ("last record of a stream", {**COMMON, "attributes": [*LATER, ["audit.sequence.end", boolean(True)]]}),
        ("everything", everything),
        ("everything, severity is not there", {**everything, "severity_number": 9, "severity_text": "INFO"}),
        (
            "everything, audit.integrity.* left out",
            {
                **everything,
                "attributes": [
                    *everything["attributes"],
                    ["audit.integrity.value", string("AAAA")],
                    ["audit.integrity.signer", string("collector")],
                ],
            },
        ),
        ("only audit.integrity.*: no attributes", {"attributes": [["audit.integrity.value", string("AAAA")]]}),
        ("a longer name is not under the prefix", {"attributes": [["audit.integrity", string("kept")]]}),
    ]


def members() -> list[tuple[str, dict[str, Any]]]:
    """Each member by itself, and when it is left out."""
    return [
        ("event name", {"event_name": "user.login"}),
        ("empty event name left out", {"event_name": ""}),
        ("event name escaped", {"event_name": 'a"b\\c'}),
        ("body", {"body": string("text")}),
        ("empty body kept", {"body": string("")}),
        ("timestamps", {"timestamp": TIME, "observed_timestamp": "1"}),
        ("largest timestamp", {"timestamp": str(2**63 - 1), "observed_timestamp": str(2**63 - 1)}),
        ("zero timestamps left out", {"timestamp": "0", "observed_timestamp": "0"}),
        ("trace and span id", {"trace_id": TRACE, "span_id": SPAN}),
        ("trace id without span id", {"trace_id": TRACE}),
        ("all-zero ids left out", {"trace_id": "0" * 32, "span_id": "0" * 16}),
        ("no attributes: member left out", {"attributes": []}),
        ("empty attribute name", {"attributes": [["", string("x")]]}),
    ]


def attribute(name: str, value: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return name, {"attributes": [["k", value]]}


def values() -> list[tuple[str, dict[str, Any]]]:
    """Each scalar, as an attribute and as a body."""
    scalars = [
        ("string", string("text")),
        ("empty string", string("")),
        ("true", boolean(True)),
        ("false", boolean(False)),
        ("int 0", integer(0)),
        ("int -1", integer(-1)),
        ("int 2^53 + 1", integer(2**53 + 1)),
        ("largest int64", integer(2**63 - 1)),
        ("smallest int64", integer(-(2**63))),
        ("null", NULL),
        ("empty bytes", octets(b"")),
        ("1 byte, padded twice", octets(b"\xff")),
        ("2 bytes, padded once", octets(b"\xfb\xff")),
        ("3 bytes, standard alphabet", octets(b"\xfb\xef\xff")),
        ("all bytes", octets(bytes(range(256)))),
    ]
    bodies = [("body int", integer(7)), ("body bytes", octets(b"\x00")), ("body true", boolean(True))]
    return [attribute(*pair) for pair in scalars] + [(name, {"body": value}) for name, value in bodies]


def strings() -> list[tuple[str, dict[str, Any]]]:
    """What RFC 8785 escapes, and what it does not."""
    return [
        attribute("control characters", string("".join(map(chr, range(32))))),
        attribute("quote, backslash, solidus", string('"\\/')),
        attribute("delete and C1 are not escaped", string("\x7f\x80\x9f")),
        attribute("line and paragraph separator are not escaped", string("\u2028\u2029")),
        attribute("non-ASCII", string("Zürich, 東京, \u0600")),
        attribute("emoji", string("\U0001f600")),
        attribute("noncharacters", string("\ufffe\uffff\U0010ffff")),
        attribute("composed and decomposed stay as they are", string("\u00e9 e\u0301")),
        attribute("markup is not escaped", string("<script>&'")),
        (
            "keys escaped",
            {"attributes": [['"', string("quote")], ["\\", string("backslash")], ["\n", string("line feed")]]},
        ),
        (
            "keys by UTF-16 code unit: emoji before U+FB33",
            {
                "attributes": [
                    ["\ufb33", string("U+FB33")],
                    ["\U0001f600", string("U+1F600")],
                    ["\u20ac", string("U+20AC")],
                    ["\r", string("U+000D")],
                    ["1", string("U+0031")],
                    ["\u00f6", string("U+00F6")],
                    ["\x80", string("U+0080")],
                ]
            },
        ),
        (
            "keys: a prefix stands before the longer one, upper case before lower",
            {"attributes": [["ab", NULL], ["a", NULL], ["B", NULL], ["a.b", NULL], ["a-b", NULL], ["a_b", NULL]]},
        ),
        (
            "keys around audit.sequence.",
            {
                "attributes": [
                    ["audit.sequence0", NULL], ["audit.sequence", NULL], ["audit.sequence-", NULL], *LATER,
                    ["audit.sequence/", NULL], ["zone", NULL], ["Zone", NULL],
                ]
            },
        ),
    ]  # fmt: skip


def doubles() -> list[tuple[str, dict[str, Any]]]:
    """Doubles whose layout differs between languages."""
    numbers = [
        0.0, -0.0, 1.0, -1.5, 0.1, 100000.0, 1e15, 1e16, 123456789012345680.0, 1e20, 1e21, -1e21, 1.5e300,
        1.7976931348623157e308, 5e-324, 2.2250738585072014e-308, 1e-5, 1e-6, 1.25e-6, 1e-7, -1.5e-7, 1 / 3,
        333333333.3333333, 9007199254740993.0, 4.35, 0.000123, 999999999999999900000.0,
    ]  # fmt: skip
    return [attribute(f"double {number!r}", double(number)) for number in numbers]


def containers() -> list[tuple[str, dict[str, Any]]]:
    """Arrays and maps, which are bare."""
    inner = mapping(("b", array(integer(1), NULL, mapping(("y", string("z"))))), ("a", boolean(False)))
    deep = string("bottom")
    for level in range(31):
        deep = array(deep) if level % 2 else mapping(("k", deep))
    return [
        attribute("empty array", array()),
        attribute("empty map", mapping()),
        attribute(
            "array of every type", array(string("s"), boolean(True), integer(1), double(1.0), octets(b"b"), NULL)
        ),
        attribute("array of arrays", array(array(), array(array(integer(1))))),
        attribute("nested map, sorted on every level", inner),
        attribute("map keys by UTF-16 code unit", mapping(("\ufb33", NULL), ("\U0001f600", NULL))),
        attribute("map that looks like a tagged string", mapping(("stringValue", string("x")))),
        attribute("map that looks like a tagged int", mapping(("intValue", string("7")))),
        attribute("map that looks like a tagged null", mapping(("stringValue", NULL))),
        attribute("map with several tags", mapping(("stringValue", string("x")), ("intValue", integer(7)))),
        attribute("map with a reserved name inside", mapping(("audit.integrity.value", string("kept")))),
        ("body map", {"body": inner}),
        ("body empty map", {"body": mapping()}),
        ("body empty array", {"body": array()}),
        attribute("31 containers deep", deep),
    ]


def document() -> str:
    """The text of the file."""
    vectors = []
    for name, record in cases():
        form = canonical(record)
        digest = hashlib.sha256(form).hexdigest()
        vectors.append({"name": name, "record": record, "canonical": form.decode(), "sha256": digest})
    return json.dumps({"profile": "jcs/1", "cases": vectors}, indent=1) + "\n"


if __name__ == "__main__":
    if "--write" in sys.argv:
        FILE.write_text(document(), encoding="ascii")
    else:
        print(document(), end="")
