"""Audit APIs: one event in, one event stored, and an id that comes back."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ... import semconv as sc
from ...formats.template import Facts
from ...options import Option
from ..http import HttpExporter, Written
from .preset import Mode, Preset, level_of, microseconds


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None if value is None else str(value)


def _proof(plain: Facts) -> dict[str, Any]:
    """By what the event is found again in the journal and its chain."""
    return {name: plain[name] for name in ("record_id", "stream_id", "sequence", "sha256", "timestamp")}


def _metadata(plain: Facts) -> dict[str, Any]:
    """Everything of the record that has no place of its own."""
    found = {**plain["attributes"], "otel_audit": _proof(plain)}
    if plain["body"] is not None:
        found["body"] = plain["body"]
    if plain["trace_id"]:
        found["trace_id"], found["span_id"] = plain["trace_id"], plain["span_id"]
    return found


# -- LogVault ------------------------------------------------------------------------------------------------------


def _logvault_old(plain: Facts, options: Mapping[str, Any]) -> dict[str, Any]:
    get = plain["attributes"].get
    return {
        "action": plain["event_name"],
        "user_id": _text(get(sc.ACTOR_ID)),
        "resource": _text(get(sc.TARGET_ID)) or options["resource"],
        "metadata": _metadata(plain),
        "timestamp": microseconds(plain["timestamp"]),
    }


def _logvault(plain: Facts, options: Mapping[str, Any]) -> dict[str, Any]:
    more = {"level": level_of(plain), "message": plain["body"] if isinstance(plain["body"], str) else None}
    return {**_logvault_old(plain, options), **more}


class NonceExporter(HttpExporter):
    """Sends a nonce, where that is chosen: the service knows a request that somebody else repeats."""

    def _more_headers(self, records: Sequence[Written], content: bytes) -> Mapping[str, str]:
        return {"X-Nonce": secrets.token_urlsafe(32)} if self._own["nonce"] else {}


_RESOURCE: Final = Option("resource", "str", "app", "the resource of events without a target")

LOGVAULT: Final = Preset(
    name="logvault",
    service="LogVault",
    modes={"single": Mode("/v1/events", response_id="id")},
    shape=_logvault,
    options=(_RESOURCE,),
    auth={"type": "bearer"},
    env="LOGVAULT_API_KEY",
    auth_required=True,
    idempotency_header="Idempotency-Key",
)
LOGVAULT_OLD: Final = Preset(
    name="logvault-0.1",
    service="LogVault, as its clients up to 0.1 and its documentation have it",
    modes={"single": Mode("/v1/events", response_id="id")},
    shape=_logvault_old,
    options=(_RESOURCE, Option("nonce", "bool", False, "send X-Nonce, another one with every request")),
    auth={"type": "header", "name": "X-API-Key"},
    env="LOGVAULT_API_KEY",
    auth_required=True,
    exporter=NonceExporter,
)

# -- Audit Log Framework ---------------------------------------------------------------------------------------------

_STATUS: Final = {"success": "success", "failure": "error"}


def _alf(plain: Facts, options: Mapping[str, Any]) -> dict[str, Any]:
    get = plain["attributes"].get
    return {
        "event_type": plain["event_name"],
        "action": _text(get(sc.ACTION)) or plain["event_name"],
        "status": _STATUS.get(str(get(sc.OUTCOME)), "info"),
        "tenant_id": _text(get(sc.TENANT)) or options["tenant"],
        "service_name": _text(plain["resource"].get(sc.SERVICE_NAME)) or sc.UNKNOWN,
        **_alf_common(plain),
        "user_id": _text(get(sc.ACTOR_ID)),
        "resource_type": _text(get(sc.TARGET_TYPE)),
        "retention_period_days": options["retention_days"],
    }


def _alf_sdk(plain: Facts, options: Mapping[str, Any]) -> dict[str, Any]:
    get = plain["attributes"].get
    return {
        "event_type": options["event_type"],
        "resource_type": _text(get(sc.TARGET_TYPE)) or sc.UNKNOWN,
        "action": plain["event_name"],
        "severity": level_of(plain),
        "description": plain["body"] if isinstance(plain["body"], str) else str(plain["event_name"]),
        **_alf_common(plain),
        "timestamp": microseconds(plain["timestamp"]),
    }


def _alf_common(plain: Facts) -> dict[str, Any]:
    get = plain["attributes"].get
    return {
        "resource_id": _text(get(sc.TARGET_ID)),
        "metadata": _metadata(plain),
        "ip_address": _text(get(sc.SOURCE_ID)) if get(sc.SOURCE_TYPE) in ("ipv4", "ipv6") else None,
        "user_agent": _text(get(sc.USER_AGENT)),
        "session_id": _text(get(sc.SESSION_ID)),
        "correlation_id": _text(get(sc.REQUEST_ID)),
    }


_TENANT: Final = Option("tenant", "str", doc="the tenant: header X-Tenant-ID, and of records that name none")
_EVENT_TYPES: Final = (
    "user_action", "authentication", "authorization", "data_access", "data_modification", "system_event", "api_call",
    "error",
)  # fmt: skip
_ALF_AUTH: Final[Mapping[str, Any]] = {
    "auth": {"type": "header", "name": "X-API-Key"},
    "env": "AUDIT_API_KEY",
    "auth_required": True,
    "login": {"token_url": "/api/v1/auth/login", "refresh_url": "/api/v1/auth/refresh"},
    "login_parameters": {"tenant_id": "tenant"},
    "headers": {"X-Tenant-ID": "tenant"},
    "idempotency_header": "Idempotency-Key",
}
_ALF_PATH: Final = "/api/v1/audit/events"

AUDIT_LOG_FRAMEWORK: Final = Preset(
    name="audit-log-framework",
    service="Audit Log Framework",
    modes={
        "batch": Mode(f"{_ALF_PATH}/batch", "object", "events", response_id="*.audit_id", request_records=1000),
        "single": Mode(_ALF_PATH, response_id="audit_id", request_records=1000),
    },
    shape=_alf,
    options=(
        _TENANT,
        Option("retention_days", "int", 90, "how long the service keeps an event, 1 to 2555 days", minimum=1),
    ),
    **_ALF_AUTH,
)
AUDIT_LOG_FRAMEWORK_SDK: Final = Preset(
    name="audit-log-framework-sdk",
    service="Audit Log Framework, as its SDK and its documentation have it",
    modes={
        "batch": Mode(f"{_ALF_PATH}/batch", "object", "audit_logs", response_id="*.id", request_records=1000),
        "single": Mode(_ALF_PATH, response_id="id", request_records=1000),
    },
    shape=_alf_sdk,
    options=(_TENANT, Option("event_type", "enum", "user_action", "the type of every event", choices=_EVENT_TYPES)),
    **_ALF_AUTH,
)

# -- any events API ----------------------------------------------------------------------------------------------------

_RISK: Final = {"debug": "low", "info": "low", "warning": "medium", "error": "high", "critical": "critical"}


def _event(plain: Facts, _: Mapping[str, Any]) -> dict[str, Any]:
    get = plain["attributes"].get
    return {
        "id": plain["record_id"],
        "event_type": plain["event_name"],
        "timestamp": microseconds(plain["timestamp"]),
        "user_id": _text(get(sc.ACTOR_ID)),
        "session_id": _text(get(sc.SESSION_ID)),
        "severity": _RISK[level_of(plain)],
        "source": _text(plain["resource"].get(sc.SERVICE_NAME)) or sc.UNKNOWN,
        "details": plain["body"] if isinstance(plain["body"], dict) else {"message": plain["body"]},
        "metadata": {**plain["attributes"], "otel_audit": _proof(plain)},
    }


EVENTS: Final = Preset(
    name="events",
    service="an events API (DeepSentinel and others)",
    modes={
        "batch": Mode("/events/batch", "object", "events", request_records=50, response_id="events.*.id"),
        "single": Mode("/events", response_id="id", request_records=50),
    },
    shape=_event,
    auth={"type": "bearer"},
    env="EVENTS_API_KEY",
    idempotency_header="Idempotency-Key",
)
