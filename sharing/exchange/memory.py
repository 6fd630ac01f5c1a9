"""The exchange of one process."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from threading import Lock
from typing import TypeAlias

from mutual_env.errors import InvalidInputError
from sharing.exchange.protocol import Reading, nearest_round
from sharing.records import Kind, Record, Stored

_Cell: TypeAlias = tuple[str, Kind]
_Batch: TypeAlias = tuple[str, int]  # author, round


class InMemoryExchange:
    """Records in dictionaries: gone with the process. `keep_rounds` keeps only that many rounds, those published
    last.
    """

    def __init__(self, *, keep_rounds: int | None = None) -> None:
        if keep_rounds is not None and keep_rounds < 1:
            raise InvalidInputError(f"keep_rounds must be at least 1, got {keep_rounds}: None keeps everything")
        self._keep_rounds = keep_rounds
        self._cells: dict[_Cell, dict[_Batch, list[Stored]]] = {}
        self._earliest: dict[_Cell, dict[str, int]] = {}  # round of each author
        self._rounds: dict[int, set[tuple[_Cell, _Batch]]] = {}
        self._ids = itertools.count(1)
        self._lock = Lock()

    def publish(self, records: Sequence[Record]) -> tuple[int, ...]:
        with self._lock:
            ids = [self._store(record) for record in records]
            if self._keep_rounds is not None:
                self._forget(self._keep_rounds)
        return tuple(ids)

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
        found: list[Stored] = []
        outside = 0
        with self._lock:
            for task_id, kind in itertools.product(task_ids, kinds):
                cell = self._cells.get((task_id, kind))
                if cell is None:
                    continue
                earliest = self._earliest[task_id, kind]
                named = sorted(
                    earliest.keys() - {reader} if authors is None else earliest.keys() & set(authors) - {reader}
                )
                rounds = _rounds_by_author(cell, named, round, max_staleness)
                for author in named:
                    chosen = nearest_round(rounds.get(author, ()), round, max_staleness)
                    if chosen is not None:
                        found.extend(cell[author, chosen])
                    elif earliest[author] <= round:
                        outside += 1
        return Reading(tuple(found), outside)

    def scan(self) -> Iterator[Record]:
        with self._lock:
            stored = [s for cell in self._cells.values() for batch in cell.values() for s in batch]
        return (s.record for s in sorted(stored, key=lambda s: s.id))

    def close(self) -> None:
        """Nothing is held that the garbage collector would not take."""

    def _store(self, record: Record) -> int:
        origin = record.origin
        key, batch = (origin.task_id, record.kind), (origin.author, origin.round)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = {}
        stored = Stored(next(self._ids), record)
        members = cell.get(batch)
        if members is None:
            cell[batch] = [stored]
            earliest = self._earliest.setdefault(key, {})
            earliest[origin.author] = min(origin.round, earliest.get(origin.author, origin.round))
            if self._keep_rounds is not None:
                held = self._rounds.pop(origin.round, set())
                held.add((key, batch))
                self._rounds[origin.round] = held  # dictionaries keep order: last published, last in line
        elif record.index > members[-1].record.index:
            members.append(stored)
        else:
            _place(members, stored)
        return stored.id

    def _forget(self, keep: int) -> None:
        """By order of publishing, not by number: a run that starts over at round 0 keeps its round 0."""
        for old in list(self._rounds)[:-keep]:
            for key, batch in self._rounds.pop(old):
                del self._cells[key][batch]
                self._find_earliest(key, batch[0])
                if not self._cells[key]:
                    del self._cells[key], self._earliest[key]

    def _find_earliest(self, key: _Cell, author: str) -> None:
        left = [round for name, round in self._cells[key] if name == author]
        if left:
            self._earliest[key][author] = min(left)
        else:
            del self._earliest[key][author]


def _place(members: list[Stored], stored: Stored) -> None:
    """Among records in the order of their index, in the place of one with the same."""
    index = stored.record.index
    at = bisect_left(members, index, key=lambda s: s.record.index)
    same = at < len(members) and members[at].record.index == index
    members[at : at + same] = [stored]


def _rounds_by_author(
    cell: dict[_Batch, list[Stored]], authors: Sequence[str], round: int, max_staleness: int | None
) -> dict[str, list[int]]:
    """Which rounds each of these authors has in this cell; where few rounds are accepted, which of those."""
    rounds: dict[str, list[int]] = {}
    batches: Iterable[_Batch] = cell
    if max_staleness is not None and len(authors) * (max_staleness + 1) < len(cell):
        batches = itertools.product(authors, range(round - max_staleness, round + 1))
    wanted = set(authors)
    for author, done in batches:
        if author in wanted and (author, done) in cell:
            rounds.setdefault(author, []).append(done)
    return rounds
