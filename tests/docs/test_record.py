"""The page about the record has every field, every attribute and every outcome that there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from otel_audit import semconv as sc
from otel_audit.capture import fields
from otel_audit.rules import EVENT_NAME_LENGTH_MAX, ID_LENGTH_MAX, OUTCOME_SYNONYMS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "record.md").read_text(encoding="utf-8")
METRICS = (DOCS / "metrics.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    text = PAGE.split(heading + "\n", 1)[1]
    lines = [line for line in text.split("\n## ")[0].split("\n### ")[0].splitlines() if line.startswith("|")]
    return [re.split(r"\s*\|\s*", line.strip())[1:-1] for line in lines[2:]]


def code(text: str) -> list[str]:
    """What stands in code spans."""
    return re.findall(r"`([^`]+)`", text)


def test_every_field_is_there_under_its_attribute() -> None:
    """Short name and attribute, as the table of the captures has them."""
    shown = {code(row[0])[0]: code(row[1])[:1] for row in table("## Fields") if code(row[0])}
    rows = {name: [field.attribute] for name, field in fields._ROWS.items()}
    assert shown == {**rows, "event_name": [], "body": []}


def test_the_limits_are_the_real_ones() -> None:
    """Of identifiers, actions and event names."""
    limits = {code(row[0])[0]: row[5] for row in table("## Fields") if code(row[0])}
    assert limits["event_name"].endswith(f"at most {EVENT_NAME_LENGTH_MAX}")
    assert limits["action"].endswith(f"at most {ID_LENGTH_MAX}")
    for name, field in fields._ROWS.items():
        if field.kind in ("identifier", "record_id"):
            assert limits[name].startswith(f"1 to {ID_LENGTH_MAX}"), name


def test_every_attribute_of_ours_is_explained() -> None:
    """Each attribute name of the vocabulary that a record may have stands on the page."""
    attributes = {
        value
        for name, value in vars(sc).items()
        if name.isupper()
        and isinstance(value, str)
        and value.startswith(("audit.", "otel_audit.", "exception.", "code.", "thread.", "session.", "user_agent."))
        and not name.startswith(("EVENT_", "TARGET_TYPE_STREAM", "ORIGINAL_"))
        and not value.endswith(".")
    }
    assert {name for name in attributes if f"`{name}`" not in PAGE + METRICS} == set()


def test_every_word_for_an_outcome_is_there() -> None:
    """The words that are mapped, each to its outcome."""
    shown = {word: code(row[0])[0] for row in table("### Outcomes") for word in code(row[1])}
    assert shown == {str(word): outcome for word, outcome in OUTCOME_SYNONYMS.items()}
