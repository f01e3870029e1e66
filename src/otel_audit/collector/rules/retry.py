"""Retrying: what becomes of records that were acknowledged, when the next hop does not take them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ..configuration import Component
from ..node import UNKNOWN, View
from .base import Audited, Hit, Severity, answers_early, rule

DEFAULT_MAX_ELAPSED_S: Final = 300.0
_TOKENS: Final = ("bearertokenauth", "oauth2client", "basicauth", "azureauth", "googleclientauth")


def _retrying(audited: Audited) -> Iterator[tuple[Component, View]]:
    for exporter in audited.exporters():
        retry = exporter.settings.at("retry_on_failure")
        if answers_early(exporter) is not None and retry.value is not UNKNOWN:
            yield exporter, retry


@rule("retry-disabled", Severity.ERROR, "what cannot be sent at once is dropped", loses=True)
def retry_disabled(audited: Audited) -> Iterator[Hit]:
    """``retry_on_failure.enabled: false``."""
    for exporter, retry in _retrying(audited):
        if retry.at("enabled").boolean(True) is False:
            yield Hit(
                retry.at("enabled"),
                f"{exporter.id} drops what it has acknowledged at the first failure of the next hop, and at a stop of "
                "the Collector",
                "enabled: true and max_elapsed_time: 0s",
            )


@rule("retry-gives-up", Severity.ERROR, "retrying ends", loses=True)
def retry_gives_up(audited: Audited) -> Iterator[Hit]:
    """Five minutes where nothing is said."""
    for exporter, retry in _retrying(audited):
        limit = retry.at("max_elapsed_time")
        seconds = limit.duration_s(DEFAULT_MAX_ELAPSED_S)
        if retry.at("enabled").boolean(True) is not True or seconds is UNKNOWN or seconds == 0:
            continue
        after = f"{seconds:g} s" + ("" if limit.given else ", which is the default")
        yield Hit(
            limit, f"{exporter.id} drops what it could not send for {after}", "max_elapsed_time: 0s: never give up"
        )


@rule("token-refused", Severity.WARNING, "a refused token drops what is queued", loses=True)
def token_refused(audited: Audited) -> Iterator[Hit]:
    """401 and 403 are permanent to the Collector; a failed TLS handshake is not."""
    for exporter in audited.exporters("otlp", "otlpgrpc", "otlphttp"):
        if answers_early(exporter) is None:
            continue
        auth = exporter.settings.at("auth", "authenticator")
        name = auth.text()
        headers = [view for key, view in exporter.settings.at("headers").children().items() if "auth" in key.lower()]
        by_token = isinstance(name, str) and name.partition("/")[0].replace("_", "") in _TOKENS
        if by_token or headers:
            yield Hit(
                headers[0] if headers else auth,
                f"where the next hop refuses the token of {exporter.id} (401, 403, UNAUTHENTICATED), the Collector "
                "takes that for final and drops what is queued; an expired token is enough",
                "mutual TLS (tls.cert_file, tls.key_file): a bad certificate fails the handshake, which is retried; "
                "where the destination takes tokens only, an alarm on otelcol_exporter_send_failed_log_records",
            )
