"""Whether bytes are a canonical form: the plain way and the grammars say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_audit.canonical import canonicalize
from otel_audit.proof import canonicity
from otel_audit.proof.canonicity import GRAMMARS_MAX, SIGHTS, is_canonical

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
NOW = 1_767_225_600_000_000_123


@pytest.fixture(autouse=True)
def nothing_is_known() -> Iterator[None]:
    """Each test begins without grammars."""
    canonicity._grammars.clear()
    canonicity._seen.clear()
    yield
    canonicity._grammars.clear()
    canonicity._seen.clear()


def form(
    attributes: dict[str, Any], body: Any = None, *, event_name: str = "user.login", at: int = NOW, trace: bool = False
) -> bytes:
    return canonicalize(event_name, at, at, body, attributes, *((TRACE, SPAN) if trace else ("", "")))


ATTRIBUTES = {"audit.actor.id": "u-42", "count": 7, "done": True, "empty": "", "none": None, 'na"me\\{}': "é"}


def learn(**shape: Any) -> None:
    """Have the grammar of a shape made."""
    for _ in range(SIGHTS):
        assert is_canonical(form(ATTRIBUTES, **shape))
    assert canonicity._grammars


@pytest.mark.parametrize("body", [None, "text", 5, False])
@pytest.mark.parametrize("trace", [False, True])
def test_a_grammar_takes_what_the_plain_way_takes(body: Any, trace: bool) -> None:
    """Once a shape is known, its records are taken by the grammar alone, whatever their plain values are."""
    learn(body=body, trace=trace)
    grammar = canonicity._grammars[0]
    other = {**ATTRIBUTES, "audit.actor.id": "somebody é else", "count": -12, "done": False, "empty": "{}:[],"}
    assert grammar.fullmatch(form(other, body=body, trace=trace))
    assert is_canonical(form(other, body=body, trace=trace))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"7"', b'"07"'),
        (b'"7"', b'"-0"'),
        (b'"7"', b'"+7"'),
        (b'"7"', b'"9223372036854775808"'),
        (b'"7"', b"7"),
        (b"true", b"True"),
        (b"u-42", b"u-\\u0034"),
        (b"u-42", b"u-\n"),
        (b"u-42", b"u-\xff"),
        (b"u-42", b"u-\xed\xa0\x80"),
        (b"u-42", b"u-\\/"),
        (b'{"attributes"', b'{ "attributes"'),
        (b'"user.login"', b'""'),
        (b'"timestamp":"1767225600000000123"', b'"timestamp":"01767225600000000123"'),
        (b'"timestamp":"1767225600000000123"', b'"timestamp":"0"'),
        (b'"timestamp":"1767225600000000123"', b'"timestamp":"9767225600000000123"'),
        (TRACE.encode(), TRACE.upper().encode()),
        (TRACE.encode(), b"0" * 32),
        (SPAN.encode(), b"0" * 16),
        (b"null}", b"null,}"),
        (b'"count":{"intValue":"7"},', b'"count":{"intValue":"7"},"count":{"intValue":"7"},'),
        (b'"count":{"intValue":"7"},"done":{"boolValue":true}', b'"done":{"boolValue":true},"count":{"intValue":"7"}'),
    ],
)
@pytest.mark.parametrize("known", [False, True])
def test_one_other_spelling_is_not_canonical(old: bytes, new: bytes, known: bool) -> None:
    """What says the same in other bytes is refused, whether the shape is known or not; ids are what they are."""
    data = form(ATTRIBUTES, trace=True)
    assert old in data
    spoilt = data.replace(old, new, 1)
    if known:
        learn(trace=True)
    assert is_canonical(spoilt) is (new == TRACE.upper().encode())


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["a", "b.c", "audit.x", "é", "z{}"]),
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.floats(allow_nan=False)
        | st.binary() | st.lists(st.text(), max_size=2),
        max_size=5,
    ),
    st.none() | st.text() | st.dictionaries(st.text(), st.text(), max_size=2),
    st.integers(1, 2**63 - 1),
)  # fmt: skip
def test_every_canonical_form_is_one(attributes: dict[str, Any], body: Any, at: int) -> None:
    """Whatever ``canonicalize`` writes is canonical, however often it comes."""
    try:
        data = form(attributes, body, at=at)
    except ValueError:
        return
    assert all(is_canonical(data) for _ in range(SIGHTS + 2))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_changed_byte_is_judged_alike(data: st.DataObject) -> None:
    """A grammar never takes bytes that the plain way refuses."""
    learn(trace=True)
    whole = form(ATTRIBUTES, trace=True)
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:place] + bytes([data.draw(st.integers(0, 255))]) + whole[place + data.draw(st.integers(0, 2)) :]
    quick = is_canonical(changed)
    try:
        changed.decode()
    except UnicodeDecodeError:
        assert not quick
    else:
        assert quick is canonicity._is_derived(changed)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"attributes":{}}', b'{"other":"x"}', b'{"body":null}'])
def test_what_is_no_canonical_form_is_none(data: bytes) -> None:
    """Bytes that are no record are refused; the empty record is written ``{}``."""
    assert is_canonical(data) is (data == b"{}")


def test_what_is_remembered_is_bounded() -> None:
    """The grammars that were used last stay, in that order."""
    for number in range(GRAMMARS_MAX + 4):
        for _ in range(SIGHTS):
            assert is_canonical(form({f"name{number}": "x"}))
    assert len(canonicity._grammars) == GRAMMARS_MAX
    for number in range(5000):
        is_canonical(form({f"once{number}": "x"}))
    assert len(canonicity._seen) <= canonicity._SEEN_MAX
    assert is_canonical(form({f"name{GRAMMARS_MAX}": "y"}))
    assert re.compile(rb"name16").search(canonicity._grammars[0].pattern)
