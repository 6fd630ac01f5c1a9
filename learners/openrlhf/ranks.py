"""How one step is shared by data-parallel actors. Every actor holds all examples and makes the same plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")
V = TypeVar("V")


class Ranks(Protocol):
    """The actors that train one policy together."""

    def mine(self, items: Sequence[T]) -> list[T | None]:
        """This actor's items, None where others have one more: all actors make the same number of steps."""

    def total(self, value: float) -> float:
        """The sum over actors."""

    def merged(self, values: Mapping[int, V]) -> dict[int, V]:
        """What all actors found, everywhere."""


class Alone:
    """One process."""

    def mine(self, items: Sequence[T]) -> list[T | None]:
        return list(items)

    def total(self, value: float) -> float:
        return value

    def merged(self, values: Mapping[int, V]) -> dict[int, V]:
        return dict(values)


class ProcessGroup:
    """The actors of torch's default process group. `ring` of them after one another are one rank: they are dealt the
    same items."""

    def __init__(self, ring: int = 1) -> None:
        self._ring = ring
        self._rank = torch.distributed.get_rank() // ring
        self._size = torch.distributed.get_world_size() // ring

    def mine(self, items: Sequence[T]) -> list[T | None]:
        dealt: list[T | None] = list(items[self._rank :: self._size])
        return dealt + [None] * (-(-len(items) // self._size) - len(dealt))

    def total(self, value: float) -> float:
        return sum(self._gathered(value))

    def merged(self, values: Mapping[int, V]) -> dict[int, V]:
        return {index: value for part in self._gathered(dict(values)) for index, value in part.items()}

    def _gathered(self, value: V) -> list[V]:
        parts: list[V] = [value] * (self._size * self._ring)
        torch.distributed.all_gather_object(parts, value)
        return parts[:: self._ring]
