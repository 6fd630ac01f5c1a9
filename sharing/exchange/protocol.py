"""The seam of the exchange: what a wrapper asks of it, wherever the peers are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from sharing.records import Kind, Record, Stored


@dataclass(frozen=True, slots=True)
class Reading:
    """What a read found.

    `records` come in the order of the tasks asked for, then kinds, then author and index, whatever the order of
    publishing. `outside` counts authors, task by task and kind by kind, of whom nothing was accepted though there is
    something of an earlier round; what a peer that is ahead has published since depends on who is fast, and is not
    counted. `unreadable` those whose bytes are no record that this code understands.
    """

    records: tuple[Stored, ...]
    outside: int = 0
    unreadable: int = 0


@runtime_checkable
class Exchange(Protocol):
    """Typed records of several authors, found by task."""

    def publish(self, records: Sequence[Record]) -> tuple[int, ...]:
        """Store these together; they are there for every reader, as durably as this exchange can, when it returns.

        Returns their ids. A record whose key (task, kind, author, round, index) is there already takes its place.
        """

    def read(
        self,
        reader: str,
        task_ids: Sequence[str],
        kinds: Sequence[Kind],
        *,
        round: int,
        max_staleness: int | None = 0,
        authors: Sequence[str] | None = None,
    ) -> Reading:
        """The records of these kinds on these tasks by everybody (or `authors`) but the reader.

        A record is accepted if 0 <= round - its round <= max_staleness; None accepts any. Of an author that did a
        task in several accepted rounds, the records of one are returned: the latest that is not after `round`,
        else the earliest.
        """

    def scan(self) -> Iterator[Record]:
        """Every record, in the order of publishing."""

    def close(self) -> None:
        """Release what is held. Safe to call twice."""


@runtime_checkable
class Resumable(Protocol):
    """An exchange that a run's checkpoint can bring back to what it held of the run's own authors when they had done so
    many rounds. What others published meanwhile stays."""

    def save(self, directory: Path, authors: Collection[str], rounds: int) -> None:
        """Write into an empty directory what `load` needs."""

    def load(self, directory: Path | None, authors: Collection[str], rounds: int) -> None:
        """Go back to what was saved there; None, with 0 rounds: to before these authors had published anything.

        Raises StorageError where something is missing that was there.
        """


def nearest_round(rounds: Collection[int], at: int, max_staleness: int | None) -> int | None:
    """The round to read at `at` from an author that did the task in these rounds; None if none is accepted."""
    past = [r for r in rounds if r <= at and (max_staleness is None or r >= at - max_staleness)]
    if past:
        return max(past)
    return min(rounds) if max_staleness is None and rounds else None
