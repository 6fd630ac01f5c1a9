"""A least-recently-used cache that is bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from mutual_env.errors import InvalidInputError

V = TypeVar("V")

# What the dictionary, the key tuple, the value's objects and their headers take beside the payload, measured on CPython
# 3.11.
ENTRY_OVERHEAD = 1024


class ByteBudgetCache(Generic[V]):
    """`put` names the size of the payload; the least recently used entries leave until the sum fits `budget`.
    Thread-safe.
    """

    def __init__(self, budget: int) -> None:
        if budget < 0:
            raise InvalidInputError(f"cache_bytes must be 0 or more, got {budget}: 0 turns the cache off")
        self._budget = budget
        self._used = 0
        self._entries: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        return self._used

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> V | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def put(self, key: Hashable, value: V, payload: int) -> None:
        size = payload + ENTRY_OVERHEAD
        with self._lock:
            old = self._entries.pop(key, None)
            if old is not None:
                self._used -= old[1]
            if size > self._budget:
                return
            self._entries[key] = (value, size)
            self._used += size
            while self._used > self._budget:
                _, (_, dropped) = self._entries.popitem(last=False)
                self._used -= dropped
