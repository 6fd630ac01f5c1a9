"""What every executor must do, ours or a third party's.

    from learners.resources.testing import check_executor

    def test_my_executor_conforms():
        check_executor(lambda policies: MyExecutor([Demand(name, PHASES) for name in policies], ...))

`make_executor` builds a fresh executor with room for policies of these names; all phases are `act` and `update`. It
holds small tabular learners, so no phase takes long.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import TypeAlias

import numpy as np

from learners.example import Example
from learners.protocol import Learner
from learners.resources.executor import Executor, SerialExecutor
from learners.tabular import TabularLearner
from mutual_env.errors import ConformanceError
from mutual_env.seeding import derive_seed
from mutual_env.types import Completion, Metrics

MakeExecutor: TypeAlias = Callable[[Sequence[str]], Executor]
Makers: TypeAlias = Mapping[str, Callable[[], Learner]]

PROMPTS = ("1+1=", "2+3=", "4+4=")
JOIN_SECONDS = 120.0
"""How long the threads of one check may take together."""

_POLICIES = ("a", "b", "c")
_require = ConformanceError.unless


def check_executor(make_executor: MakeExecutor) -> None:
    """Raise a ConformanceError that says what an executor broke. See each check's docstring."""
    for check in (
        _gives_the_numbers_of_the_serial_one,
        _answers_in_the_order_of_the_calls,
        _raises_what_a_learner_raised,
        _keeps_a_record,
        _serves_several_threads,
        _closes_twice,
    ):
        check(make_executor)


def run_rounds(executor: Executor, makers: Makers, rounds: int) -> list[dict[str, Metrics]]:
    """The metrics of each round, and each policy's version and the sum of its last samples' log-probabilities. The
    executor is closed at the end."""
    with closing(executor):
        learners = executor.host(makers)
        history = [run_round(executor, learners, number) for number in range(rounds)]
        last = {name: one.act(PROMPTS, 2, seed=1) for name, one in learners.items() if name not in executor.parked}
        ends = {name: {"version": float(learners[name].version), "sum": _sum(groups)} for name, groups in last.items()}
        return [*history, ends]


def run_round(executor: Executor, learners: Mapping[str, Learner], number: int) -> dict[str, Metrics]:
    """Act, then learn from it."""
    seed = derive_seed(0, "act", number)
    acted = executor.map("act", {name: partial(one.act, PROMPTS, 4, seed=seed) for name, one in learners.items()})
    lessons = {name: examples_of(groups, learners[name]) for name, groups in acted.items()}
    return executor.map("update", {name: partial(learners[name].update, lessons[name]) for name in lessons})


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


def makers(*names: str) -> dict[str, Callable[[], Learner]]:
    """Tabular learners of these names, each of its own length."""
    return {name: partial(TabularLearner, name=name, max_new_tokens=4 + index) for index, name in enumerate(names)}


class Sour(TabularLearner):
    """Its second update cannot be made."""

    def update(self, examples: Sequence[Example]) -> Metrics:
        if self.version == 1:
            raise ArithmeticError("the loss is not a number")
        return super().update(examples)


def _gives_the_numbers_of_the_serial_one(make_executor: MakeExecutor) -> None:
    """Whatever runs at the same time, the numbers are those of one policy after the other, bit for bit."""
    expected = run_rounds(SerialExecutor(), makers(*_POLICIES), 3)
    got = run_rounds(make_executor(_POLICIES), makers(*_POLICIES), 3)
    for number, (one, other) in enumerate(zip(expected, got, strict=True)):
        _require(one == other, f"round {number} must be that of the serial executor: expected {one}, got {other}")


def _answers_in_the_order_of_the_calls(make_executor: MakeExecutor) -> None:
    """Results come by policy in the order of the calls, whoever is first; no calls, no results."""
    with _hosting(make_executor) as (executor, learners):
        _require(set(learners) == set(_POLICIES), f"host must return every policy by name, got {sorted(learners)}")
        _require(executor.map("act", {}) == {}, "a map of no calls must return nothing")
        for order in (_POLICIES[::-1], _POLICIES[1:]):
            acted = executor.map("act", {name: partial(learners[name].act, PROMPTS, 1, seed=0) for name in order})
            _require(list(acted) == list(order), f"results must come in the order of the calls, got {list(acted)}")
        _require(dict(executor.parked) == {}, f"nobody must be parked where nothing failed, got {executor.parked}")


