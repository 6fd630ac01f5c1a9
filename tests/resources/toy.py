"""Small policies that learn for real, and rounds of them without an env: what every executor is tried on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from learners.example import Example
from learners.protocol import Learner
from learners.resources.executor import Executor
from learners.tabular import TabularLearner
from mutual_env.seeding import derive_seed
from mutual_env.types import Completion, Metrics

PROMPTS = ("1+1=", "2+3=", "4+4=")
Makers = Mapping[str, Callable[[], Learner]]


class Fragile(TabularLearner):
    """Dies, hangs or raises at its update number `at`, as long as the file `fuse` can be taken away (or always)."""

    def __init__(self, name: str, how: str, at: int, fuse: str = "") -> None:
        super().__init__(name=name)
        self._how, self._at, self._fuse = how, at, Path(fuse)

    def update(self, examples: Sequence[Example]) -> Metrics:
        if self.version == self._at and self._goes_off():
            if self._how == "dies after":
                super().update(examples)
            if self._how == "hangs":
                time.sleep(3600.0)
            if self._how == "raises":
                raise ArithmeticError("the loss is not a number")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().update(examples)

    def _goes_off(self) -> bool:
        if not self._fuse.name:
            return True
        there = self._fuse.exists()
        self._fuse.unlink(missing_ok=True)
        return there


def makers(*names: str) -> dict[str, Callable[[], Learner]]:
    return {name: partial(TabularLearner, name=name, max_new_tokens=4 + index) for index, name in enumerate(names)}


def examples_of(groups: Sequence[Sequence[Completion]], learner: Learner) -> list[Example]:
    """An even number is good: any rule does, as long as it moves the weights."""
    found = []
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for completion in group:
            size = completion.token_ids.size
            credit = 1.0 if size and completion.token_ids[0] % 2 == 0 else -0.5
            ids = learner.tokenizer.render_prompt(prompt)
            found.append(Example(ids, completion.token_ids, np.ones(size, bool), np.full(size, credit)))
    return found


def run_round(executor: Executor, learners: Mapping[str, Learner], number: int) -> dict[str, Metrics]:
    """Act, then learn from it."""
    seed = derive_seed(0, "act", number)
    acted = executor.map("act", {name: partial(one.act, PROMPTS, 4, seed=seed) for name, one in learners.items()})
    lessons = {name: examples_of(groups, learners[name]) for name, groups in acted.items()}
    return executor.map("update", {name: partial(learners[name].update, lessons[name]) for name in lessons})


def run_rounds(executor: Executor, makers: Makers, rounds: int) -> list[dict[str, Metrics]]:
    """The metrics of each round, each policy's version and one of its last samples."""
    try:
        learners = executor.host(makers)
        history = [run_round(executor, learners, number) for number in range(rounds)]
        last = {name: one.act(PROMPTS, 2, seed=1) for name, one in learners.items() if name not in executor.parked}
        ends = {name: {"version": float(learners[name].version), "sum": _sum(groups)} for name, groups in last.items()}
        return [*history, ends]
    finally:
        executor.close()


def _sum(groups: Sequence[Sequence[Completion]]) -> float:
    return float(sum(completion.logprobs.sum() for group in groups for completion in group))
