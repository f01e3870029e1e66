"""The quick way of reading and the careful one: they say the same of every stream, whatever somebody did to it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_audit.canonical import sequence_fragment
from otel_audit.journal import reader as reader_module
from otel_audit.journal.damage import DamageReport
from otel_audit.journal.line import HEAD_LENGTH, make_line
from otel_audit.journal.place import Expectation
from otel_audit.journal.plain import PlainLines, plain_lines
from otel_audit.journal.reader import StreamReader
from otel_audit.journal.segment import segment_path
from support.journal import make_entry

STREAM = "94a3c522-8e4c-4140-8bf0-731aa36fa370"
NUMBER = b'"audit.sequence.number":{"intValue":"4"}'
ODD = 4


def canonical_form(number: int, previous_hash: str, size: int = 0, *, nested: str | None = None) -> bytes:
    """A record in which a place is named twice more, by maps before and behind the true one."""
    words = {
        "audit.sequence.number": number,
        "audit.sequence.previous_hash": previous_hash if nested is None else nested,
        "audit.sequence.stream_id": STREAM,
    }
    entry = make_entry(f"r-{number}", body="é" * size, aaa=words, zzz=words)
    return entry.head + sequence_fragment(number, previous_hash, STREAM) + entry.tail


def lines(count: int, odd: Callable[[bytes], bytes] = bytes, sizes: Iterable[int] = ()) -> list[bytes]:
    """Lines of a stream; one canonical form is spelt otherwise.  Each hash is right, and the chain whole."""
    made: list[bytes] = []
    previous, lengths = "", iter(sizes)
    for number in range(1, count + 1):
        canonical = canonical_form(number, previous, next(lengths, 0))
        line, previous = make_line(odd(canonical) if number == ODD else canonical)
        made.append(line)
    return made


def a_stream(path: Path, data: bytes) -> Path:
    directory = path / uuid.uuid4().hex / STREAM
    directory.mkdir(parents=True)
    segment_path(directory, 1).write_bytes(data)
    return directory


class Found(NamedTuple):
    """What a reader finds: for each batch its records, and the damage."""

    batches: list[list[tuple[int, str, bytes]]]
    damage: list[DamageReport]
    last: int

    @property
    def sequences(self) -> list[int]:
        return [sequence for batch in self.batches for sequence, _, _ in batch]


def read(
    directory: Path, *, final: bool = True, after: int = 0, records_max: int = 1000, bytes_max: int = 1 << 30
) -> Found:
    reader = StreamReader(directory, after=after)
    batches = []
    while records := reader.read(records_max=records_max, bytes_max=bytes_max, final=final):
        batches.append([(record.sequence, record.sha256, record.canonical) for record in records])
    return Found(batches, reader.damage, reader.last_sequence)


def read_carefully(monkeypatch: pytest.MonkeyPatch, directory: Path, **arguments: int) -> Found:
    """As :func:`read`, each line by ``scan`` and ``_judge``."""
    with monkeypatch.context() as patch:
        patch.setattr(reader_module, "plain_lines", lambda *_: PlainLines([], []))
        return read(directory, **arguments)


def test_whole_lines_are_all_read_the_quick_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of an undamaged stream nothing is left to the careful way."""

    def refuse(*_: object) -> None:
        raise AssertionError("read carefully")

    monkeypatch.setattr(StreamReader, "_judge", refuse)
    directory = a_stream(tmp_path, b"".join(lines(500, sizes=[0, 40, 9000, 1])))
    for after in (0, 3, 77):
        for records_max in (1, 7, 1000):
            assert read(directory, after=after, records_max=records_max).sequences == list(range(after + 1, 501))


