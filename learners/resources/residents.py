"""Whose state is on its device and whose in the machine's memory, while policies take turns there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from learners.protocol import Measured, Movable
from learners.resources.demand import Lease
from learners.resources.record import MOVE, Incident, Span

LOOK_SECONDS = 0.5


@dataclass(slots=True, eq=False)
class Residents:
    """Moves what a lease needs moved, in the thread that holds it. `clock` and `add` are the record's, `note` its
    events; `took` is told how long a policy's coming back took."""

    clock: Callable[[], float]
    add: Callable[[Span], None]
    note: Callable[[Incident, str, str], None]
    took: Callable[[str, float], None]
    learners: dict[str, object] = field(default_factory=dict)
    _away: set[str] = field(default_factory=set)
    _leaving: dict[str, threading.Event] = field(default_factory=dict)

    def promise(self, lease: Lease) -> None:
        """The lease has been granted: these will go before it begins, and none of them comes back before that."""
        for policy in lease.moved:
            self._leaving[policy] = threading.Event()

    def make_room(self, lease: Lease, limit: float) -> None:
        """In the thread that holds the lease: the others out, the policy itself in."""
        for policy in lease.moved:
            try:
                self._move(policy, lease, out=True)
            finally:
                self._leaving.pop(policy).set()
        leaving = self._leaving.get(lease.policy)
        ends = self.clock() + limit
        while leaving is not None and self.clock() < ends and not leaving.wait(timeout=LOOK_SECONDS):
            pass
        if lease.policy in self._away:
            self._move(lease.policy, lease, out=False)

    def measure(self, policy: str) -> tuple[int, int] | None:
        """What a policy holds on its device, and its peak since it was last asked."""
        learner = self.learners.get(policy)
        return learner.memory() if isinstance(learner, Measured) else None

    def _move(self, policy: str, lease: Lease, *, out: bool) -> None:
        learner = self.learners.get(policy)
        if not isinstance(learner, Movable):
            return
        began = self.clock()
        try:
            (learner.offload if out else learner.restore)()
        except Exception as error:
            if not out:
                raise
            self.note("died", policy, f"while it made room: {error}")  # its worker is gone, and with it what it held
        (self._away.add if out else self._away.discard)(policy)
        ended = self.clock()
        self.add(Span(policy, MOVE, tuple(map(str, lease.devices)), began, began, ended, share=0.0))
        if not out:
            self.took(policy, ended - began)
