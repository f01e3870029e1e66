"""The page about delivery has the answers as the code has them."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import pytest

from otel_audit.errors import BlockedExportError, ExportError, RejectedExportError, RetryableExportError
from otel_audit.exporters.answers import class_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "delivery.md"
CODES = [code.name for code in grpc.StatusCode if code.name != "OK"]


def cells(answer: str) -> list[str]:
    """The cells of an answer's row."""
    text = PAGE.read_text(encoding="utf-8")
    row = re.search(rf"^\| {answer} \|(.*)\|$", text, re.MULTILINE)
    assert row is not None
    return row[1].split("|")


def statuses(answer: str) -> set[int]:
    """The statuses of HTTP in an answer's row."""
    return {int(number) for number in re.findall(r"\b[1-5][0-9]{2}\b", cells(answer)[0])}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [("retry", RetryableExportError), ("refused", RejectedExportError)],
)
def test_the_page_has_every_status_that_is_not_blocked(answer: str, kind: type[ExportError]) -> None:
    """No more and no less."""
    assert statuses(answer) == {status for status in range(100, 600) if class_of(status) is kind}


def test_what_the_page_calls_blocked_is() -> None:
    """As examples of everything else."""
    assert statuses("blocked")
    assert {class_of(status) for status in statuses("blocked")} == {BlockedExportError}


def test_the_page_has_every_code() -> None:
    """Each where it belongs; one of them in two places, because its details decide."""
    found = {answer: set(re.findall(r"`([A-Z_]+)`", cells(answer)[1])) for answer in ("retry", "blocked", "refused")}
    kinds = {"retry": RetryableExportError, "blocked": BlockedExportError, "refused": RejectedExportError}
    for code in CODES:
        answers = [answer for answer, codes in found.items() if code in codes]
        if code == "RESOURCE_EXHAUSTED":
            assert answers == ["retry", "blocked"]
        else:
            assert [kinds[answer] for answer in answers] == [class_of(code)], code
