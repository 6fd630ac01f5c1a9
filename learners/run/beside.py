"""A policy's sampling beside its own training: by a second copy of it, which has the weights of the round before.

In asynchronous rounds a policy samples round r with weights that have learnt from all rounds before r - s, and learns
from round r - s after that: neither needs the other. So a copy that is given the weights before an update samples while
that update is made, and all numbers are those of one after the other.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, TypeVar

from learners.aside import Aside
from learners.protocol import Learner, save_aside
from learners.resources.demand import LOAD
from learners.resources.executor import Executor
from learners.run.ahead import Ahead, Samplers, side_by_side
from learners.run.rollout import Act, Asked, Groups, Turn
from mutual_env.types import Metrics

T = TypeVar("T")

COPY = "copy"  # a call of the policy itself that takes no lease: its state, into the machine's memory


@dataclass(frozen=True, slots=True)
class TwinCalls:
    """Learners that stand in for policies, by the names of these, and what the executor calls them."""

    learners: Mapping[str, Learner]
    executor: Executor
    called: Callable[[str], str]

    def map(self, phase: str, calls: Mapping[str, Callable[[], T]]) -> dict[str, T]:
        done = self.executor.map(phase, {self.called(name): call for name, call in calls.items()})
        return {name: done[self.called(name)] for name in calls if self.called(name) in done}


class Beside(Ahead):
    """As `Ahead` for the policies of a loop, whose copies sample from the beginning of the update on."""

    __slots__ = ("_aside", "_copies", "_next", "_policies", "_samplers")
    least: ClassVar[int] = 1

    def __init__(self, policies: Mapping[str, Learner], samplers: Samplers) -> None:
        super().__init__()
        self._policies, self._samplers = policies, samplers
        self._aside = Aside("mutual-env-sampler-")
        self._copies = 0
        self._next = -1  # the round that the copies sample

    def samples(self, round: int) -> Samplers | None:
        return self._samplers if round == self._next else None

    def learn_and_go_on(
        self, executor: Executor, updates: Mapping[str, Callable[[], Metrics]], round: int, first: Turn, act: Act
    ) -> dict[str, Metrics]:
        self._next = round
        self._copies += 1
        place = self._aside.path / str(self._copies)
        copies = {name: partial(copied, self._policies[name], place / name) for name in updates}
        left = executor.map(COPY, copies)
        asked, answers = first.asked(list(updates)), self._begin(round, first, updates)
        return side_by_side(
            executor,
            {
                **{name: partial(executor.map, "update", {name: update}) for name, update in updates.items()},
                "samplers of " + ", ".join(updates): partial(self._sample, left, place, asked, act, answers),
            },
        )

    def close(self) -> None:
        self._aside.close()

    def _sample(
        self,
        left: Mapping[str, Callable[[], None]],
        place: Path,
        asked: Mapping[str, Asked],
        act: Act,
        answers: dict[str, Groups],
    ) -> dict[str, Metrics]:
        for write in left.values():
            write()
        self._samplers.map(LOAD, {name: partial(self._samplers.learners[name].load, place / name) for name in left})
        shutil.rmtree(place)
        answers.update(act(asked))
        return {}


def copied(policy: Learner, directory: Path) -> Callable[[], None]:
    directory.mkdir(parents=True)
    return save_aside(policy, directory)
