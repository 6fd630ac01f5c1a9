"""An exchange."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sharing import InMemoryExchange, Record


class Ledger(InMemoryExchange):
    """Writes a line for each record beside the run, and keeps the records in memory."""

    def __init__(self, path: Path, *, header: str = "") -> None:
        super().__init__()
        self._path = path.with_suffix(".ledger")
        self._path.write_text(header)

    def publish(self, records: Sequence[Record]) -> tuple[int, ...]:
        with self._path.open("a") as lines:
            lines.writelines(f"{record.origin.author} {record.kind} {record.origin.task_id}\n" for record in records)
        return super().publish(records)
