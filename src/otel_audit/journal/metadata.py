"""``stream.json``: what is true of every record of a stream, written and synced before the first of them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from .. import semconv as sc
from .._version import __version__
from ..errors import DamageError
from .locks import boot_id, pid_namespace

FORMAT: Final = 1
NAME: Final = "stream.json"


class UnknownFormatError(DamageError):
    """The stream was written by a newer version of this package: it is left alone."""


class StreamMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of ``stream.json``.

    Attributes:
        format: version of the directory's layout and of the line.
        profile: canonical profile of the records.
        semconv: revision of the attribute names.
        stream_id: the stream's UUID; also its directory's name.
        created_ns: nanoseconds since 1970.
        resource: OpenTelemetry resource attributes of the process that writes.
        scope: name and version of the writing library.
        host, boot_id, pid_namespace, pid: where the writer runs.
        required: destinations that must have a record before it may be removed.
        optional: destinations that are to have it too, but that nobody waits for.
    """

    format: int
    profile: str
    semconv: str
    stream_id: str
    created_ns: int
    resource: dict[str, Any]
    scope: dict[str, str]
    host: str
    boot_id: str
    pid: int
    required: list[str]
    pid_namespace: str = ""
    optional: list[str] = []

    def encode(self) -> bytes:
        """The bytes of the file; their SHA-256 stands in the stream's first record."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def describe_stream(
    stream_id: str, resource: dict[str, Any], required: Sequence[str], optional: Sequence[str] = ()
) -> StreamMetadata:
    """Metadata for a stream that this process begins now."""
    return StreamMetadata(
        format=FORMAT,
        profile=sc.PROFILE,
        semconv=sc.REVISION,
        stream_id=stream_id,
        created_ns=time.time_ns(),
        resource=resource,
        scope={"name": "otel_audit", "version": __version__},
        host=socket.gethostname(),
        boot_id=boot_id(),
        pid=os.getpid(),
        required=sorted(required),
        pid_namespace=pid_namespace(),
        optional=sorted(optional),
    )


def read_metadata(directory: Path) -> StreamMetadata:
    """Read a stream's metadata.

    Raises:
        UnknownFormatError: written by a version that we do not know.
        DamageError: missing or unreadable.
    """
    try:
        data = (directory / NAME).read_bytes()
        known = msgspec.json.decode(data)
        if isinstance(known, dict) and known.get("format") != FORMAT:
            raise UnknownFormatError(
                f"stream {directory.name}: format {known.get('format')!r} is not known to otel-audit {__version__}; "
                "it is left alone. Ship it with the version that wrote it, or a newer one"
            )
        return msgspec.convert(known, StreamMetadata)
    except OSError as error:
        raise DamageError(f"stream {directory.name}: cannot read {NAME}: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise DamageError(f"stream {directory.name}: {NAME} is damaged: {error}") from error


def hash_of(encoded: bytes) -> str:
    """SHA-256 of ``stream.json``, lower-case hex."""
    return sha256(encoded).hexdigest()
