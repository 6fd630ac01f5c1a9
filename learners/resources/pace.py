"""Asynchronous rounds: each policy at its own pace, none further ahead than the staleness that its strategy accepts.

    step 0   sample round 0
    step 1   sample round 1
    step 2   sample round 2   meet: everybody has sampled round 0   learn from round 0        (staleness 2)
    step 3   sample round 3   meet: everybody has sampled round 1   learn from round 1
    ...
    the last steps sample nothing, and learn from what is left

The delay is the same in every step, whoever is fast: so what each policy samples and learns, and all numbers with it,
do not depend on who was scheduled when, or was killed and restarted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from learners.resources.demand import Rounds
from learners.resources.executor import Executor
from mutual_env.errors import DeadlineExceededError, InvalidInputError, WorkerLostError

T = TypeVar("T")

TICK_SECONDS = 0.5  # between two looks at who has been parked
LEAVE_SECONDS = 2.0  # that the threads of a run which is given up have to end


@dataclass(frozen=True, slots=True)
class Halves(Generic[T]):
    """One policy's round in two halves. `sample` acts, verifies and publishes; `learn` reads the peers and updates.

    Each asks `executor.map` for its own policy alone. Between them lies the meeting point.
    """

    sample: Callable[[int], object]
    learn: Callable[[int], T]


@dataclass(frozen=True, slots=True)
class Learnt(Generic[T]):
    """What `learn` returned; by how many rounds the policy's sampling was ahead of the slowest's just before that, and
    how many seconds it had waited for it."""

    value: T
    lead: int
    waited: float


def at_own_pace(
    executor: Executor, rounds: Rounds, policies: Mapping[str, Halves[T]], *, limit: float, first: int = 0
) -> Generator[dict[str, Learnt[T]]]:
    """Every policy through the rounds from `first` on, in a thread of its own. Yields each round, in order, as soon as
    everybody who is not parked has learnt from it.

    A policy that is parked is not waited for; if that leaves nobody, its loss is raised. The run is given up after
    `limit` seconds in which no policy finished half a round. The first error ends all, and is raised.
    """
    if not policies:
        raise InvalidInputError("policies is empty: give at least one")
    pace: _Pace[T] = _Pace(executor, rounds, first, list(policies), limit)
    threads = [
        threading.Thread(target=pace.drive, args=(name, steps), name=f"pace {name}", daemon=True)
        for name, steps in policies.items()
    ]
    for thread in threads:
        thread.start()
    try:
        for number in range(first, rounds.count):
            yield pace.learnt(number)
    finally:
        pace.stop()
        ends = time.monotonic() + LEAVE_SECONDS
        for thread in threads:
            thread.join(timeout=max(0.0, ends - time.monotonic()))


class _Pace(Generic[T]):
    def __init__(self, executor: Executor, rounds: Rounds, first: int, policies: list[str], limit: float) -> None:
        self._executor, self._rounds, self._first, self._limit = executor, rounds, first, limit
        self._condition = threading.Condition()
        self._sampled = dict.fromkeys(policies, first)
        self._learnt: dict[int, dict[str, Learnt[T]]] = {}
        self._error: BaseException | None = None
        self._stopped = False
        self._moved = time.monotonic()

    # -- in a policy's thread ------------------------------------------------------------------------------------------

    def drive(self, policy: str, steps: Halves[T]) -> None:
        try:
            for step in range(self._first, self._rounds.count + self._rounds.staleness):
                if step < self._rounds.count:
                    steps.sample(step)
                    self._has_sampled(policy)
                if step - self._rounds.staleness < self._first:
                    continue
                if not self._round_from(policy, step - self._rounds.staleness, steps):
                    return
        except BaseException as error:  # a boundary: raised in the thread that called
            with self._condition:
                if policy not in self._executor.parked:
                    self._error = self._error or error
                self._condition.notify_all()

    def stop(self) -> None:
        with self._condition:
            self._stopped = True
            self._condition.notify_all()

    def _round_from(self, policy: str, number: int, steps: Halves[T]) -> bool:
        """Meet, and learn from that round; False where there is nothing to go on for."""
        began = time.monotonic()
        with self._condition:
            lead = self._sampled[policy] - min(self._here().values(), default=self._sampled[policy])
            while min(self._here().values(), default=0) <= number:
                if self._over(policy):
                    return False
                self._condition.wait(timeout=TICK_SECONDS)
            if self._over(policy):
                return False
        waited = time.monotonic() - began
        value = steps.learn(number)
        with self._condition:
            if self._over(policy):
                return False
            self._learnt.setdefault(number, {})[policy] = Learnt(value, lead, waited)
            self._has_moved()
        return True

    def _has_sampled(self, policy: str) -> None:
        with self._condition:
            self._sampled[policy] += 1
            self._has_moved()

    def _has_moved(self) -> None:
        self._moved = time.monotonic()
        self._condition.notify_all()

    def _over(self, policy: str) -> bool:
        return self._stopped or self._error is not None or policy in self._executor.parked

    def _here(self) -> dict[str, int]:
        """How many rounds everybody has sampled who is not parked."""
        return {name: done for name, done in self._sampled.items() if name not in self._executor.parked}

    # -- in the calling thread -----------------------------------------------------------------------------------------

    def learnt(self, number: int) -> dict[str, Learnt[T]]:
        """Wait until everybody who is left has learnt from this round."""
        with self._condition:
            while self._error is None and self._here().keys() - self._learnt.get(number, {}).keys():
                if time.monotonic() - self._moved > self._limit:
                    self._error = self._stall()
                self._condition.wait(timeout=TICK_SECONDS)
            if self._error is not None:
                raise self._error
            found = self._learnt.pop(number, {})
        if not found:
            lost = ", ".join(sorted(self._sampled))
            raise WorkerLostError(f"round {number}: no policy is left: {lost} are parked; repair and resume")
        return found

    def _stall(self) -> DeadlineExceededError:
        behind = min(self._sampled, key=lambda name: self._sampled[name])
        return DeadlineExceededError(
            f"no policy has finished anything for {self._limit:.0f} s; the furthest behind is {behind!r}, "
            f"in round {self._sampled[behind]}: raise the limit, or find out what it hangs on"
        )
