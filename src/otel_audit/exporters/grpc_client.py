"""One gRPC request at a time, bounded in time and size, on a channel that is made anew when it fails.

What holds here: a process forks only while no request is under way and gRPC's own threads rest.  They are not there
in a forked child, and a child of a process that was in the middle of a request hangs in its next one.  So before a fork
the request that is under way is cancelled (its records are sent again); the child makes a channel of its own.

Loads gRPC at the first request.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import BlockedExportError, ConfigurationError, ExportError
from .answers import clean
from .endpoint import Endpoint
from .grpc_answers import error_of_call, headers_of
from .http_client import carry_credentials, check_tls, checked_headers, is_loopback, warn_of_plain_text
from .otlp_options import GrpcEndpoint
from .secret import covered_text, secrets_in

if TYPE_CHECKING:
    import grpc

ANSWER_MAX: Final = 64 * 1024
"""The longest answer that is read, in bytes."""

_METHOD: Final = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
_IDLE_MS: Final = 240_000
"""An unused connection is given up after this time: sooner than the tables of most routers forget it."""
_FORK_WAIT_S: Final = 1.0
"""How long a fork waits for a cancelled request to end."""


class GrpcClient:
    """A channel to one receiver.

    Args:
        endpoint: the receiver's.
        options: a value for each of the OTLP exporters' options.
        where: what error messages call the options.
        user_agent: what we call ourselves.

    Raises:
        ConfigurationError: a header, or the files for TLS.
    """

    def __init__(self, endpoint: GrpcEndpoint, options: Mapping[str, Any], where: str, user_agent: str) -> None:
        self.shown_url = endpoint.url
        self._endpoint = endpoint
        headers = checked_headers(options["headers"], where)
        own = next((name for name in headers if name.lower() == "user-agent"), None)
        self._user_agent = user_agent if own is None else headers.pop(own)
        self._metadata = tuple(_metadatum(name, value, f"{where}.headers") for name, value in headers.items())
        check_tls(endpoint.url, options, where)
        self._secrets = secrets_in({name: value for name, value in headers.items() if carry_credentials([name])})
        if self._secrets:
            warn_of_plain_text(endpoint.url, where)
        self._gzip = options["compression"] == "gzip"
        self._timeout_s: float | None = options["timeout"]
        self._keepalive_s: float | None = options["keepalive"]
        self._files: tuple[Path | None, ...] = tuple(
            options[name] for name in ("certificate", "client_certificate", "client_key")
        )
        self._channel: grpc.Channel | None = None
        self._call: Any = None
        self._pid = 0
        self._busy = threading.Lock()
        self._inherited: list[object] = []

    @property
    def endpoint(self) -> Endpoint:
        """Where it sends to."""
        certificate, client_certificate, client_key = self._files
        return Endpoint(
            self.shown_url, self._endpoint.secure, True, certificate, client_certificate, client_key, http=False
        )

    def deadline(self, timeout_s: float) -> float:
        """When a request that begins now has to be over, on the monotonic clock."""
        return time.monotonic() + (timeout_s if self._timeout_s is None else min(timeout_s, self._timeout_s))

    def send(self, content: bytes, deadline: float) -> tuple[bytes, Mapping[str, Any]]:
        """Send an ``ExportLogsServiceRequest`` and read its answer: the message, and the metadata around it.

        Args:
            content: the request.
            deadline: when it has to be over, on the monotonic clock.

        Raises:
            ExportError: it was not answered with success.
        """
        begun = time.monotonic()
        with self._busy:
            call = self._connected()
            import grpc  # noqa: PLC0415 - heavy; loaded above

            compression = grpc.Compression.Gzip if self._gzip else grpc.Compression.NoCompression
            left = max(deadline - time.monotonic(), 0.001)
            failure: ExportError | None = None
            try:
                answer, done = call.with_call(content, timeout=left, metadata=self._metadata, compression=compression)
                headers = headers_of(done, self.cover)
            except Exception as error:  # noqa: BLE001 - an error of ours is raised for it
                # A channel that failed waits by itself before it connects again; a new one does as it is told.
                self._drop()
                failure = error_of_call(error, self.shown_url, max(deadline - begun, 0.0), len(content), self.cover)
            finally:
                done = call = None  # let go of here: gRPC works when they go, and a fork must not meet that
        # Not as the other's consequence: that may show credentials which the receiver repeated.
        if failure is not None:
            raise failure
        return answer, headers

    def cover(self, text: str) -> str:
        """A text that came from the receiver, without the credentials that we sent."""
        return covered_text(text, self._secrets)

    def close(self) -> None:
        """Let go of the connection; a request that is under way is cancelled.  May be called twice."""
        if self._pid == os.getpid():
            self._drop()

    def _drop(self) -> None:
        channel, self._channel = self._channel, None
        self._call = None
        if channel is not None:
            channel.close()

    def _connected(self) -> Any:
        if self._pid != os.getpid():
            # A forked child must neither use nor close what its parent is using.
            self._inherited.append(self._channel)
            self._channel = None
        if self._channel is None:
            import grpc  # noqa: PLC0415 - heavy

            self._pid = os.getpid()
            if self._endpoint.secure:
                credentials = grpc.ssl_channel_credentials(*self._read_files())
                self._channel = grpc.secure_channel(self._endpoint.target, credentials, options=self._arguments())
            else:
                self._channel = grpc.insecure_channel(self._endpoint.target, options=self._arguments())
            # Without serializers: our bytes go out, the receiver's bytes come back.
            self._call = self._channel.unary_unary(_METHOD)
            _watch_forks(self)
        return self._call

    def _arguments(self) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = [
            ("grpc.primary_user_agent", self._user_agent),
            ("grpc.enable_retries", 0),  # retrying is the shipper's
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.use_local_subchannel_pool", 1),  # else a new channel inherits the back-off of the one that failed
            ("grpc.client_idle_timeout_ms", _IDLE_MS),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", ANSWER_MAX),
        ]
        if is_loopback(self.shown_url):  # whatever the environment says of a proxy
            found.append(("grpc.enable_http_proxy", 0))
        if not self._gzip:
            found.append(("grpc.compression_enabled_algorithms_bitset", 1))  # identity only
        if self._keepalive_s is not None:
            found += [
                ("grpc.keepalive_time_ms", int(self._keepalive_s * 1000)),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.max_pings_without_data", 0),
            ]
        return found

    def _read_files(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Authorities, our key, our certificate, as gRPC wants them."""
        certificate, client_certificate, client_key = self._files
        try:
            chain = client_certificate.read_bytes() if client_certificate is not None else None
            key = client_key.read_bytes() if client_key is not None else chain
            return certificate.read_bytes() if certificate is not None else None, key, chain
        except OSError as error:
            raise BlockedExportError(
                f"{self.shown_url}: the files for TLS cannot be used: {clean(str(error))}",
                status="TLS",
                repair="check the files in certificate, client_certificate and client_key",
            ) from error

    # -- around a fork -------------------------------------------------------------------------------------------

    def settle(self) -> bool:
        """Before a fork: end what is under way, and let nothing begin; whether that is so."""
        if self._busy.acquire(blocking=False):
            return True
        channel = self._channel
        if channel is not None and self._pid == os.getpid():
            channel.close()
        return self._busy.acquire(timeout=_FORK_WAIT_S)

    def go_on(self) -> None:
        """After the fork."""
        self._busy.release()

    def begin_anew(self) -> None:
        """In the child."""
        self._busy = threading.Lock()


