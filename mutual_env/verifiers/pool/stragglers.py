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

_TYPICAL_TIMES, _FIRST_LOOK = 2.5, 1.5
_LEAST_PATIENCE, _FIRST_PATIENCE, _FRESH_PATIENCE = 0.005, 0.05, 0.1
_SHARE, _COST, _HEAD_START = 0.1, 0.02, 0.1
"""Of the seconds of finished items, what may be spent on workers for those that wait; what one costs; what may be spent
at first."""


@dataclass(slots=True)
class Pace:
    """What past items taught: how long one takes, and how many seconds may yet be spent on workers for those that
    wait."""

    deadline: float
    typical: float | None = None
    credit: float = _HEAD_START

    def patience(self, *, fresh: bool = False) -> float:
        """Seconds after which an item is paused if others wait; a fresh worker's first item is slow."""
        if fresh:
            return max(self.patience(), min(_FRESH_PATIENCE, self.deadline))
        if self.typical is None:
            return min(_FIRST_PATIENCE, self.deadline / 4)
        return min(max(_TYPICAL_TIMES * self.typical, _LEAST_PATIENCE), self.deadline / 4)

    def first_look(self) -> float:
        """Seconds after which a worker is first asked whether it sleeps."""
        return self.patience() * _FIRST_LOOK / _TYPICAL_TIMES

    def next_look(self) -> float:
        """Seconds from one look to the next, while an item may yet be paused or found asleep."""
        return self.first_look() / 2

    def finished(self, seconds: float) -> None:
        seen = min(seconds, 2 * self.patience())  # one slow item must not make the pool patient with the next
        self.typical = seen if self.typical is None else self.typical + 0.05 * (seen - self.typical)
        self.credit += _SHARE * seconds

    def may_pause(self) -> bool:
        return self.credit >= _COST

    def paused(self) -> None:
        self.credit -= _COST


def seconds_on_a_core(pid: int) -> float | None:
    """What the process has had of a core since it was born; None where the system does not say."""
    with contextlib.suppress(ValueError, IndexError):
        return int(kernel.of_process(pid, "schedstat").split()[0]) / 1e9
    return None


def is_asleep(pid: int) -> bool:
    """Does it wait for something other than a core, and does the system say so?"""
    return kernel.of_process(pid, "stat").rpartition(b") ")[2][:1] in (b"S", b"D")
