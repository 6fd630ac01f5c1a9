"""A stored exchange in the place of live peers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sharing.exchange.protocol import Exchange, Reading
from sharing.records import Kind, Record, Stored


class ReplayExchange:
    """Reads from a stored exchange and from a live one; publishes to the live one alone, so the recording stays as
    it is.

    A strategy cannot tell: stored peers are found by task like live ones, and verified again like all strangers.
    Who is both stored and live on a task (a run that is played again next to its own recording) is read live.
    """

    def __init__(self, stored: Exchange, live: Exchange) -> None:
        self._stored = stored
        self._live = live

    def publish(self, records: Sequence[Record]) -> tuple[int, ...]:
        return self._live.publish(records)

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
        live, stored = (
            source.read(reader, task_ids, kinds, round=round, max_staleness=max_staleness, authors=authors)
            for source in (self._live, self._stored)
        )
        present = {(r.record.origin.task_id, r.record.kind, r.record.origin.author) for r in live.records}
        # Negative ids: what a recording holds was published by somebody else, whoever signed it.
        old = [
            Stored(-id_, record)
            for id_, record in stored.records
            if (record.origin.task_id, record.kind, record.origin.author) not in present
        ]
        order = {key: i for i, key in enumerate((t, k) for t in task_ids for k in kinds)}
        records = sorted(
            (*live.records, *old),
            key=lambda s: (order[s.record.origin.task_id, s.record.kind], s.record.origin.author, s.record.index),
        )
        return Reading(tuple(records), live.outside + stored.outside, live.unreadable + stored.unreadable)

    def scan(self) -> Iterator[Record]:
        """The live records: what this run adds to what was recorded."""
        return self._live.scan()

    def close(self) -> None:
        self._live.close()
        self._stored.close()
