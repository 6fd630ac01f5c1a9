"""One worker process as the supervisor sees it, and the states it can be in.

Starting -> Idle -> Busy <-> Paused
    \\        \\       \\________/
     \\________\\______________\\-> Doomed
"""

from __future__ import annotations

import socket
from collections import deque
from dataclasses import dataclass, field
from typing import TypeAlias

from mutual_env.verifiers.pool.jobs import Job
from mutual_env.verifiers.pool.stragglers import Clock
from mutual_env.verifiers.pool.wire import Outbox, Records


@dataclass(slots=True, eq=False)
class Errand:
    """What a worker owes.

    batch    indices of the job's items, the first being worked on; none left: it has yet to say that it is done
    single   nothing follows in this worker: it has a process of its own, or is tried for the second time
    trimmed  the rest was given to others
    """

    job: Job
    batch: deque[int]
    single: bool = False
    trimmed: bool = False

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
    errand: Errand
    clock: Clock


@dataclass(frozen=True, slots=True)
class Paused:
    """Stopped `at` a time until nobody else waits."""

    errand: Errand
    clock: Clock
    at: float


@dataclass(frozen=True, slots=True)
class Doomed:
    """The fork server was, or will be, told to end it. Of its errand, at most the suspect item is left: it is judged
    when it is known how the process ended, unless the pool itself says why (`fault`)."""

    errand: Errand | None
    fault: str = ""


State: TypeAlias = Starting | Idle | Busy | Paused | Doomed


@dataclass(slots=True, eq=False)
class Worker:
    """generation: how many verifiers its process knows; pid: None until the fork server has named it."""

    connection: socket.socket
    generation: int
    pid: int | None = None
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
        return isinstance(self.state, Paused) or (isinstance(self.state, Busy) and self.state.clock.asleep)

    @property
    def on_a_core(self) -> bool:
        return isinstance(self.state, Busy) and not self.state.clock.asleep

    @property
    def fresh(self) -> bool:
        return self.served == 0

    @property
    def errand(self) -> Errand | None:
        """What it owes, whatever it does."""
        return None if isinstance(self.state, (Starting, Idle)) else self.state.errand