def _raises_what_a_learner_raised(make_executor: MakeExecutor) -> None:
    """An error of a learner is raised as it is, with a note that names policy and phase, after the calls that were made
    have ended; it is not tried again, and the executor goes on."""
    policies: Makers = {**makers(*_POLICIES), "b": partial(Sour, name="b")}
    with _hosting(make_executor, policies) as (executor, learners):
        run_round(executor, learners, 0)
        _require(_error_of(executor, learners) is not None, "an error of a learner must be raised")
        versions = {name: learner.version for name, learner in learners.items()}
        ended = versions["a"] == 2 and versions["b"] == 1
        _require(ended, f"a's update was asked for before b's and must have ended, b's has failed: {versions}")
        _require(dict(executor.parked) == {}, "a learner's own error must not park it")
        acted = executor.map("act", {name: partial(one.act, PROMPTS, 1, seed=0) for name, one in learners.items()})
        _require(set(acted) == set(_POLICIES), "an executor must go on after a learner's error")


def _error_of(executor: Executor, learners: Mapping[str, Learner]) -> ArithmeticError | None:
    try:
        run_round(executor, learners, 1)
    except ArithmeticError as error:
        notes = getattr(error, "__notes__", [])
        _require("policy 'b', phase 'update'" in notes, f"an error must name policy and phase in a note, got {notes}")
        return error
    return None


def _keeps_a_record(make_executor: MakeExecutor) -> None:
    """Every call is a lease in the record, with its times in order."""
    with _hosting(make_executor) as (executor, learners):
        for number in range(2):
            run_round(executor, learners, number)
        leases = {name: usage.leases for name, usage in executor.record.policies().items()}
        _require(leases == dict.fromkeys(_POLICIES, 4), f"two rounds of two phases are 4 leases each, got {leases}")
        for name, usage in executor.record.policies().items():
            times = (usage.busy, usage.waiting, usage.idle)
            _require(min(times) >= 0.0 and usage.busy > 0.0, f"{name} must have been busy, got {usage}")


def _serves_several_threads(make_executor: MakeExecutor) -> None:
    """Policies at their own pace, each from a thread: the numbers are those that it has alone."""
    expected = {name: run_rounds(SerialExecutor(), {name: makers(*_POLICIES)[name]}, 3)[:-1] for name in _POLICIES}
    got: dict[str, list[dict[str, Metrics]]] = {}
    failed: list[BaseException] = []

    def work(name: str) -> None:
        try:
            got[name] = [run_round(executor, {name: learners[name]}, number) for number in range(3)]
        except Exception as error:  # a thread's error would be printed and lost
            failed.append(error)

    with _hosting(make_executor) as (executor, learners):
        threads = [threading.Thread(target=work, args=(name,), daemon=True) for name in _POLICIES]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=JOIN_SECONDS)
        _require(not any(thread.is_alive() for thread in threads), f"threads were not done after {JOIN_SECONDS} s each")
        _require(not failed, f"maps from several threads must not fail: {failed[:1]}")
    _require(got == expected, f"policies at their own pace must learn what they learn alone: {expected}, got {got}")


def _closes_twice(make_executor: MakeExecutor) -> None:
    """Closing is safe to repeat, also where nothing was hosted."""
    executor = make_executor(_POLICIES)
    executor.close()
    executor.close()


@contextmanager
def _hosting(
    make_executor: MakeExecutor, policies: Makers | None = None
) -> Iterator[tuple[Executor, Mapping[str, Learner]]]:
    with closing(make_executor(_POLICIES)) as executor:
        yield executor, executor.host(policies or makers(*_POLICIES))


def _sum(groups: Sequence[Sequence[Completion]]) -> float:
    return float(sum(completion.logprobs.sum() for group in groups for completion in group))
