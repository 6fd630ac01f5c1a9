"""Asynchronous rounds: each policy at its own pace, none further ahead than the staleness that its strategy accepts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from learners.resources.demand import Rounds
from learners.resources.executor import Executor
from mutual_env.errors import DeadlineExceededError, InvalidInputError

TICK = 0.5  # seconds between two looks at who has been parked


@dataclass(frozen=True, slots=True)
class Steps:
    """One policy's round in two halves. `sample` acts, verifies and publishes; `learn` reads the peers and updates.

    Each asks `executor.map` for its own policy alone. Between them lies the meeting point.
    """

    sample: Callable[[int], object]
    learn: Callable[[int], object]


def run_at_own_pace(
    executor: Executor, rounds: Rounds, policies: Mapping[str, Steps], *, limit: float
) -> dict[str, int]:
    """Every policy through its rounds in a thread of its own; how many rounds each has completed.

    Nobody learns in round r before everybody who is not parked has sampled round r - staleness. The run is given up
    after `limit` seconds in which no policy finished half a round. The first error ends all, and is raised.
    """
    if not policies:
        raise InvalidInputError("policies is empty: give at least one")
    pace = _Pace(executor, rounds, list(policies), limit)
    threads = [
        threading.Thread(target=pace.drive, args=(name, steps), name=f"pace {name}", daemon=True)
        for name, steps in policies.items()
    ]
    for thread in threads:
        thread.start()
    pace.watch(threads)
    return dict(pace.completed)


class _Pace:
    def __init__(self, executor: Executor, rounds: Rounds, policies: list[str], limit: float) -> None:
        self._executor, self._rounds, self._limit = executor, rounds, limit
        self._condition = threading.Condition()
        self._sampled = dict.fromkeys(policies, 0)
        self.completed = dict.fromkeys(policies, 0)
        self._error: BaseException | None = None
        self._moved = time.monotonic()

    def drive(self, policy: str, steps: Steps) -> None:
        try:
            for number in range(self._rounds.count):
                steps.sample(number)
                self._step(self._sampled, policy)
                if not self._meet(policy, number):
                    return
                steps.learn(number)
                if policy in self._executor.parked:
                    return
                self._step(self.completed, policy)
        except BaseException as error:  # a boundary: raised in the thread that called
            with self._condition:
                if policy not in self._executor.parked:
                    self._error = self._error or error
                self._condition.notify_all()

    def watch(self, threads: list[threading.Thread]) -> None:
        """Until all have ended, one has failed, or nothing has moved for too long."""
        with self._condition:
            while any(thread.is_alive() for thread in threads) and self._error is None:
                if time.monotonic() - self._moved > self._limit:
                    behind = min(self._sampled, key=lambda name: self._sampled[name])
                    self._error = DeadlineExceededError(
                        f"no policy has finished anything for {self._limit:.0f} s; the furthest behind is {behind!r}, "
                        f"in round {self._sampled[behind]}: raise the limit, or find out what it hangs on"
                    )
                self._condition.wait(timeout=TICK)
        if self._error is not None:
            raise self._error

    def _step(self, count: dict[str, int], policy: str) -> None:
        with self._condition:
            count[policy] += 1
            self._moved = time.monotonic()
            self._condition.notify_all()

    def _meet(self, policy: str, number: int) -> bool:
        """Wait for those who are further behind than may be; False where there is nothing to go on for."""
        with self._condition:
            while self._error is None and policy not in self._executor.parked:
                others = [done for name, done in self._sampled.items() if name not in self._executor.parked]
                if min(others) > number - self._rounds.staleness:
                    return True
                self._condition.wait(timeout=TICK)
        return False
