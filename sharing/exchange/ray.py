"""The exchange of a cluster: a Ray actor that holds another exchange. Records cross as their own bytes."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from mutual_env.errors import DeadlineExceededError, MissingExtraError, StorageError
from sharing.codec import decode, encode
from sharing.exchange.memory import InMemoryExchange
from sharing.exchange.protocol import Reading
from sharing.exchange.sqlite import SQLiteExchange
from sharing.records import Kind, Record, Stored


class RayExchange:
    """Talks to the actor `name`, and starts it where there is none yet.

    With a `path` the actor keeps a SQLite file on the node of the process that started it, and stays on that node:
    what is acknowledged outlives the actor, which Ray starts again, and a call that was in flight is made again (a
    record that is published twice is stored once). Without, it keeps records in memory. No call waits longer than
    `timeout` seconds. `close` leaves the actor to the others, or ends it where it is `owned`.
    """

    def __init__(
        self, name: str = "mutual-env-exchange", *, path: str | Path = "", timeout: float = 60.0, owned: bool = False
    ) -> None:
        try:
            import ray
            import ray.util.scheduling_strategies
        except ImportError as error:
            raise MissingExtraError.of("RayExchange", "ray") from error
        self._ray = ray
        self._timeout = timeout
        self._owned = owned
        options: dict[str, Any] = {"num_cpus": 0}
        if path:
            here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
                ray.get_runtime_context().get_node_id(), soft=False
            )
            options |= {"max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
        shared = {"name": name, "namespace": "mutual-env", "get_if_exists": True, "lifetime": "detached"}
        self._actor = ray.remote(_Host).options(**shared, **options).remote(str(path))

    @classmethod
    def at(cls, path: Path, *, timeout: float = 60.0) -> RayExchange:
        """That of a run, over the file at `path`. Its actor is ended with the run whose file it keeps."""
        there = path.resolve()
        named = hashlib.sha256(str(there).encode()).hexdigest()[:12]
        return cls(f"mutual-env-exchange-{named}", path=there, timeout=timeout, owned=True)

    def publish(self, records: Sequence[Record]) -> tuple[int, ...]:
        ids: tuple[int, ...] = self._ask("publish", [encode(record) for record in records])
        return ids

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
        named = None if authors is None else list(authors)
        found, outside, unreadable = self._ask("read", reader, list(task_ids), list(kinds), round, max_staleness, named)
        return Reading(tuple(Stored(id_, decode(body)) for id_, body in found), outside, unreadable)

    def scan(self) -> Iterator[Record]:
        for body in self._ask("scan"):
            yield decode(body)

    def save(self, directory: Path, authors: Collection[str], rounds: int) -> None:
        for name, content in self._ask("save", list(authors), rounds).items():
            (directory / name).write_bytes(content)

    def load(self, directory: Path | None, authors: Collection[str], rounds: int) -> None:
        files = None if directory is None else {path.name: path.read_bytes() for path in directory.iterdir()}
        self._ask("load", files, list(authors), rounds)

    def close(self) -> None:
        """The actor stays, because other processes use it, unless it is owned. `stop` ends it."""
        if self._owned:
            self._owned = False
            self.stop()

    def stop(self) -> None:
        """End the actor, for everybody."""
        try:
            self._ask("close")
        finally:
            self._ray.kill(self._actor)

    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            return self._ray.get(getattr(self._actor, method).remote(*arguments), timeout=self._timeout)
        except self._ray.exceptions.GetTimeoutError as error:
            raise DeadlineExceededError(f"the exchange actor did not answer {method} in {self._timeout} s") from error
        except self._ray.exceptions.RayActorError as error:
            raise StorageError(f"the exchange actor is gone: {error}") from error


class _Host:
    """What runs in the actor."""

    def __init__(self, path: str) -> None:
        self._exchange: SQLiteExchange | InMemoryExchange = SQLiteExchange(path) if path else InMemoryExchange()

    def publish(self, bodies: list[bytes]) -> tuple[int, ...]:
        return self._exchange.publish([decode(body) for body in bodies])

    def read(
        self,
        reader: str,
        task_ids: list[str],
        kinds: list[Kind],
        round: int,
        max_staleness: int | None,
        authors: list[str] | None,
    ) -> tuple[list[tuple[int, bytes]], int, int]:
        reading = self._exchange.read(
            reader, task_ids, kinds, round=round, max_staleness=max_staleness, authors=authors
        )
        return [(s.id, encode(s.record)) for s in reading.records], reading.outside, reading.unreadable

    def save(self, authors: list[str], rounds: int) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory(prefix="mutual-env-exchange-") as directory:
            self._exchange.save(Path(directory), authors, rounds)
            return {path.name: path.read_bytes() for path in Path(directory).iterdir()}

    def load(self, files: dict[str, bytes] | None, authors: list[str], rounds: int) -> None:
        with tempfile.TemporaryDirectory(prefix="mutual-env-exchange-") as directory:
            for name, content in (files or {}).items():
                (Path(directory) / name).write_bytes(content)
            self._exchange.load(None if files is None else Path(directory), authors, rounds)

    def scan(self) -> list[bytes]:
        return [encode(record) for record in self._exchange.scan()]

    def close(self) -> None:
        self._exchange.close()
