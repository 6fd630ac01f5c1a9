"""Time that only goes forward, whatever the clock under it does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class SteadyClock:
    """Seconds since it was made.

    If the clock under it is set back, this one stands still until that passes, so no wait gets longer. If it leaps
    ahead, so does this one, and waits that are under way end early with the error of their limit.
    """

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
