"""What the pool's threads and its supervisor pass to each other, and what is known of one worker."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

from mutual_env.types import JSON, Task, Verdict
from mutual_env.verifiers.pool.wire import Records, frame, task_as_json
from mutual_env.verifiers.spec import VerifierSpec


@dataclass(slots=True, eq=False)
class Job:
    """Items of one call that need a worker, and the indices of those that nobody works on.

    pending  not tried yet
    alone    brought a worker down that had done others before: tried once more, in a fresh one
    """

    spec: VerifierSpec
    items: Sequence[tuple[Task, str]]
    future: Future[list[Verdict]] = field(default_factory=Future)
    pending: deque[int] = field(init=False)
    alone: deque[int] = field(default_factory=deque)
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.pending = deque(range(len(self.items)))

    @property
    def waiting(self) -> int:
        return len(self.pending) + len(self.alone)

    def conclude(self, index: int, verdict: Verdict) -> None:
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


@dataclass(slots=True, eq=False)
class Worker:
    """One worker process, as the supervisor sees it.

    batch   the indices it still owes, the first being verified `since`; `alone`: it is that item's second try
    ran     what it had had of a core when it was last looked at, at `looked`; the next look is at `look_due`
    age     what the item in flight has had since the first look, of a core or of sleep
    asleep  whether it used no core then, so that another worker may run beside it
    paused  whether it was stopped until nobody else waits
    trimmed whether the rest of its batch was given to others
    fault   why the pool itself ended it
    """

    connection: socket.socket
    generation: int
    pid: int | None = None
    records: Records = field(default_factory=Records)
    outbox: bytes = b""
    job: Job | None = None
    batch: deque[int] = field(default_factory=deque)
    alone: bool = False
    served: int = 0
    since: float = 0.0
    look_due: float = 0.0
    looked: float | None = None
    ran: float = 0.0
    age: float = 0.0
    asleep: bool = False
    paused: bool = False
    trimmed: bool = False
    fault: str = ""

    def begin(self, now: float, look_due: float) -> None:
        """The clock of the next item starts."""
        self.since, self.look_due, self.looked, self.age, self.asleep = now, look_due, None, 0.0, False

    @property
    def idle(self) -> bool:
        return self.pid is not None and self.job is None

    @property
    def away(self) -> bool:
        """Does it leave its core to another?"""
        return self.asleep or self.paused

    @property
    def fresh(self) -> bool:
        return self.served == 0


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
