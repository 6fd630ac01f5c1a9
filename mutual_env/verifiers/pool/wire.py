"""The messages between the pool, the fork server and the workers.

To a worker goes JSON. From a worker, which has run hostile text, come records of a fixed layout: nothing of it is
unpickled, and what does not fit the layout ends the worker.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

from mutual_env.errors import InvalidInputError, VerificationError
from mutual_env.types import JSON, Task, Verdict, VerdictStatus

_LENGTH = struct.Struct("!I")
_RECORD = struct.Struct("!BBBddH")
_STATUSES: tuple[VerdictStatus, ...] = get_args(VerdictStatus)
VERDICT, DONE, RETIRE, MEMORY = range(4)
"""Kinds of record: the verdict on the next item of the batch; the batch is done; it is done, and this worker has grown
too large; memory ran out on the next item, and the batch stops here."""
MAX_DETAIL = 500


def frame(message: JSON) -> bytes:
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Cuts a byte stream into frames, however it arrives."""

    def __init__(self, limit: int = 1 << 30) -> None:
        self._limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
            if end > self._limit:
                raise VerificationError(f"a message of {end} bytes exceeds the limit of {self._limit}")
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield json.loads(body)


def task_as_json(task: Task) -> JSON:
    return [task.id, cast(JSON, task.prompt), task.answer, task.metadata]


def check_task(task: Task) -> str:
    """The task as canonical JSON; refused where its metadata is none."""
    try:
        return json.dumps(task_as_json(task), sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError) as cause:
        raise InvalidInputError(
            f"task {task.id!r}: its metadata must be JSON to reach a worker process: {cause}"
        ) from cause


def task_from_json(fields: Sequence[Any]) -> Task:
    task_id, prompt, answer, metadata = fields
    return Task(task_id, prompt if isinstance(prompt, str) else tuple(prompt), answer, metadata)


@dataclass(frozen=True, slots=True)
class Record:
    """One message from a worker; `verdict` is there exactly where `kind` is VERDICT."""

    kind: int
    verdict: Verdict | None


def record(kind: int, verdict: Verdict | None = None) -> bytes:
    if verdict is None:
        return _RECORD.pack(kind, 0, 0, 0.0, 0.0, 0)
    reward = math.nan if verdict.reward is None else verdict.reward
    detail = str(verdict.detail)[:MAX_DETAIL].encode("utf-8", "replace")
    status = _STATUSES.index(verdict.status)
    return _RECORD.pack(kind, status, bool(verdict.correct), reward, verdict.elapsed, len(detail)) + detail


class Records:
    """Reads what a worker sends. A record that no honest worker sends is a VerificationError."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[Record]:
        self._buffer += data
        while len(self._buffer) >= _RECORD.size:
            kind, status, correct, reward, elapsed, length = _RECORD.unpack_from(self._buffer)
            end = _RECORD.size + length
            if kind > MEMORY or status >= len(_STATUSES) or correct > 1 or length > 4 * MAX_DETAIL:
                raise VerificationError("a worker sent what is no record")
            if len(self._buffer) < end:
                return
            detail = self._buffer[_RECORD.size : end].decode("utf-8", "replace")
            self._buffer = self._buffer[end:]
            yield Record(kind, _verdict(status, bool(correct), reward, elapsed, detail) if kind == VERDICT else None)


def _verdict(status: int, correct: bool, reward: float, elapsed: float, detail: str) -> Verdict:
    try:
        return Verdict(None if math.isnan(reward) else reward, correct, _STATUSES[status], elapsed, detail)
    except InvalidInputError as cause:
        raise VerificationError(f"a worker sent an impossible verdict: {cause}") from cause
