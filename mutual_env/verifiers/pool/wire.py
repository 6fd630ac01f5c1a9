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
from typing import Any, NoReturn, cast, get_args

from mutual_env.display import shown
from mutual_env.errors import InvalidInputError, VerificationError
from mutual_env.types import JSON, Task, Verdict, VerdictStatus

_LENGTH = struct.Struct("!I")
_RECORD = struct.Struct("!BBBddI")
_STATUSES: tuple[VerdictStatus, ...] = get_args(VerdictStatus)
VERDICT, VALUE, LAST, DONE, RETIRE, MEMORY = range(6)
"""Kinds of record. ANSWERS are the verdict on the next item of the batch, or the value that a called function returned
for it, or that memory ran out on it, and the batch stops here. LAST: the item in flight may have run code, or left the
interpreter in an odd state, so its answer is this worker's last. DONE: the batch is done; RETIRE: it is done, and this
worker has grown too large."""
ANSWERS = frozenset({VERDICT, VALUE, MEMORY})
MAX_DETAIL = 500
MAX_VALUE = 1 << 18
"""Bytes of JSON that a called function may return."""


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


class Outbox:
    """Bytes on their way to a socket that takes them in parts."""

    def __init__(self) -> None:
        self._rest = memoryview(b"")

    def __len__(self) -> int:
        return len(self._rest)

    def put(self, message: bytes) -> None:
        """Only once the last message is gone."""
        self._rest = memoryview(message)

    def sent(self, count: int) -> None:
        self._rest = self._rest[count:]

    @property
    def rest(self) -> memoryview:
        return self._rest


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
    """One message from a worker. `status`, `correct`, `reward` and `elapsed` are a verdict's, and so is `text` (its
    detail); where a function was called, `text` is what it returned, as JSON, or why it did not."""

    kind: int
    status: VerdictStatus = "ok"
    correct: bool = False
    reward: float | None = None
    elapsed: float = 0.0
    text: str = ""

    def verdict(self) -> Verdict:
        try:
            return Verdict(self.reward, self.correct, self.status, self.elapsed, shown(self.text))
        except InvalidInputError as cause:
            raise VerificationError(f"a worker sent an impossible verdict: {cause}") from cause

    def value(self) -> JSON:
        try:
            parsed: JSON = json.loads(self.text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as cause:
            raise VerificationError(f"a worker sent what is no JSON: {cause}") from cause
        return parsed


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def record(kind: int) -> bytes:
    """A record that says no more than its kind."""
    return _RECORD.pack(kind, 0, 0, 0.0, 0.0, 0)


def verdict_record(verdict: Verdict) -> bytes:
    reward = math.nan if verdict.reward is None else verdict.reward
    detail = str(verdict.detail)[:MAX_DETAIL].encode("utf-8", "replace")
    status = _STATUSES.index(verdict.status)
    return _RECORD.pack(VERDICT, status, bool(verdict.correct), reward, verdict.elapsed, len(detail)) + detail


def value_record(status: VerdictStatus, text: str, elapsed: float) -> bytes:
    body = text.encode("utf-8", "replace")
    return _RECORD.pack(VALUE, _STATUSES.index(status), 0, math.nan, elapsed, len(body)) + body


class Records:
    """Reads what a worker sends. A record that no honest worker sends is a VerificationError."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Record]:
        self._buffer += data
        while len(self._buffer) >= _RECORD.size:
            kind, status, correct, reward, elapsed, length = _RECORD.unpack_from(self._buffer)
            longest = {VERDICT: 4 * MAX_DETAIL, VALUE: MAX_VALUE}.get(kind, 0)
            if kind > MEMORY or status >= len(_STATUSES) or correct > 1 or length > longest or not 0 <= elapsed < 1e9:
                raise VerificationError("a worker sent what is no record")
            end = _RECORD.size + length
            if len(self._buffer) < end:
                return
            text = self._buffer[_RECORD.size : end].decode("utf-8", "replace")
            del self._buffer[:end]
            worth = None if math.isnan(reward) else reward
            yield Record(kind, _STATUSES[status], bool(correct), worth, elapsed, text)
