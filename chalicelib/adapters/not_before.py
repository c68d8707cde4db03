"""Keeps until when Prefect asked not to be called: for this environment's threads, and for others.

The answer's Retry-After outlasts the invocation: `put` writes its time into the stage's table. The
first request of each invocation reads it there, and none is sent before that time. Price: one read
of the table per invocation that asks Prefect.
"""

import threading
from collections.abc import Callable
from datetime import datetime

from chalicelib.adapters.prefect_errors import WAIT_OR_CHECK
from chalicelib.core.model.not_now import NotNow, asked_now
from chalicelib.errors import PrefectNotNowError


class NotBefore:
    """Shared by threads. Without `load` and `save`, it is this process's own."""

    def __init__(
        self,
        now: Callable[[], datetime],
        load: Callable[[], NotNow | None] = lambda: None,
        save: Callable[[NotNow], None] = lambda _: None,
    ) -> None:
        """`now` in UTC; `load` and `save`: the table's."""
        self._load, self._save, self._now = load, save, now
        self._lock, self._is_loaded = threading.Lock(), False
        self._kept: NotNow | None = None

    def begin(self) -> None:
        """Begin an invocation: another function may have put a time since the last one."""
        self._is_loaded = False

    @property
    def kept(self) -> NotNow | None:
        """What Prefect asked for last, None for nothing; read once per invocation."""
        with self._lock:
            if not self._is_loaded:
                times = [found for found in (self._load(), self._kept) if found]
                self._kept = max(times, key=lambda each: each.not_before, default=None)
                self._is_loaded = True
            return self._kept

    def wait_seconds(self, request: str, left: float) -> float:
        """Return how long to wait before a request, in seconds; 0.0 for not at all.

        Raises PrefectNotNowError where that is not less than what is `left`.
        """
        kept = self.kept
        seconds = max(0.0, (kept.not_before - self._now()).total_seconds()) if kept else 0.0
        if kept and seconds and seconds >= left:
            raise _error(kept, f"{request} was not sent")
        return seconds

    def put(self, seconds: float, failure: str) -> PrefectNotNowError:
        """Keep that Prefect asked for so many seconds from now; return the error that says so."""
        before = self.kept
        with self._lock:
            self._kept = kept = asked_now(seconds, self._now(), before)
        self._save(kept)
        return _error(kept, failure)


def _error(kept: NotNow, failure: str) -> PrefectNotNowError:
    what = f"Prefect is unavailable: {failure}; no request is sent before {kept.not_before:%X} UTC"
    return PrefectNotNowError(what, WAIT_OR_CHECK, kept.not_before, lasts=kept.lasts)
