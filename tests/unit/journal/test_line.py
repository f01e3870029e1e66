"""The line, and finding whole lines after damage."""

from __future__ import annotations

import hashlib
import json

import pytest

from otel_audit.canonical import sequence_fragment
from otel_audit.journal.line import HEAD_LENGTH, LINE_OVERHEAD, MARKER, Damage, Line, make_line, scan
from support.journal import make_entry


def lines(count: int) -> list[bytes]:
    """Whole lines of a stream."""
    made = []
    for number in range(1, count + 1):
        entry = make_entry(f"r-{number}")
        made.append(make_line(entry.head + sequence_fragment(number, "", "s") + entry.tail)[0])
    return made


def test_a_line_is_json_whose_hash_is_of_exactly_its_inner_bytes():
    """Anybody can check a line: bytes 86 to the last two are what was hashed, and they are the record."""
    (line,) = lines(1)
    parsed = json.loads(line)
    assert parsed["sha256"] == hashlib.sha256(line[86:-2]).hexdigest()
    assert json.loads(line[86:-2]) == parsed["record"]
    assert list(parsed) == ["sha256", "record"]
    assert line.endswith(b"}\n")
    assert len(line) == len(line[86:-2]) + LINE_OVERHEAD
    assert HEAD_LENGTH == 86


def test_nothing_of_a_line_stands_outside_its_hash():
    """Changing any byte of a line, but its newline, makes it no line."""
    (line,) = lines(1)
    for place in range(len(line) - 1):
        changed = bytearray(line)
        changed[place] ^= 1
        assert not any(isinstance(item, Line) for item in scan(bytes(changed), final=True)), place


def test_the_marker_cannot_occur_inside_a_record():
    """Whatever a caller puts into a record, the beginning of a line is not among it."""
    for body in ({"sha256": "x"}, {"sha256": {"record": 1}}, '{"sha256":"', [{"sha256": ""}], {'{"sha256":"': 1}):
        entry = make_entry(body=body, sha256="y")
        line, _ = make_line(entry.head + sequence_fragment(1, "", "s") + entry.tail)
        assert line.count(MARKER) == 1


def test_lines_are_found_with_their_offsets():
    """Offsets are those in the segment, wherever the data begins."""
    made = lines(3)
    found = list(scan(b"".join(made), 1000, final=True))
    assert [(item.start, item.stop) for item in found] == [
        (1000, 1000 + len(made[0])),
        (1000 + len(made[0]), 1000 + len(made[0]) + len(made[1])),
        (1000 + len(made[0]) + len(made[1]), 1000 + sum(map(len, made))),
    ]
    assert all(isinstance(item, Line) and item.newline for item in found)


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_in_a_newline_costs_no_record(bit: int):
    """The next line is found by its marker, also where the newline before it is not one any more."""
    made = lines(4)
    data = bytearray(b"".join(made))
    data[len(made[0]) - 1] ^= 1 << bit
    data[len(made[0]) + len(made[1]) - 1] ^= 1 << bit
    found = list(scan(bytes(data), final=True))
    assert [item.canonical for item in found if isinstance(item, Line)] == [line[86:-2] for line in made]
    assert [item.newline for item in found if isinstance(item, Line)] == [False, False, True, True]
    assert not [item for item in found if isinstance(item, Damage)]


def test_a_missing_newline_costs_no_record():
    """A line that lost its newline altogether is found between its neighbours, and at the end."""
    made = lines(2)
    found = list(scan(made[0][:-1] + made[1][:-1], final=True))
    assert [item.canonical for item in found] == [line[86:-2] for line in made]
    assert [item.newline for item in found] == [False, False]
    assert [(item.start, item.stop) for item in found] == [
        (0, len(made[0]) - 1),
        (len(made[0]) - 1, sum(map(len, made)) - 2),
    ]


def test_an_unfinished_tail_is_left_alone_until_nothing_can_follow():
    """While somebody may be writing, a part of a line is neither a line nor damage, whatever its length."""
    made = lines(2)
    for length in range(1, len(made[1])):
        data = made[0] + made[1][:length]
        assert list(scan(data, final=False)) == list(scan(made[0], final=False))
        first, last = scan(data, final=True)
        assert isinstance(first, Line)
        if length == len(made[1]) - 1:
            assert isinstance(last, Line)
            assert not last.newline
        else:
            assert last == Damage(len(made[0]), len(data))


def test_noise_between_lines_is_damage_and_the_lines_are_found():
    """Bytes that are no line are reported with their offsets, before, between and behind lines."""
    made = lines(2)
    data = b"noise\n" + made[0] + b"\x00" * 50 + made[1] + b"more"
    found = list(scan(data, final=True))
    assert [item for item in found if isinstance(item, Damage)] == [
        Damage(0, 6),
        Damage(6 + len(made[0]), 56 + len(made[0])),
        Damage(56 + len(made[0]) + len(made[1]), len(data)),
    ]
    assert [item.canonical for item in found if isinstance(item, Line)] == [line[86:-2] for line in made]
