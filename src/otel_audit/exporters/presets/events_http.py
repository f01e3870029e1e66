"""CloudEvents over HTTP, and webhooks that are signed as Standard Webhooks has it."""

from __future__ import annotations

import hashlib
import hmac
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ...errors import BlockedExportError, ConfigurationError
from ...formats.cloudevents import as_cloudevent
from ...formats.template import Facts
from ...options import Option
from ..http import HttpExporter, Written, idempotency_key
from ..secret import Secret
from .preset import Mode, Preset

# -- CloudEvents -------------------------------------------------------------------------------------------------------


def _cloudevent(plain: Facts, options: Mapping[str, Any]) -> dict[str, Any]:
    return as_cloudevent(plain, source=options["source"], type_prefix=options["type_prefix"])


CLOUDEVENTS: Final = Preset(
    name="cloudevents",
    service="CloudEvents over HTTP",
    modes={
        "structured": Mode(body="record", content_type="application/cloudevents+json"),
        "batch": Mode(body="array", content_type="application/cloudevents-batch+json"),
    },
    shape=_cloudevent,
    options=(
        Option("source", "str", None, "URI-reference of where events happen; /<service name> where it is not given"),
        Option("type_prefix", "str", "", "before the event name: 'com.example.'"),
    ),
    auth={"type": "bearer"},
    success=("200", "201", "202", "204"),
)

# -- Standard Webhooks -------------------------------------------------------------------------------------------------

_PREFIX: Final = "whsec_"


def _webhook(plain: Facts, _: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": plain["event_name"], "timestamp": plain["timestamp"], "data": plain}


class WebhookExporter(HttpExporter):
    """Signs what it sends; several secrets, separated by spaces, sign each, so that one can take the other's place."""

    def _prepare(self, environ: Mapping[str, str], where: str) -> None:
        source = self._own["secret"]
        if source is None:
            source = {"env": "WEBHOOK_SECRET"}
        self._signing = Secret.of(source, environ, f"{where}.secret")
        self._where = where
        if not (isinstance(source, Mapping) and source.get("call")):
            _keys(self._signing.read(), where)

    def _more_headers(self, records: Sequence[Written], content: bytes) -> Mapping[str, str]:
        try:
            keys = _keys(self._signing.read(), self._where)
        except ConfigurationError as error:
            raise BlockedExportError(str(error), repair="check where the signing secret comes from") from None
        message_id = idempotency_key([record.record_id for record in records], "record")
        timestamp = str(int(time.time()))
        signed = f"{message_id}.{timestamp}.".encode() + content
        return {
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": " ".join(f"v1,{_signature(key, signed)}" for key in keys),
        }


def _signature(key: bytes, signed: bytes) -> str:
    return b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def _keys(text: str, where: str) -> list[bytes]:
    """The keys in ``whsec_…`` secrets."""
    try:
        keys = [b64decode(word.removeprefix(_PREFIX), validate=True) for word in text.split()]
    except ValueError:
        keys = []
    if not keys or not all(24 <= len(key) <= 64 for key in keys):
        raise ConfigurationError(
            f"{where}.secret: expected {_PREFIX} and 24 to 64 bytes in Base64; several are separated by spaces"
        )
    return keys


WEBHOOK: Final = Preset(
    name="webhook",
    service="a webhook that is signed as Standard Webhooks has it",
    modes={"single": Mode()},
    shape=_webhook,
    options=(Option("secret", "any", None, "of the signature, {env|file|call}; without it, in WEBHOOK_SECRET"),),
    auth={"type": "bearer"},
    success=("200-299",),
    exporter=WebhookExporter,
)
