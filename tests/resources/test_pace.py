"""Asynchronous rounds: a fast policy gets ahead, by the staleness and no further."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing

import pytest

from learners.resources.demand import Demand, Needs, Node, Patience, Rounds, Supply
from learners.resources.executor import Executor, SerialExecutor
from learners.resources.pace import Halves, Learnt, at_own_pace
from learners.resources.threads import ThreadExecutor
from mutual_env.errors import DeadlineExceededError, WorkerLostError


def executor(*policies: str, limit: float = 30.0) -> ThreadExecutor:
    needs = Needs(limit=limit)
    demands = [Demand(policy, {"act": needs, "update": needs}) for policy in policies]
    return ThreadExecutor(demands, Supply((Node("n", 4.0),)), Patience(restarts=0))


def run(
    runner: Executor, rounds: Rounds, policies: Mapping[str, Halves[int]], *, limit: float = 30.0, first: int = 0
) -> list[dict[str, Learnt[int]]]:
    with closing(at_own_pace(runner, rounds, policies, limit=limit, first=first)) as paced:
        return list(paced)


class Track:
    """Halves that take a given time; each `learn` returns how many updates old the weights were that sampled the round,
    and `missing` counts rounds that were learnt from before everybody had sampled them."""

    def __init__(self, runner: Executor) -> None:
        self.runner, self.lock = runner, threading.Lock()
        self.sampled: dict[str, dict[int, int]] = {}  # policy -> round -> version
        self.learnt: dict[str, int] = {}
        self.missing = 0

    def steps(self, policy: str, seconds: float, fail: Callable[[int], None] = lambda number: None) -> Halves[int]:
        self.sampled[policy], self.learnt[policy] = {}, 0

        def sample(number: int) -> None:
            self.runner.map("act", {policy: lambda: time.sleep(seconds)})
            with self.lock:
                self.sampled[policy][number] = self.learnt[policy]

        def learn(number: int) -> int:
            fail(number)
            with self.lock:
                here = [name for name in self.sampled if name not in self.runner.parked]
                self.missing += sum(number not in self.sampled[name] for name in here)
            self.runner.map("update", {policy: lambda: None})
            with self.lock:
                age = self.learnt[policy] - self.sampled[policy][number]
                self.learnt[policy] += 1
            return age

        return Halves(sample, learn)


@pytest.mark.parametrize("staleness", [0, 2])
@pytest.mark.parametrize("make", [lambda: executor("fast", "slow"), SerialExecutor])
def test_everybody_learns_from_what_is_exactly_as_old_as_the_staleness(
    make: Callable[[], Executor], staleness: int
) -> None:
    runner = make()
    track = Track(runner)
    policies = {"fast": track.steps("fast", 0.0), "slow": track.steps("slow", 0.03)}
    learnt = run(runner, Rounds(6, staleness), policies)
    # The first rounds are sampled before anything is learnt: round r < staleness is learnt from after r updates.
    ages = [min(number, staleness) for number in range(6)]
    assert [{name: one.value for name, one in round.items()} for round in learnt] == [
        {"fast": age, "slow": age} for age in ages
    ]
    assert track.missing == 0
    # Ahead by at most the rounds of the delay, and the one that has just been sampled.
    assert max(one.lead for round in learnt for one in round.values()) <= staleness + 1
    runner.close()


def test_the_pace_says_who_was_ahead_and_who_waited() -> None:
    runner = executor("fast", "slow")
    track = Track(runner)
    learnt = run(runner, Rounds(6, 1), {"fast": track.steps("fast", 0.0), "slow": track.steps("slow", 0.1)})
    assert max(round["fast"].lead for round in learnt) >= 1
    assert sum(round["fast"].waited for round in learnt) > sum(round["slow"].waited for round in learnt)
    runner.close()


def test_a_run_goes_on_where_it_stopped() -> None:
    runner = executor("a", "b")
    track = Track(runner)
    policies = {"a": track.steps("a", 0.0), "b": track.steps("b", 0.0)}
    assert len(run(runner, Rounds(7, 1), policies, first=4)) == 3
    assert sorted(track.sampled["a"]) == [4, 5, 6]
    runner.close()


def test_a_policy_that_is_parked_holds_nobody_back() -> None:
    runner = executor("good", "stuck", limit=0.5)
    track, block = Track(runner), threading.Event()
    stuck = Halves(lambda number: runner.map("act", {"stuck": lambda: block.wait(timeout=20.0)}), lambda number: 0)
    learnt = run(runner, Rounds(3, 1), {"good": track.steps("good", 0.0), "stuck": stuck})
    assert [sorted(round) for round in learnt] == [["good"]] * 3
    assert list(runner.parked) == ["stuck"]
    block.set()
    runner.close()


def test_a_run_that_loses_everybody_ends_with_a_sentence() -> None:
    runner, block = executor("stuck", limit=0.3), threading.Event()
    stuck = Halves(lambda number: runner.map("act", {"stuck": lambda: block.wait(timeout=20.0)}), lambda number: 0)
    with pytest.raises(WorkerLostError, match="no policy is left: stuck"):
        run(runner, Rounds(3, 1), {"stuck": stuck})
    block.set()
    runner.close()


def test_the_first_error_ends_the_run_and_is_raised() -> None:
    runner = executor("a", "b")
    track = Track(runner)

    def fail(number: int) -> None:
        if number == 2:
            raise ArithmeticError("the loss is not a number")

    with pytest.raises(ArithmeticError, match="not a number"):
        run(runner, Rounds(5), {"a": track.steps("a", 0.0, fail), "b": track.steps("b", 0.0)})
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pace ")]
    runner.close()


def test_a_run_in_which_nothing_moves_ends_with_a_sentence() -> None:
    runner, block = executor("a"), threading.Event()
    steps = Halves(lambda number: block.wait(timeout=20.0), lambda number: 0)
    with pytest.raises(DeadlineExceededError, match="furthest behind is 'a', in round 0"):
        run(runner, Rounds(1), {"a": steps}, limit=0.2)
    block.set()
    runner.close()
