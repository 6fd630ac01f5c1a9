"""The seam between a training loop and whatever runs its policies: this thread, several threads or processes, or Ray.

A synchronous round of a loop over it:

    policies = executor.host({"a": partial(learners.make, "tabular", ...), "b": ...})     # name -> Learner, near or far
    acted = executor.map("act", {name: partial(policies[name].act, ...) for name in policies})
    ...                                                                                  # env.step
    batches = executor.map("score", {name: partial(build_batch, ...) for name in acted})  # may read *other* policies
    metrics = executor.map("update", {name: partial(policies[name].update, batches[name]) for name in batches})

Calls of one `map` may run at the same time, so a call must touch its own policy only, except in a phase in which nobody
changes (act, score, verify): what another policy computes must not depend on whether it has been updated already.
Then every executor gives the same numbers to the last bit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar, runtime_checkable

from learners.protocol import Learner
from learners.resources.record import Span, UsageRecord

T = TypeVar("T")


@runtime_checkable
class Executor(Protocol):
    """Runs one call per policy under leases. Every wait in it has a limit."""

    @property
    def record(self) -> UsageRecord:
        """Wait, busy, idle, and what went wrong, so far."""

    @property
    def parked(self) -> Mapping[str, str]:
        """Policies that were given up, each with the reason. `map` leaves them out of its results."""

    def host(self, makers: Mapping[str, Callable[[], Learner]]) -> dict[str, Learner]:
        """Build each policy where it will live. A maker that may travel to another process must be picklable: a
        module-level function or a `functools.partial` of one."""

    def map(self, phase: str, calls: Mapping[str, Callable[[], T]]) -> dict[str, T]:
        """Run every call, each under a lease for its policy's demand in this phase; results in the order of `calls`.

        An error of a call is raised after the others have ended, with a note naming policy and phase. A policy whose
        worker is lost for good is parked and missing from the result; if that leaves nobody, the loss is raised.
        Safe to call from several threads (asynchronous rounds); never from inside a call.
        """

    def close(self) -> None:
        """Close what `host` built and stop every worker. Safe to call twice."""


class SerialExecutor:
    """One call after the other, whoever asks: the reference that every other executor must equal bit for bit."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._record = UsageRecord({"local": 1.0})
        self._hosted: dict[str, Learner] = {}
        self._turn = threading.Lock()

    @property
    def record(self) -> UsageRecord:
        return self._record

    @property
    def parked(self) -> Mapping[str, str]:
        return {}

    def host(self, makers: Mapping[str, Callable[[], Learner]]) -> dict[str, Learner]:
        built = {name: make() for name, make in makers.items()}
        self._hosted.update(built)
        return built

    def map(self, phase: str, calls: Mapping[str, Callable[[], T]]) -> dict[str, T]:
        asked = self._clock() - self._started
        results: dict[str, T] = {}
        with self._turn:
            for policy, call in calls.items():
                began = self._clock() - self._started
                try:
                    results[policy] = call()
                except Exception as error:
                    error.add_note(f"policy {policy!r}, phase {phase!r}")
                    raise
                self._record.add(Span(policy, phase, ("local",), asked, began, self._clock() - self._started))
        return results

    def close(self) -> None:
        while self._hosted:
            self._hosted.popitem()[1].close()
