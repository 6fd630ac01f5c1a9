"""Time that only goes forward, whatever the clock under it does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class SteadyClock:
    """Seconds since it was made. A clock that is set back costs no time: it goes on from where it was, so that a wait
    never gets longer. One that leaps ahead ends waits early, with the sentence of their limit: never late."""

    def __init__(self, source: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._last = source()
        self._elapsed = 0.0
        self._lock = threading.Lock()

    def __call__(self) -> float:
        with self._lock:
            reading = self._source()
            self._elapsed += max(0.0, reading - self._last)
            self._last = reading
            return self._elapsed
