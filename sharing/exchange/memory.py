"""The exchange of one process."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import TypeAlias

from mutual_env.errors import InvalidInputError
from sharing.exchange.kept import read_records, write_records
from sharing.exchange.protocol import Reading, nearest_round
from sharing.records import Kind, Record, Stored

_Topic: TypeAlias = tuple[str, Kind]  # task
_Rounds: TypeAlias = dict[int, dict[int, Stored]]  # one author's records on one topic, by round and index

_KEPT = "records.bin"


class InMemoryExchange:
    """Records in dictionaries: gone with the process. `keep_rounds` keeps only that many rounds, those published
    last.
    """

    def __init__(self, *, keep_rounds: int | None = None) -> None:
        if keep_rounds is not None and keep_rounds < 1:
            raise InvalidInputError(f"keep_rounds must be at least 1, got {keep_rounds}: None keeps everything")
        self._keep_rounds = keep_rounds
        self._topics: dict[_Topic, dict[str, _Rounds]] = {}  # of each author
        self._published: dict[int, set[tuple[_Topic, str]]] = {}  # what each round has records of
        self._ids = itertools.count(1)
        self._lock = Lock()

    @classmethod
    def at(cls, path: Path, *, keep_rounds: int | None = None) -> InMemoryExchange:
        """That of a run, which leaves nothing at `path`."""
        return cls(keep_rounds=keep_rounds)

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
            for topic in itertools.product(task_ids, kinds):
                by_author = self._topics.get(topic, {})
                named = by_author.keys() if authors is None else by_author.keys() & set(authors)
                for author in sorted(named - {reader}):
                    rounds = by_author[author]
                    chosen = nearest_round(_within(rounds, round, max_staleness), round, max_staleness)
                    if chosen is not None:
                        found.extend(rounds[chosen][index] for index in sorted(rounds[chosen]))
                    else:
                        outside += any(done <= round for done in rounds)
        return Reading(tuple(found), outside)

    def scan(self) -> Iterator[Record]:
        with self._lock:
            batches = [
                batch for authors in self._topics.values() for rounds in authors.values() for batch in rounds.values()
            ]
            stored = [stored for batch in batches for stored in batch.values()]
        return (s.record for s in sorted(stored, key=lambda s: s.id))

    def save(self, directory: Path, authors: Collection[str], rounds: int) -> None:
        """All of it, whoever wrote it: it is gone with the process."""
        write_records(directory / _KEPT, self.scan())

    def load(self, directory: Path | None, authors: Collection[str], rounds: int) -> None:
        with self._lock:
            self._topics, self._published, self._ids = {}, {}, itertools.count(1)
        if directory is not None:
            self.publish(list(read_records(directory / _KEPT)))

    def close(self) -> None:
        """Nothing is held that the garbage collector would not take."""

    def _store(self, record: Record) -> int:
        origin = record.origin
        topic = (origin.task_id, record.kind)
        stored = Stored(next(self._ids), record)
        rounds = self._topics.setdefault(topic, {}).setdefault(origin.author, {})
        if self._keep_rounds is not None and origin.round not in rounds:
            held = self._published.pop(origin.round, set())
            held.add((topic, origin.author))
            self._published[origin.round] = held  # dictionaries keep order: last published, last in line
        rounds.setdefault(origin.round, {})[record.index] = stored
        return stored.id

    def _forget(self, keep: int) -> None:
        """By order of publishing, not by number: a run that starts over at round 0 keeps its round 0."""
        for old in list(self._published)[:-keep]:
            for topic, author in self._published.pop(old):
                authors = self._topics[topic]
                del authors[author][old]
                if not authors[author]:
                    del authors[author]
                if not authors:
                    del self._topics[topic]


def _within(rounds: _Rounds, at: int, max_staleness: int | None) -> Collection[int]:
    """The rounds to choose from, without a walk over a long history where few are accepted."""
    if max_staleness is None or max_staleness >= len(rounds):
        return rounds
    return [done for done in range(at - max_staleness, at + 1) if done in rounds]
