"""What the pool's threads and its supervisor pass to each other: the items of one call, and what became of them."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from mutual_env.types import JSON, Verdict
from mutual_env.verifiers.pool.wire import VALUE, VERDICT, Record, frame, task_as_json
from mutual_env.verifiers.spec import Outcome, VerifierSpec, target_of

Failure: TypeAlias = Literal["timeout", "crash", "error"]


@dataclass(slots=True, eq=False)
class Job:
    """Items of one call that need a worker, and the indices of those that nobody works on.

    spec       the verifier, which the workers must know
    exclusive  each item has a process of its own, for it may run code
    pending    not tried yet
    file       the path of what loading it needs a descriptor of; empty: nothing
    alone      brought a worker down that had done others before: tried once more, in a fresh one
    suspect    ran code, or may have: what was said of them is not remembered
    """

    spec: VerifierSpec
    items: Sequence[Any]
    exclusive: bool = False
    file: str = ""
    future: Future[list[Any]] = field(default_factory=Future)
    pending: deque[int] = field(init=False)
    alone: deque[int] = field(default_factory=deque)
    suspect: set[int] = field(default_factory=set)
    verdicts: dict[int, Any] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)
    answered_by: int = VERDICT

    def __post_init__(self) -> None:
        self.pending = deque(range(len(self.items)))
        if self.exclusive:
            self.suspect.update(self.pending)

    @property
    def waiting(self) -> int:
        return len(self.pending) + len(self.alone)

    @property
    def loading(self) -> dict[str, JSON]:
        """What the fork server must load for it."""
        target = target_of(self.spec.name)
        return {"id": self.spec.id, "name": self.spec.name, "target": target, "options": self.spec.kwargs}

    def conclude(self, index: int, verdict: Any) -> None:
        self.verdicts[index] = verdict
        if len(self.verdicts) == len(self.items):
            with contextlib.suppress(InvalidStateError):  # its caller has given up
                self.future.set_result([self.verdicts[i] for i in range(len(self.items))])

    def fail(self, cause: BaseException) -> None:
        self.pending.clear()
        self.alone.clear()
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(cause)

    def message(self, batch: Sequence[int]) -> bytes:
        """The batch as a worker reads it, each task once."""
        places: dict[int, int] = {}
        tasks: list[JSON] = []
        items: list[JSON] = []
        for index in batch:
            task, text = self.items[index]
            if id(task) not in places:
                places[id(task)] = len(tasks)
                tasks.append(task_as_json(task))
            items.append([places[id(task)], text])
        return frame({"verifier": self.spec.id, "tasks": tasks, "items": items})

    def read(self, answer: Record) -> Any:
        return answer.verdict()

    def failure(self, status: Failure, detail: str, elapsed: float = 0.0) -> Any:
        return Verdict.unscored(status, elapsed=elapsed, detail=detail)


@dataclass(slots=True, eq=False)
class CallJob(Job):
    """JSON values that a function of `spec.name`, "module:function", is called with, each in a process of its own."""

    exclusive: bool = True
    answered_by: int = VALUE

    @property
    def loading(self) -> dict[str, JSON]:
        return {"id": self.spec.id, "function": self.spec.name}

    def message(self, batch: Sequence[int]) -> bytes:
        return frame({"call": self.spec.id, "items": [self.items[index] for index in batch]})

    def read(self, answer: Record) -> Outcome:
        if answer.status == "ok":
            return Outcome("ok", answer.value(), answer.elapsed)
        return Outcome("timeout" if answer.status == "timeout" else "error", None, answer.elapsed, answer.text)

    def failure(self, status: Failure, detail: str, elapsed: float = 0.0) -> Outcome:
        return Outcome(status, None, elapsed, detail)


@dataclass(slots=True)
class Counters:
    """Totals since the pool was made. `started` counts worker processes, `restarts` those that replaced one that was
    ended."""

    items: int = 0
    remembered: int = 0
    started: int = 0
    restarts: int = 0
    timeouts: int = 0
    crashes: int = 0
    errors: int = 0
    retries: int = 0
    paused: int = 0
