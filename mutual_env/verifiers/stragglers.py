"""When an item takes much longer than its like, and what its deadline then counts.

An item that outlasts the pool's patience, while others wait behind it, is put aside: a further worker takes over the
others. This changes when an item is verified, and by whom, never what its verdict is, but for one case: the deadline.

The deadline counts the seconds that an item has run or slept, not those in which it waited for a core (where Linux
tells them apart), so the company it keeps does not matter. But if the last items put aside were mostly hangs, the next
are taken for hangs too: they run at the lowest priority and against the wall clock, or a few of them would stop the
pool for `deadline` each.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

_TYPICAL_TIMES = 6.0
_LEAST_PATIENCE = 0.005
_FIRST_PATIENCE = 0.05
_SPARES_WHEN_SUSPICIOUS = 8


@dataclass(slots=True)
class Pace:
    """What past items taught: how long one takes, and whether those that took too long ever came to an end."""

    workers: int
    deadline: float
    typical: float | None = None
    suspicion: float = 0.0

    @property
    def suspicious(self) -> bool:
        return self.suspicion >= 0.5

    def patience(self) -> float:
        """Seconds after which an item is put aside if others wait."""
        if self.typical is None:
            return min(_FIRST_PATIENCE, self.deadline / 4)
        return min(max(_TYPICAL_TIMES * self.typical, _LEAST_PATIENCE), self.deadline / 4)

    def spares(self) -> int:
        """How many items may be put aside at once, each with a process of its own."""
        return self.workers * (_SPARES_WHEN_SUSPICIOUS if self.suspicious else 1)

    def finished(self, seconds: float, *, put_aside: bool) -> None:
        seen = min(seconds, 2 * self.patience())  # one slow item must not make the pool patient with the next
        self.typical = seen if self.typical is None else self.typical + 0.05 * (seen - self.typical)
        if put_aside:
            self.suspicion *= 0.5

    def hung(self) -> None:
        self.suspicion += 0.5 * (1.0 - self.suspicion)


def seconds_waiting(pid: int) -> float:
    """How long the process was ready to run while others ran; 0 where the system does not say."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0


def demote(pid: int) -> None:
    """Let the process run only where a core has nothing else to do."""
    with contextlib.suppress(OSError):
        if sys.platform == "linux":
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        else:
            os.setpriority(os.PRIO_PROCESS, pid, 19)
