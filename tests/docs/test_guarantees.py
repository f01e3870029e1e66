"""The page of guarantees names the test that shows each of them, and each of these tests exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guarantees.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def rows() -> list[str]:
    """The rows of every table whose last column names tests."""
    found: list[str] = []
    within = False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            within = False
        elif line.endswith("| shown by |"):
            within = True
        elif within and not line.startswith("|---"):
            found.append(line)
    return found


@pytest.mark.parametrize("row", rows(), ids=lambda row: re.sub(r"\W+", "-", row.split("|")[1].strip())[:40])
def test_a_guarantee_is_shown_by_a_test(row: str) -> None:
    """Each row names at least one, in its last column, and it is there."""
    named = NAMED.findall(row.split("|")[-2])
    assert named, "name the test as `tests/….py::test_…` in the last column"
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in tests, f"{path} has no test {name}"


def test_the_page_has_all_its_tables() -> None:
    """So that a table that lost its last column is missed."""
    assert len(rows()) >= 31
