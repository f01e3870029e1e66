"""Comments that leave a finding as it is, and those that are themselves findings."""

from __future__ import annotations

import pytest

from otel_audit.collector.finding import Finding
from otel_audit.collector.lint import Source, lint

CONFIG = """\
receivers:
  otlp/audit: {{protocols: {{http: {{}}}}}}
processors:
  memory_limiter: {{check_interval: 1s, limit_mib: 512}}
exporters:
  file/audit:
    path: /var/lib/otelcol-audit/audit.jsonl
    rotation:{after_rotation}
{before}
      max_backups: 5{after}
service:
  pipelines:
    logs/audit: {{receivers: [otlp/audit], processors: [memory_limiter], exporters: [file/audit]}}
"""


def look(*, after_rotation: str = "", before: str = "", after: str = "") -> list[Finding]:
    """Findings in a configuration whose ``max_backups`` deletes files, with comments around it."""
    text = CONFIG.format(after_rotation=after_rotation, before=before, after=after)
    (linted,) = lint([[Source("config.yaml", text)]], {})
    return linted.findings


def test_without_a_comment_it_is_found() -> None:
    """The control of this file."""
    assert [(each.rule, each.ignored) for each in look()] == [("file-deleted", "")]


@pytest.mark.parametrize(
    "where",
    [
        {"after": "  # otel-audit: ignore file-deleted: archived"},
        {"before": "      # otel-audit: ignore file-deleted: archived"},
        {"before": "      # otel-audit: ignore file-deleted: archived\n      # more words\n"},
        {"before": "# otel-audit ignore file-deleted: archived"},
    ],
)
def test_a_comment_with_a_reason_leaves_it(where: dict[str, str]) -> None:
    """At the end of the line, or on lines of their own before it, whatever comments stand between."""
    assert [(each.rule, each.ignored) for each in look(**where)] == [("file-deleted", "archived")]


@pytest.mark.parametrize(
    ("where", "rules"),
    [
        ({"after": "  # otel-audit: ignore file-deleted"}, ["file-deleted", "suppression-without-reason"]),
        ({"after": "  # otel-audit: ignore file-deleted:  "}, ["file-deleted", "suppression-without-reason"]),
        ({"after": "  # otel-audit: ignore"}, ["file-deleted", "suppression-unknown-rule"]),
        ({"after": "  # otel-audit: ignore file-deletd: why"}, ["file-deleted", "suppression-unknown-rule"]),
        ({"after_rotation": "  # otel-audit: ignore file-deleted: why"}, ["file-deleted", "suppression-unused"]),
        ({"after": "  # otel-audit: ignore file-append: why"}, ["file-deleted", "suppression-unused"]),
        ({"after": "  # otel-audit: ignore file-deleted, file-append: why"}, ["suppression-unused"]),
        ({"after": "  # Otel-audit might ignore file-deleted: why"}, ["file-deleted"]),
    ],
)
def test_other_comments_do_not(where: dict[str, str], rules: list[str]) -> None:
    """Without reason, with an unknown rule, on another line, for another rule: it stays, and the comment is found."""
    assert sorted(each.rule for each in look(**where) if not each.ignored) == rules


def test_a_number_sign_within_a_value_is_no_comment() -> None:
    """Neither in quotes nor in a block of text."""
    quoted = '"# otel-audit: ignore file-deleted"'
    block = f"    header: {quoted}\n    text: |\n      # otel-audit: ignore file-deleted: no\n    rotation:"
    text = CONFIG.format(after_rotation="", before="", after="").replace("    rotation:", block)
    (linted,) = lint([[Source("config.yaml", text)]], {})
    assert [each.rule for each in linted.findings] == ["file-deleted"]


def test_comments_of_every_merged_file_count() -> None:
    """A comment is about its own file."""
    text = CONFIG.format(after_rotation="", before="", after="")
    over = (
        "exporters:\n  file/audit:\n    rotation:\n      max_backups: 6  # otel-audit: ignore file-deleted: archived\n"
    )
    (linted,) = lint([[Source("base.yaml", text), Source("over.yaml", over)]], {})
    assert [(each.rule, each.place.file, each.ignored) for each in linted.findings] == [
        ("file-deleted", "over.yaml", "archived")
    ]
