"""A least-recently-used cache that is bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

from mutual_env.errors import InvalidInputError

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# What the dictionary, the key tuple, the value's objects and their headers take beside the payload, measured on CPython
# 3.11.
ENTRY_OVERHEAD = 1024


@dataclass(frozen=True, slots=True)
class _Group(Generic[K]):
    keys: tuple[K, ...]
    size: int


class ByteBudgetCache(Generic[K, V]):
    """Entries that share their memory are put in together and leave together. `put` names the size of their payload;
    the groups of which nothing was used for longest leave until the sum fits `budget`. While it is held, nothing
    leaves. Thread-safe.
    """

    def __init__(self, budget: int) -> None:
        if budget < 0:
            raise InvalidInputError(f"cache_bytes must be 0 or more, got {budget}: 0 turns the cache off")
        self._budget = budget
        self._used = 0
        self._holders = 0
        self._entries: dict[K, tuple[V, int]] = {}
        self._groups: OrderedDict[int, _Group[K]] = OrderedDict()
        self._numbers = count()
        self._lock = threading.Lock()

    @property
    def budget(self) -> int:
        return self._budget

    @property
    def used(self) -> int:
        return self._used

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, keys: Iterable[K]) -> list[V | None]:
        """What is known of each key."""
        with self._lock:
            found = [self._entries.get(key) for key in keys]
            for number in dict.fromkeys(entry[1] for entry in found if entry is not None):
                self._groups.move_to_end(number)
        return [None if entry is None else entry[0] for entry in found]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Until this is left, everything that is put in stays, whatever the budget; one of 0 stays off."""
        with self._lock:
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                self._shrink()

    def put(self, entries: Mapping[K, V], payload: int) -> None:
        size = payload + ENTRY_OVERHEAD * len(entries)
        if not entries or not self._budget:
            return
        with self._lock:
            if size > self._budget and not self._holders:
                return
            number = next(self._numbers)
            for key, value in entries.items():
                self._entries[key] = (value, number)
            self._groups[number] = _Group(tuple(entries), size)
            self._used += size
            self._shrink()

    def _shrink(self) -> None:
        while self._used > self._budget and not self._holders:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        number, group = self._groups.popitem(last=False)
        self._used -= group.size
        for key in group.keys:
            entry = self._entries.get(key)
            if entry is not None and entry[1] == number:  # else it was put in again since
                del self._entries[key]
