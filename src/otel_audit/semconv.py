"""Every attribute name, once.

Follows the OpenTelemetry Audit Logging draft (OTEP 0267, ``specification/audit/data-model.md`` at
revision ``2684d80``, with the sequence attributes of its newer revisions).  The draft moves; nothing else
in this package spells an attribute name, so a new revision is an edit of this file.

Names that no convention registers stand under our own prefix, ``otel_audit.``.
"""

from __future__ import annotations

from typing import Final

REVISION: Final = "otep-0267@2684d80"
"""The revision of the draft that these names follow; written into every ``stream.json``."""

SCHEMA: Final = "0.1"
"""Value of ``audit.schema.version``: the version of this vocabulary as this package writes it."""

PROFILE: Final = "jcs/1"
"""The canonical profile: the bytes that the Collector's ``signingprocessor`` signs."""

# -- the draft: mandatory ----------------------------------------------------------------------------
RECORD_ID: Final = "audit.record.id"
ACTOR_ID: Final = "audit.actor.id"
ACTOR_TYPE: Final = "audit.actor.type"
ACTION: Final = "audit.action"
OUTCOME: Final = "audit.outcome"

# -- the draft: recommended and optional -------------------------------------------------------------
TARGET_ID: Final = "audit.target.id"
TARGET_TYPE: Final = "audit.target.type"
SOURCE_ID: Final = "audit.source.id"
SOURCE_TYPE: Final = "audit.source.type"
SCHEMA_VERSION: Final = "audit.schema.version"

# -- the draft: the chain; written by the journal only ------------------------------------------------
SEQUENCE_PREFIX: Final = "audit.sequence."
SEQUENCE_END: Final = "audit.sequence.end"
SEQUENCE_NUMBER: Final = "audit.sequence.number"
SEQUENCE_PREVIOUS_HASH: Final = "audit.sequence.previous_hash"
SEQUENCE_STREAM_ID: Final = "audit.sequence.stream_id"
INTEGRITY_PREFIX: Final = "audit.integrity."

# -- OpenTelemetry semantic conventions ---------------------------------------------------------------
SESSION_ID: Final = "session.id"
USER_AGENT: Final = "user_agent.original"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"
CODE_FILE_PATH: Final = "code.file.path"
CODE_FUNCTION_NAME: Final = "code.function.name"
CODE_LINE_NUMBER: Final = "code.line.number"
CODE_STACKTRACE: Final = "code.stacktrace"
PROCESS_PID: Final = "process.pid"
THREAD_ID: Final = "thread.id"
THREAD_NAME: Final = "thread.name"
HOST_NAME: Final = "host.name"
SERVICE_NAME: Final = "service.name"
SERVICE_INSTANCE_ID: Final = "service.instance.id"

# -- registered nowhere: ours ---------------------------------------------------------------------------
OWN_PREFIX: Final = "otel_audit."
TENANT: Final = "otel_audit.tenant"
REQUEST_ID: Final = "otel_audit.request_id"
REASON: Final = "otel_audit.reason"
TARGET_NAME: Final = "otel_audit.target.name"
SEVERITY_NUMBER: Final = "otel_audit.severity.number"
SEVERITY_TEXT: Final = "otel_audit.severity.text"
LOGGER_NAME: Final = "otel_audit.logger"

# Marks: what this package did to a record that was not as it should be.
CONVERTED: Final = "otel_audit.converted"
"""List of ``"<path>: <rule>"``, one for each value that was converted (``docs/conversion.md``)."""
TRUNCATED: Final = "otel_audit.truncated"
"""List of ``"<path>: <what was cut>"``, one for each value that was cut to keep the size limit."""
FILLED: Final = "otel_audit.filled"
"""List of mandatory attributes that the caller did not give and that were filled with ``unknown``."""
ORIGINAL_PREFIX: Final = "otel_audit.original."
"""Before the name of an attribute: the value as the caller gave it, where another one is stored."""
ORIGINAL_TIMESTAMP: Final = "otel_audit.original.timestamp"
ORIGINAL_OUTCOME: Final = "otel_audit.original.audit.outcome"
ORIGINAL_EVENT_NAME: Final = "otel_audit.original.event_name"

# Metrics: the draft's names, and ours.
METRIC_EMITTED: Final = "audit.records.emitted"
METRIC_EXPORTED: Final = "audit.records.exported"
METRIC_DROPPED: Final = "audit.records.dropped"
METRIC_QUEUE_DEPTH: Final = "audit.queue.depth"
METRIC_EXPORT_DURATION: Final = "audit.export.duration"
METRIC_FILTERED: Final = "otel_audit.records.filtered"
METRIC_OLDEST_AGE: Final = "otel_audit.queue.oldest_age"
METRIC_DEAD_LETTERS: Final = "otel_audit.dead_letters"
METRIC_BLOCKED: Final = "otel_audit.destination.blocked"
METRIC_JOURNAL_SIZE: Final = "otel_audit.journal.size"
METRIC_JOURNAL_LIMIT: Final = "otel_audit.journal.limit"
METRIC_SYNCS: Final = "otel_audit.journal.syncs"
METRIC_SYNC_TIME: Final = "otel_audit.journal.sync.time"
DESTINATION: Final = "otel_audit.destination"
"""Attribute of metrics: the destination's name."""
ERROR_TYPE: Final = "error.type"

# Control records: written by the journal itself, counted apart from the application's.
CONTROL: Final = "otel_audit.control"
STREAM_METADATA_HASH: Final = "otel_audit.stream.metadata_hash"
EVENT_DEFAULT: Final = "audit.log"
"""Event name of captured messages that name none."""
TARGET_TYPE_STREAM: Final = "audit.stream"
"""Type of the target of control records: the stream itself."""
EVENT_STARTED: Final = "audit.logging.started"
EVENT_STOPPED: Final = "audit.logging.stopped"

MANDATORY: Final = (RECORD_ID, ACTOR_ID, ACTOR_TYPE, ACTION, OUTCOME)
RESERVED_PREFIXES: Final = (SEQUENCE_PREFIX, INTEGRITY_PREFIX)
"""Attributes with these prefixes are the journal's and the signer's; a caller who sets one is refused."""

# -- vocabularies ------------------------------------------------------------------------------------------
OUTCOMES: Final = frozenset({"success", "failure", "unknown"})
ACTOR_TYPES: Final = frozenset({"user", "service", "system"})
SOURCE_TYPES: Final = frozenset({"ipv4", "ipv6", "hostname"})
UNKNOWN: Final = "unknown"

# -- the doctor's test event ---------------------------------------------------------------------------------
EVENT_TEST: Final = "audit.delivery.test"
TEST: Final = "otel_audit.test"
"""True on a record that only tests a configuration: no event of an application."""
