"""Asynchronous rounds: a fast policy gets ahead, by the staleness and no further."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from learners.resources.demand import Demand, Needs, Node, Patience, Rounds, Supply
from learners.resources.pace import Steps, run_at_own_pace
from learners.resources.threads import ThreadExecutor
from mutual_env.errors import DeadlineExceededError


def executor(*policies: str, limit: float = 30.0) -> ThreadExecutor:
    needs = Needs(limit=limit)
    demands = [Demand(policy, {"act": needs, "update": needs}) for policy in policies]
    return ThreadExecutor(demands, Supply((Node("n", 4.0),)), Patience(restarts=0))


class Track:
    """Steps that take a given time, and the greatest age of a peer's newest experience when a policy learnt."""

    def __init__(self, runner: ThreadExecutor) -> None:
        self.runner, self.lock = runner, threading.Lock()
        self.published: dict[str, int] = {}
        self.ages: list[int] = []

    def steps(self, policy: str, seconds: float, fail: Callable[[int], None] = lambda number: None) -> Steps:
        self.published[policy] = -1

        def sample(number: int) -> None:
            self.runner.map("act", {policy: lambda: time.sleep(seconds)})
            with self.lock:
                self.published[policy] = number

        def learn(number: int) -> None:
            fail(number)
            with self.lock:
                here = {p: n for p, n in self.published.items() if p not in self.runner.parked}
                self.ages.append(number - min(here.values()))
            self.runner.map("update", {policy: lambda: None})

        return Steps(sample, learn)


@pytest.mark.parametrize("staleness", [0, 2])
def test_nobody_learns_from_experience_older_than_the_staleness(staleness: int) -> None:
    runner = executor("fast", "slow")
    track = Track(runner)
    policies = {"fast": track.steps("fast", 0.0), "slow": track.steps("slow", 0.05)}
    assert run_at_own_pace(runner, Rounds(8, staleness), policies, limit=30.0) == {"fast": 8, "slow": 8}
    assert max(track.ages) == staleness  # it is used, and not exceeded
    runner.close()


def test_a_policy_that_is_parked_holds_nobody_back() -> None:
    runner = executor("good", "stuck", limit=0.5)
    track, block = Track(runner), threading.Event()
    stuck = Steps(lambda number: runner.map("act", {"stuck": lambda: block.wait(timeout=20.0)}), lambda number: None)
    done = run_at_own_pace(runner, Rounds(3), {"good": track.steps("good", 0.0), "stuck": stuck}, limit=30.0)
    assert done == {"good": 3, "stuck": 0}
    assert list(runner.parked) == ["stuck"]
    block.set()
    runner.close()


def test_the_first_error_ends_the_run_and_is_raised() -> None:
    runner = executor("a", "b")
    track = Track(runner)

    def fail(number: int) -> None:
        if number == 2:
            raise ArithmeticError("the loss is not a number")

    with pytest.raises(ArithmeticError, match="not a number"):
        run_at_own_pace(runner, Rounds(5), {"a": track.steps("a", 0.0, fail), "b": track.steps("b", 0.0)}, limit=30.0)
    runner.close()


def test_a_run_in_which_nothing_moves_ends_with_a_sentence() -> None:
    runner, block = executor("a"), threading.Event()
    steps = Steps(lambda number: block.wait(timeout=20.0), lambda number: None)
    with pytest.raises(DeadlineExceededError, match="furthest behind is 'a', in round 0"):
        run_at_own_pace(runner, Rounds(1), {"a": steps}, limit=0.2)
    block.set()
    runner.close()
