"""Load for tests of chains: senders that repeat what was refused, and the ids that were acknowledged."""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from collections.abc import Callable, Sequence

from support.otlp import audit_records, post, request


class Senders:
    """Threads that send requests of small audit records to an OTLP/HTTP address until all are acknowledged.

    Each repeats a request until it is answered 200, as an application with a journal does.  Any other answer than 429,
    503 and 504, and any silence, counts as a failure to try again; ``deadline_s`` bounds it all.

    Attributes:
        acknowledged: ids of the records that were answered 200 so far.
        refused: how many tries failed.
    """

    def __init__(
        self,
        url: str,
        ids: Sequence[str],
        *,
        context: ssl.SSLContext | None = None,
        threads: int = 4,
        per_request: int = 100,
        pause_s: float = 0.0,
        deadline_s: float = 240,
    ) -> None:
        self.acknowledged: set[str] = set()
        self.refused = 0
        self._url, self._context, self._pause_s = url, context, pause_s
        self._deadline = time.monotonic() + deadline_s
        chunks = [ids[start : start + per_request] for start in range(0, len(ids), per_request)]
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send, args=(chunks[n::threads],)) for n in range(threads)]

    def __enter__(self) -> Senders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if kind is not None:
            self._deadline = 0.0
        for thread in self._threads:
            thread.join()

    @property
    def busy(self) -> bool:
        """Whether something is still to be sent."""
        return any(thread.is_alive() for thread in self._threads)

    def wait_for(self, count: int) -> None:
        """Until so many records are acknowledged, or nothing more is sent."""
        while len(self.acknowledged) < count and self.busy:
            time.sleep(0.01)

    def _send(self, chunks: Sequence[Sequence[str]]) -> None:
        for ids in chunks:
            content = request(audit_records(ids), {"service.name": "load"})
            while time.monotonic() < self._deadline:
                try:
                    status = post(self._url, content, context=self._context, timeout_s=10)
                except (OSError, http.client.HTTPException):
                    status = 0
                if status == 200:
                    with self._lock:
                        self.acknowledged.update(ids)
                    break
                self.refused += 1
                time.sleep(0.1)
            time.sleep(self._pause_s)


def until(condition: Callable[[], object], what: str, timeout_s: float = 60) -> None:
    """Wait until something is true; fail with ``what`` when it is not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.1)
