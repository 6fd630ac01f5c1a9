"""One worker process as the supervisor sees it, and the states it can be in.

Starting -> Idle <-> Busy <-> Paused, and from each of them -> Ending
"""

from __future__ import annotations

import socket
from collections import deque
from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

from mutual_env.verifiers.pool.jobs import Failure, Job
from mutual_env.verifiers.pool.stragglers import Clock
from mutual_env.verifiers.pool.wire import Outbox, Records


@dataclass(slots=True, eq=False)
class Assignment:
    """What a worker owes.

    batch    indices of the job's items, the first being worked on; none left: it has yet to say that it is done
    single   nothing follows in this worker: it has a process of its own, or is tried for the second time
    trimmed  the rest was given to others
    """

    job: Job
    batch: deque[int]
    single: bool = False
    trimmed: bool = False

    def fail(self, status: Failure, detail: str, elapsed: float = 0.0) -> None:
        """The item that is worked on gets no verdict."""
        self.job.conclude(self.batch.popleft(), self.job.failure(status, detail, elapsed))

    def give_back(self, *, keep: int) -> None:
        """All but the first `keep` wait again."""
        while len(self.batch) > keep:
            self.job.pending.appendleft(self.batch.pop())


@dataclass(frozen=True, slots=True)
class Starting:
    """Asked for; the fork server has yet to name its process."""


@dataclass(frozen=True, slots=True)
class Idle:
    pass


@dataclass(frozen=True, slots=True)
class Busy:
    assignment: Assignment
    clock: Clock


@dataclass(frozen=True, slots=True)
class Paused:
    """Stopped `at` a time until nobody else waits."""

    assignment: Assignment
    clock: Clock
    at: float


@dataclass(frozen=True, slots=True)
class Ending:
    """The fork server was, or will be, told to end it. Of its assignment, at most the suspect item is left: it is
    judged when it is known how the process ended, unless the pool itself says why (`fault`)."""

    assignment: Assignment | None
    fault: str = ""


State: TypeAlias = Starting | Idle | Busy | Paused | Ending


@dataclass(slots=True, eq=False)
class Worker:
    """generation  how many verifiers its process knows
    pid         what the fork server calls its process; None until it has said so
    seen_as     what this process calls it
    served      items that it has done
    """

    connection: socket.socket
    generation: int
    pid: int | None = None
    seen_as: int = -1
    served: int = 0
    state: State = field(default_factory=Starting)
    records: Records = field(default_factory=Records)
    outbox: Outbox = field(default_factory=Outbox)

    @property
    def idle(self) -> bool:
        return isinstance(self.state, Idle)

    @property
    def away(self) -> bool:
        """Does it leave its core to another?"""
        match self.state:
            case Paused():
                return True
            case Busy(clock=clock):
                return clock.asleep
            case Starting() | Idle() | Ending():
                return False
            case _:
                assert_never(self.state)

    @property
    def on_a_core(self) -> bool:
        return isinstance(self.state, Busy) and not self.away

    @property
    def fresh(self) -> bool:
        return self.served == 0

    @property
    def assignment(self) -> Assignment | None:
        """What it owes, whatever it does."""
        match self.state:
            case Busy(assignment=owed) | Paused(assignment=owed) | Ending(assignment=owed):
                return owed
            case Starting() | Idle():
                return None
            case _:
                assert_never(self.state)
