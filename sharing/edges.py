"""Options that may differ from policy to policy, or from edge to edge (reader and author).

weight: 0.1                                         one number for all
weight: {ada: 0.1, "*": 0.05}                       one for each reader; "*" is every other
weight: {ada: {bob: 0.2, "*": 0.1}, "*": 0.05}      one for each reader and author
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from mutual_env.errors import ConfigError

OTHERS = "*"

PerReader: TypeAlias = float | Mapping[str, float]
PerEdge: TypeAlias = float | Mapping[str, float | Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Edges:
    """What such an option says, checked once."""

    name: str
    given: PerEdge

    @classmethod
    def of(
        cls,
        name: str,
        given: PerEdge,
        readers: Collection[str],
        check: Callable[[float], str | None],
        *,
        by_author: bool = True,
    ) -> Edges:
        """`check` says what is wrong with a number, or nothing. Every reader, and every author of a reader that names
        some, must have a number, so that none goes missing in the middle of a run."""
        edges = cls(name, given)
        for reader in readers:
            inner = edges._of_reader(reader)
            if isinstance(inner, Mapping) and not by_author:
                raise ConfigError(f"{name} takes one number for each reader, got {inner!r} for {reader!r}")
        for number in _numbers(given):
            fault = check(number)
            if fault is not None:
                raise ConfigError(f"{name} {fault}, got {number}")
        for reader, inner in given.items() if isinstance(given, Mapping) else ():
            if isinstance(inner, Mapping) and OTHERS not in inner:
                raise ConfigError(f"{name}.{reader} names some authors: give {OTHERS!r} the number of all others")
        return edges

    def at(self, reader: str, author: str = OTHERS) -> float:
        """The number of this edge."""
        inner = self._of_reader(reader)
        return float(inner.get(author, inner[OTHERS]) if isinstance(inner, Mapping) else inner)

    def is_always(self, number: float) -> bool:
        """Whether every edge has this number."""
        return all(value == number for value in _numbers(self.given))

    def _of_reader(self, reader: str) -> float | Mapping[str, float]:
        if not isinstance(self.given, Mapping):
            return self.given
        if reader not in self.given and OTHERS not in self.given:
            raise ConfigError(
                f"{self.name} has no number for {reader!r}: name it, or give {OTHERS!r} that of all others"
            )
        return self.given.get(reader, self.given.get(OTHERS, 0.0))


def at_least_0(number: float) -> str | None:
    return None if number >= 0 else "must be at least 0"


def within_0_and_1(number: float) -> str | None:
    return None if 0 <= number <= 1 else "must lie in [0, 1]"


def _numbers(given: PerEdge | float) -> list[float]:
    if not isinstance(given, Mapping):
        return [given]
    return [number for inner in given.values() for number in _numbers(inner)]


def ring(names: Collection[str], count: int) -> dict[str, tuple[str, ...]]:
    """Whom each reads: the next `count` by name, the first after the last."""
    order = sorted(names)
    reach = range(1, min(count, len(order) - 1) + 1)
    return {name: tuple(order[(at + step) % len(order)] for step in reach) for at, name in enumerate(order)}
