"""An S3 that takes every object and remembers it, for tests of what the Collector uploads; Ceph is the real one."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from otel_audit.testing import Reply, ScriptedReceiver
from support.otlp import TEST_ID


class ObjectStore(ScriptedReceiver):
    """The store; a context manager.  It answers ``status`` to everything."""

    def __init__(self) -> None:
        self.status = 200
        super().__init__(default=lambda _: Reply(self.status))

    def environment(self, bucket: str = "archive") -> dict[str, str]:
        """What a Collector is told of it."""
        return {
            "OTELCOL_S3_ENDPOINT": self.url,
            "OTELCOL_S3_PATH_STYLE": "true",
            "OTELCOL_S3_BUCKET": bucket,
            "OTELCOL_S3_OBJECT_AGE": "100ms",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }

    def objects(self, bucket: str = "archive") -> dict[str, bytes]:
        """The objects of a bucket by their names, unpacked; one that was written twice would be there once."""
        found = {}
        for request in self.accepted_requests:
            if request.path.startswith(f"/{bucket}/"):
                packed = request.body[:2] == b"\x1f\x8b"
                found[request.path.split("?")[0]] = gzip.decompress(request.body) if packed else request.body
        return found

    def marks(self, bucket: str = "archive") -> Counter[str]:
        """Marks of the records in the objects of a bucket, with how often each stands there."""
        return Counter(mark for content in self.objects(bucket).values() for mark in marks(json.loads(content)))


def marks(content: dict[str, Any]) -> Iterator[str]:
    """Marks of the records in an OTLP request in JSON."""
    for resource in content["resourceLogs"]:
        for scope in resource["scopeLogs"]:
            for record in scope["logRecords"]:
                yield from (each["value"]["stringValue"] for each in record["attributes"] if each["key"] == TEST_ID)
