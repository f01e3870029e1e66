"""The public names of the package: an exact list, so that none comes or goes unnoticed."""

from __future__ import annotations

import inspect
import subprocess
import sys
from types import ModuleType

import pytest

import otel_audit

PUBLIC = [
    # levels
    "AUDIT",
    # what one emits, and what comes back
    "Actor",
    "AuditReceipt",
    "AuditRecord",
    "Outcome",
    "Source",
    "Target",
    # the provider
    "AuditLogger",
    "AuditProvider",
    "FlushResult",
    "Health",
    # capture
    "AuditContextFilter",
    "AuditHandler",
    "AuditLogRecordProcessor",
    "StructlogAuditProcessor",
    # through exporters of OpenTelemetry's SDK
    "SdkExporter",
    # the seams
    "AuditRecordExporter",
    "AuditRecordProcessor",
    "Clock",
    "ExportResult",
    "RecordBatch",
    "StoredRecord",
    # errors
    "AuditError",
    "BlockedExportError",
    "ConfigurationError",
    "DamageError",
    "DeliveryFilteredError",
    "DeliveryRefusedError",
    "DeliveryTimeoutError",
    "EmitError",
    "ExportError",
    "InvalidRecordError",
    "JournalClosedError",
    "JournalError",
    "JournalFullError",
    "JournalSyncError",
    "NotConfiguredError",
    "RejectedExportError",
    "RetryableExportError",
    "UnsafeJournalError",
    # the process-wide provider
    "__version__",
    "aflush",
    "ashutdown",
    "audit_context",
    "check_health",
    "configure",
    "flush",
    "get_audit_logger",
    "shutdown",
    "status",
]
"""A change here is a change of what users may rely on: write it into CHANGELOG.md too."""


def _kind_and_name(name: str) -> tuple[int, str]:
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, name


def test_all_is_exactly_the_public_list() -> None:
    """Nothing more and nothing less is promised than this file says."""
    assert set(otel_audit.__all__) == set(PUBLIC)


def test_all_is_sorted_and_without_doubles() -> None:
    """Constants, then classes, then the rest, each by the alphabet: a new name has one right place."""
    assert list(otel_audit.__all__) == sorted(set(otel_audit.__all__), key=_kind_and_name)


def test_every_public_name_exists() -> None:
    """It is there, also where it is loaded on first use only."""
    missing = [name for name in PUBLIC if getattr(otel_audit, name, None) is None]
    assert missing == []


def test_every_public_name_says_what_it_is() -> None:
    """Classes and functions have a docstring, and are of this package."""
    public = [(name, getattr(otel_audit, name)) for name in PUBLIC]
    objects = [(name, value) for name, value in public if inspect.isclass(value) or inspect.isroutine(value)]
    assert [name for name, value in objects if not inspect.getdoc(value)] == []
    assert [name for name, value in objects if value.__module__.partition(".")[0] != "otel_audit"] == []


def test_nothing_public_is_outside_all() -> None:
    """Every attribute without an underscore is a submodule or in ``__all__``, also after everything was loaded."""
    for name in PUBLIC:
        getattr(otel_audit, name)
    stray = [
        name
        for name, value in vars(otel_audit).items()
        if not name.startswith(("_", "@"))  # pytest puts names with @ into the packages of plugins
        and name not in otel_audit.__all__
        and name not in {"annotations", "TYPE_CHECKING"}
        and not (isinstance(value, ModuleType) and value.__name__ == f"otel_audit.{name}")
    ]
    assert stray == []


def test_dir_shows_the_public_names_before_they_are_loaded() -> None:
    """Completion in an interactive session finds what is loaded on first use."""
    script = "import otel_audit; print(*dir(otel_audit))"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert set(PUBLIC) <= set(shown.stdout.split())


def test_an_unknown_name_is_an_attribute_error() -> None:
    """Loading on first use does not turn a spelling mistake into something else."""
    with pytest.raises(AttributeError, match="no attribute 'configur'"):
        _ = otel_audit.configur


def test_star_import_gives_the_public_names() -> None:
    """``from otel_audit import *`` gives ``__all__``, whole."""
    namespace: dict[str, object] = {}
    exec("from otel_audit import *", namespace)
    assert set(PUBLIC) <= set(namespace)