def _metadatum(name: str, value: str, where: str) -> tuple[str, str | bytes]:
    """A header as gRPC wants it."""
    if name.lower().startswith("grpc-"):
        raise ConfigurationError(f"{where}: {name!r} is set by gRPC")
    return name.lower(), value.encode() if name.lower().endswith("-bin") else value


_LOOKS: Final = 3
_THREADS: Final = Path("/proc/self/task")
_THREAD_NAMES: Final = ("event_engine", "grpc_", "timer_", "default-exec", "resolver-exec")
_clients: weakref.WeakSet[GrpcClient] = weakref.WeakSet()
_settled: dict[int, list[GrpcClient]] = {}
"""By thread, what waits until its fork is over: several may fork at the same time."""
_watching = False


def _watch_forks(client: GrpcClient) -> None:
    global _watching  # noqa: PLW0603 - there is one process
    _clients.add(client)
    if not _watching:
        _watching = True
        # Registered after gRPC has registered its own, when the first channel was made, and therefore run before them.
        os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)


def _before_fork() -> None:
    _settled[threading.get_ident()] = [client for client in list(_clients) if client.settle()]
    ends = time.monotonic() + _FORK_WAIT_S
    rested = 0  # in a row: one look may catch a thread between two pieces of its work
    while rested < _LOOKS and time.monotonic() < ends:
        rested = rested + 1 if _threads_rest() else 0
        time.sleep(0.001)


def _threads_rest() -> bool:
    """Whether gRPC's own threads wait for something to do; where that cannot be seen, they are taken to.

    gRPC leaves out what it has to do at a fork if one of them is at work just then, as after a request was cancelled.
    """
    try:
        return all(map(_rests, _THREADS.iterdir()))
    except OSError:  # not Linux
        return True


def _rests(thread: Path) -> bool:
    try:
        name = (thread / "comm").read_text()
        return not name.startswith(_THREAD_NAMES) or (thread / "stat").read_text().rpartition(") ")[2][:1] == "S"
    except OSError:  # it has ended
        return True


def _after_fork() -> None:
    for client in _settled.pop(threading.get_ident(), ()):
        client.go_on()


def _in_child() -> None:
    _settled.clear()
    for client in list(_clients):
        client.begin_anew()
