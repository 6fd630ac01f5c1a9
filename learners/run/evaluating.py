"""Evaluations while a run goes on: of a copy of the policies' states, by twins of the policies that made them.

A sample depends on its seed and on the weights that drew it, so a twin that was given the state of a moment writes what
the policy would have written then. What the run writes meanwhile waits behind the evaluation, so that its files are
those of a run that stood still.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

from learners.aside import Aside
from learners.protocol import Learner
from learners.resources.demand import LOAD
from learners.resources.executor import Executor
from learners.run.beside import TwinCalls, copied
from learners.run.loop import TaskEnv, evaluate
from learners.run.places import twin_of
from mutual_env.errors import WorkerLostError
from mutual_env.types import AgentInfo

Found: TypeAlias = Mapping[str, AgentInfo]

TICK_SECONDS = 0.5  # between two looks, so that a signal is heard


@dataclass(slots=True)
class InOrder:
    """What is done in the order in which it was said, though some of it has to wait for an evaluation."""

    _waiting: deque[tuple[Future[Found] | None, Callable[..., None]]] = field(default_factory=deque)

    def do(self, what: Callable[[], None]) -> None:
        """At once, or as soon as nothing before it waits."""
        self._waiting.append((None, what))
        self._go_on()

    def after(self, found: Future[Found], what: Callable[[Found], None]) -> None:
        """Once it is found."""
        self._waiting.append((found, what))

    def settle(self) -> None:
        """Until all is done."""
        while self._waiting:
            self._go_on()
            if self._waiting and (found := self._waiting[0][0]) is not None:
                _look(found)

    def _go_on(self) -> None:
        while self._waiting and ((found := self._waiting[0][0]) is None or found.done()):
            what = self._waiting.popleft()[1]
            what() if found is None else what(found.result())


def _look(found: Future[Found]) -> None:
    """A little while, or until it is there; how it came out is said by who takes it."""
    try:
        found.exception(timeout=TICK_SECONDS)
    except NotYetError:
        return


class Twins:
    """The policies once more, for evaluations alone: each has a place of its own beside that of its policy."""

    def __init__(self, policies: Collection[str], hosted: Mapping[str, Learner], executor: Executor) -> None:
        """`hosted`: the policies' twins among others."""
        self._twins = TwinCalls({name: hosted[twin_of(name)] for name in policies}, executor, twin_of)
        self._aside = Aside("mutual-env-evaluation-")
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="evaluation")
        self._evaluations = 0

    def evaluate(self, env: TaskEnv, policies: Mapping[str, Learner], seed: int, samples: int) -> Future[Found]:
        """Of the policies as they are now: they may learn on when this returns. One at a time."""
        self._evaluations += 1
        place = self._aside.path / str(self._evaluations)
        left = {name: copied(policy, place / name) for name, policy in policies.items()}
        return self._thread.submit(self._evaluate, env, left, place, seed, samples)

    def close(self) -> None:
        """What is still being made ends when the executor is closed."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._aside.close()

    def _evaluate(
        self, env: TaskEnv, left: Mapping[str, Callable[[], None]], place: Path, seed: int, samples: int
    ) -> Found:
        for write in left.values():
            write()
        twins = {name: self._twins.learners[name] for name in left}
        loaded = self._twins.map(LOAD, {name: partial(twin.load, place / name) for name, twin in twins.items()})
        if lost := sorted(twins.keys() - loaded.keys()):
            raise WorkerLostError(
                f"{', '.join(lost)} could not be evaluated in the background: go on with --resume, which evaluates "
                "again, or set evaluation.background=false"
            )
        shutil.rmtree(place)
        return evaluate(env, twins, seed, samples, self._twins)
