"""When an item takes much longer than its like, and what its deadline counts.

An item that outlasts the pool's patience while others wait is paused: its process is stopped, another worker takes
over what waits behind it, and it goes on where it was when nobody waits. One that sleeps is left to sleep, and another
worker runs beside it. This changes when an item is verified, never what its verdict is. A worker more costs time too,
so the pool pauses items only as often as a small share of its time pays for.

The deadline counts the seconds in which an item ran or slept, not those in which it waited for a core (where Linux
tells them apart), so neither the machine's load nor the number of workers decides whether it is met.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from mutual_env.verifiers.pool import kernel

_PATIENCE_TIMES, _FIRST_LOOK_TIMES = 2.5, 1.5
_LEAST_PATIENCE, _FIRST_PATIENCE, _FRESH_PATIENCE = 0.005, 0.05, 0.1
_CREDIT_SHARE, _WORKER_SECONDS, _FIRST_CREDIT = 0.1, 0.02, 0.1
"""Of the seconds of finished items, what may be spent on workers for those that wait; what one costs; what may be spent
at first."""


@dataclass(slots=True)
class Pace:
    """What past items taught: how long one takes, and how many seconds may yet be spent on workers for those that
    wait."""

    deadline: float
    typical: float | None = None
    credit: float = _FIRST_CREDIT

    def patience(self, *, fresh: bool = False) -> float:
        """Seconds after which an item is paused if others wait; a fresh worker's first item is slow."""
        if fresh:
            return max(self.patience(), min(_FRESH_PATIENCE, self.deadline))
        if self.typical is None:
            return min(_FIRST_PATIENCE, self.deadline / 4)
        return min(max(_PATIENCE_TIMES * self.typical, _LEAST_PATIENCE), self.deadline / 4)

    def first_look(self) -> float:
        """Seconds after which a worker is first asked whether it sleeps."""
        return self.patience() * _FIRST_LOOK_TIMES / _PATIENCE_TIMES

    def next_look(self) -> float:
        """Seconds from one look to the next, while an item may yet be paused or found asleep."""
        return self.first_look() / 2

    def finished(self, seconds: float) -> None:
        seen = min(seconds, 2 * self.patience())  # one slow item must not make the pool patient with the next
        self.typical = seen if self.typical is None else self.typical + 0.05 * (seen - self.typical)
        self.credit += _CREDIT_SHARE * seconds

    def may_pause(self) -> bool:
        return self.credit >= _WORKER_SECONDS

    def paused(self) -> None:
        self.credit -= _WORKER_SECONDS


@dataclass(slots=True)
class Clock:
    """Of the item in flight.

    since     when it began, pauses left out
    look_due  when to look at it next
    looked    when it was looked at last, and `ran` what its process had had of a core then
    age       what the item has had since the first look, of a core or of sleep
    asleep    whether its process used no core at the last look, so that another worker may run beside it
    """

    since: float
    look_due: float
    looked: float | None = None
    ran: float = 0.0
    age: float = 0.0
    asleep: bool = False

    def look(self, pid: int, now: float) -> bool:
        """Note what it has had since the last look; says whether it was asleep at both."""
        slept = self.asleep
        self.asleep, ran = is_asleep(pid), seconds_on_a_core(pid)
        if self.looked is not None:
            passed = now - self.looked
            self.age += passed if self.asleep or ran is None else min(passed, ran - self.ran)
        self.looked, self.ran = now, ran or 0.0
        return slept and self.asleep


def seconds_on_a_core(pid: int) -> float | None:
    """What the process has had of a core since it was born; None where the system does not say."""
    with contextlib.suppress(ValueError, IndexError):
        return int(kernel.of_process(pid, "schedstat").split()[0]) / 1e9
    return None


def is_asleep(pid: int) -> bool:
    """Does it wait for something other than a core, and does the system say so? One that stopped itself does."""
    return kernel.of_process(pid, "stat").rpartition(b") ")[2][:1] not in (b"R", b"")
