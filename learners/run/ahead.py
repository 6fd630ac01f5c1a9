"""The next round's sampling, begun by those who have learnt while others still learn.

A policy samples with its own weights alone, and the tasks of a round depend on its number: so what it samples is the
same as after everybody has learnt.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Protocol, TypeVar

from learners.protocol import Learner
from learners.resources.executor import Executor
from learners.run.rollout import Act, Groups, Turn
from mutual_env.errors import DeadlineExceededError, WorkerLostError
from mutual_env.types import Metrics

T = TypeVar("T")

TICK_SECONDS = 0.5  # between two looks, so that a signal is heard


class Samplers(Protocol):
    """Who samples in the place of the policies, by the names of these."""

    @property
    def learners(self) -> Mapping[str, Learner]: ...

    def map(self, phase: str, calls: Mapping[str, Callable[[], T]]) -> dict[str, T]:
        """As `Executor.map`."""


@dataclass(slots=True)
class Ahead:
    """What there is of the round that comes next."""

    _round: int = -1
    _first: Turn | None = None
    _names: frozenset[str] = frozenset()
    _answers: dict[str, Groups] = field(default_factory=dict)
    least: ClassVar[int] = 2
    """Policies that learn; fewer have nobody to go ahead of."""

    def take(self, round: int, names: Collection[str]) -> tuple[Turn, Mapping[str, Groups]] | None:
        """How the round has begun, if it has for all of these policies and no others; it is forgotten here."""
        first, answers = self._first, self._answers
        there = self._round == round and self._names == set(names) == answers.keys()
        self._round, self._first, self._answers = -1, None, {}
        return (first, answers) if there and first is not None else None

    def learn_and_go_on(
        self, executor: Executor, updates: Mapping[str, Callable[[], Metrics]], round: int, first: Turn, act: Act
    ) -> dict[str, Metrics]:
        """Every update, each followed by its own policy's first turn of `round`. As `executor.map`, what is lost is
        missing, and an error is raised when all have ended."""
        asked = first.asked(list(updates))
        answers = self._begin(round, first, updates)

        def go_on(name: str) -> dict[str, Metrics]:
            learnt = executor.map("update", {name: updates[name]})
            if name in learnt:
                try:
                    answers.update(act({name: asked[name]}))
                except (WorkerLostError, DeadlineExceededError):
                    if name not in executor.parked:  # the round begins again without it
                        raise
            return learnt

        return side_by_side(executor, {name: partial(go_on, name) for name in updates})

    def samples(self, round: int) -> Samplers | None:
        """Who samples that round in the place of the policies; None: they themselves."""
        return None

    def _begin(self, round: int, first: Turn, names: Collection[str]) -> dict[str, Groups]:
        """Where the answers of the round that comes next go."""
        self._round, self._first, self._names, self._answers = round, first, frozenset(names), {}
        return self._answers


def side_by_side(executor: Executor, calls: Mapping[str, Callable[[], dict[str, Metrics]]]) -> dict[str, Metrics]:
    """What the calls return, together, in their order. Errors of the parked are not raised, unless nothing is left."""
    results: dict[str, Metrics] = {}
    errors: dict[str, BaseException] = {}

    def run(name: str) -> None:
        try:
            results.update(calls[name]())
        except BaseException as error:  # a boundary: raised in the thread that waits
            errors[name] = error

    threads = [threading.Thread(target=run, args=(name,), name=f"ahead {name}", daemon=True) for name in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(timeout=TICK_SECONDS)
    real = [error for name, error in errors.items() if name not in executor.parked]
    if real or not results:
        raise [*real, *errors.values()][0]
    return {name: results[name] for name in calls if name in results}