READ, NEWLINE, FOREIGN = (True, []), (True, ["newline"]), (False, ["foreign", "hole"])
SPELLINGS: dict[str, tuple[Callable[[bytes], bytes], tuple[bool, list[str]]]] = {
    "a space": (lambda c: c.replace(NUMBER, NUMBER.replace(b":", b": ")), READ),
    "a space at the end": (lambda c: c + b" ", READ),
    "a newline between two tokens": (lambda c: c.replace(b"," + NUMBER, b"\n," + NUMBER), NEWLINE),
    "a newline at the end": (lambda c: c + b"\n", NEWLINE),
    "the number twice": (lambda c: c.replace(NUMBER, NUMBER + b"," + NUMBER), READ),
    "another number before it": (lambda c: c.replace(NUMBER, NUMBER.replace(b"4", b"9") + b"," + NUMBER), READ),
    "another number behind it": (lambda c: c.replace(NUMBER, NUMBER + b"," + NUMBER.replace(b"4", b"9")), FOREIGN),
    "the attributes twice": (lambda c: c[:-1] + b',"attributes":{}}', FOREIGN),
    "an escape in a name": (lambda c: c.replace(NUMBER, NUMBER.replace(b"u", b"\\u0075")), READ),
    "an escape in a value": (lambda c: c.replace(NUMBER, NUMBER.replace(b'"4"', b'"\\u0034"')), READ),
    "a number with a zero": (lambda c: c.replace(NUMBER, NUMBER.replace(b'"4"', b'"04"')), READ),
    "a number with a space": (lambda c: c.replace(NUMBER, NUMBER.replace(b'"4"', b'" 4"')), READ),
    "a number that is none": (lambda c: c.replace(NUMBER, NUMBER.replace(b'"4"', b'"four"')), FOREIGN),
    "a number without quotes": (lambda c: c.replace(NUMBER, NUMBER.replace(b'"4"', b"4")), FOREIGN),
    "a number with more in it": (lambda c: c.replace(NUMBER, NUMBER.replace(b'"4"', b'"4","x":1')), FOREIGN),
    "only nested": (lambda c: c.replace(b"," + NUMBER, b""), FOREIGN),
    "another stream": (lambda c: c.replace(STREAM.encode(), b"another"), FOREIGN),
    "text that is not UTF-8": (lambda c: c.replace(b"r-4", b"r-\xff"), READ),
    "a name that is not UTF-8": (lambda c: c.replace(b'"aaa"', b'"a\xff"'), READ),
    "a control character": (lambda c: c.replace(b"r-4", b"r-\x01"), FOREIGN),
    "half a surrogate": (lambda c: c.replace(b"r-4", b"r-\\ud800"), FOREIGN),
    "cut short": (lambda c: c[:-1], FOREIGN),
    "two values": (lambda c: c + b"{}", FOREIGN),
    "very deep": (lambda _: b"[" * 100_000, FOREIGN),
    "no record": (lambda _: b"null", FOREIGN),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_record_that_is_spelt_otherwise_is_judged_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    """The hash is right, and what is in it says the same in other bytes, or something else, or nothing."""
    spell, (wanted, kinds) = SPELLINGS[name]
    directory = a_stream(tmp_path, b"".join(lines(6, spell)))
    found = read(directory)
    assert found.sequences == [1, 2, 3, *([ODD] if wanted else []), 5, 6]
    assert [report.kind for report in found.damage] == kinds
    assert read_carefully(monkeypatch, directory) == found


def test_a_place_that_only_a_nested_map_names_is_not_read_quickly():
    """Text inside a value may look like the chain's own attributes."""
    made = lines(2)
    follows = made[1][11:75].decode()
    for claimed, nested, count in ((follows, "e" * 64, 3), ("e" * 64, follows, 2)):
        line, _ = make_line(canonical_form(3, claimed, nested=nested))
        assert sequence_fragment(3, follows, STREAM) in line
        data = b"".join([*made, line])
        assert len(plain_lines(data, 0, Expectation(STREAM, ""), 1, 10).hashes) == count


def test_after_a_gap_a_record_may_follow_any_but_has_to_be_the_next_of_this_stream():
    """The hash of the one before is not known then; the number and the stream are."""
    made = lines(5)
    data = b"".join(made[2:])
    assert len(plain_lines(data, 0, Expectation(STREAM, ""), 3, 10).hashes) == 3
    for stream, previous, number in ((STREAM, "", 2), (STREAM, "", 4), ("another", "", 3), (STREAM, "0" * 64, 3)):
        assert plain_lines(data, 0, Expectation(stream, previous), number, 10).hashes == []


@pytest.mark.parametrize("place", [*range(HEAD_LENGTH), -2, -1])
def test_every_byte_of_a_lines_frame_counts(place: int):
    """Another byte in a line's head, its brace or its newline: the quick way ends before it."""
    made = lines(5)
    changed = bytearray(made[2])
    changed[place] ^= 1
    data = b"".join([*made[:2], bytes(changed), *made[3:]])
    found = plain_lines(data, 0, Expectation(STREAM, ""), 1, 10)
    assert found.canonicals == [line[HEAD_LENGTH:-2] for line in made[:2]]
    assert [digest.encode() for digest in found.hashes] == [line[11:75] for line in made[:2]]


def damaged(draw: st.DrawFn, made: list[bytes]) -> bytes:
    """Lines, with a few things done to them."""
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(made) - 1))
        line = made[place]
        other = draw(st.integers(0, len(made) - 1))
        match draw(st.integers(0, 6)):
            case 0:
                made[place] = line[:-1]
            case 1:
                made[place], made[other] = made[other], line
            case 2:
                made.insert(other, line)
            case 3:
                del made[place : other + 1]
                made.append(line)
            case 4:
                made.insert(place, draw(st.sampled_from([b"\n", b"\n\n", b" ", b"noise\n", line[:11], bytes(3000)])))
            case 5:
                made[place] = line.replace(b'":', draw(st.sampled_from([b'": ', b'" :', b'":\n'])), 1)
            case _:
                made[place] = line[:-2] + b',"more":1}\n'
    data = bytearray(b"".join(made))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.integers(0, 2)):
            case 0:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                stop = min(at + draw(st.integers(1, 2000)), len(data))
                data[at:stop] = bytes(stop - at)
            case _:
                del data[at : at + draw(st.integers(1, 2000))]
    return bytes(data)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    spell, _ = SPELLINGS[draw(st.sampled_from(sorted(SPELLINGS)))]
    sizes = draw(st.lists(st.sampled_from([0, 0, 0, 20, 700, 30_000]), max_size=6))
    return damaged(draw, lines(draw(st.integers(5, 40)), spell if draw(st.booleans()) else bytes, sizes))


ARGUMENTS = st.fixed_dictionaries(
    {
        "final": st.booleans(),
        "after": st.integers(0, 12),
        "records_max": st.sampled_from([1, 2, 7, 1000]),
        "bytes_max": st.sampled_from([1, 900, 5000, 1 << 30]),
    }
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(streams(), ARGUMENTS, st.sampled_from([1000, 1 << 20]))
def test_both_ways_find_the_same_whatever_is_done_to_a_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, arguments: dict[str, int], chunk: int
):
    """The same records in the same batches, and the same damage at the same places."""
    directory = a_stream(tmp_path, data)
    with monkeypatch.context() as patch:
        patch.setattr(reader_module, "CHUNK_BYTES", chunk)
        assert read(directory, **arguments) == read_carefully(monkeypatch, directory, **arguments)
