"""Memory is given back: who has no lease makes room for who has one. The learners' device is a number in this file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from learners.example import Example
from learners.protocol import Learner
from learners.resources.demand import GIB, Demand, Needs, Node, Patience, Supply
from learners.resources.executor import SerialExecutor
from learners.resources.processes import ProcessExecutor
from learners.resources.record import MOVE, Span
from learners.resources.testing import run_rounds
from learners.resources.threads import ThreadExecutor
from learners.tabular import TabularLearner
from mutual_env.types import Completion, Context, Metrics, Prompt

CARD = Supply((Node("local", 4.0, gpus=1, gpu_memory=80 * GIB),))
PEAK, KEPT = 60 * GIB, 50 * GIB  # of each policy, in a phase and between two


class Device:
    """A card of 80 GiB. What would be an allocation failure there is an error here."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._lock = threading.Lock()
        self.most = 0

    def hold(self, who: str, size: int) -> None:
        with self._lock:
            self._held[who] = size
            total = sum(self._held.values())
            self.most = max(self.most, total)
        if total > 80 * GIB:
            raise MemoryError(f"{self._held} is more than the card has")


class Heavy(TabularLearner):
    """Takes PEAK of the device in a phase and keeps KEPT afterwards, unless it is sent away."""

    def __init__(self, name: str, device: Device, *, measures: bool) -> None:
        super().__init__(name=name)
        self._device, self._measures, self._on, self.moves = device, measures, False, list[str]()

    def act(self, prompts: Sequence[Prompt | Context], n: int, *, seed: int) -> list[tuple[Completion, ...]]:
        return self._in_phase(lambda: super(Heavy, self).act(prompts, n, seed=seed))

    def update(self, examples: Sequence[Example]) -> Metrics:
        return self._in_phase(lambda: super(Heavy, self).update(examples))

    def offload(self) -> None:
        self.moves.append("out")
        self._on = False
        self._device.hold(self.name, 0)

    def restore(self) -> None:
        self.moves.append("in")
        self._device.hold(self.name, KEPT)

    def memory(self) -> tuple[int, int] | None:
        return (KEPT, PEAK) if self._measures and self._on else (0, 0) if self._measures else None

    def _in_phase(self, call: Callable[[], Any]) -> Any:
        self._on = True
        self._device.hold(self.name, PEAK)
        value = call()
        self._device.hold(self.name, KEPT)
        return value


def declared(name: str) -> Demand:
    needs = Needs(0.1, cpus=0.5, gpus=1.0, memory=PEAK)
    return Demand(name, {"act": needs, "update": needs}, weights=KEPT, offload_seconds=1.0)


def undeclared(name: str) -> Demand:
    needs = Needs(0.1, cpus=0.5, gpus=1.0)
    return Demand(name, {"act": needs, "update": needs})


@pytest.mark.parametrize(("demand", "measures"), [(declared, False), (undeclared, True)])
def test_two_policies_of_which_one_fits_take_turns_and_learn_as_if_both_did(
    demand: Callable[[str], Demand], measures: bool
) -> None:
    plain = run_rounds(SerialExecutor(), {n: lambda n=n: TabularLearner(name=n) for n in "ab"}, 3)  # type: ignore[misc]
    device, built = Device(), dict[str, Heavy]()

    def make(name: str) -> Callable[[], Learner]:
        def made() -> Learner:
            built[name] = Heavy(name, device, measures=measures)
            return built[name]

        return made

    executor = ThreadExecutor([demand("a"), demand("b")], CARD, Patience(restarts=0))
    assert run_rounds_without_the_end(executor, {n: make(n) for n in "ab"}, 3) == plain[:-1]
    assert device.most <= 80 * GIB
    for heavy in built.values():
        assert heavy.moves[:2] == ["out", "in"]
        assert all(one != other for one, other in zip(heavy.moves, heavy.moves[1:], strict=False))
    spans = [item for item in executor.record.take() if isinstance(item, Span)]
    moves = [span for span in spans if span.phase == MOVE]
    assert len(moves) == sum(len(heavy.moves) for heavy in built.values())
    assert {span.share for span in moves} == {0.0}
    again = demand("a").with_seconds(executor.record.phase_seconds())
    mean = executor.record.phase_seconds()["a", MOVE]
    assert again.offload_seconds == 2 * mean


def run_rounds_without_the_end(executor: ThreadExecutor, makers: Any, rounds: int) -> list[dict[str, Metrics]]:
    """`run_rounds` samples at its end outside of leases, where nobody makes room."""
    from learners.resources.testing import run_round

    learners = executor.host(makers)
    history = [run_round(executor, learners, number) for number in range(rounds)]
    executor.close()
    return history


def test_policies_that_fit_together_are_left_where_they_are() -> None:
    device = Device()
    small = [
        Demand(n, {p: Needs(0.1, cpus=0.5, gpus=0.5, memory=30 * GIB) for p in ("act", "update")}, weights=20 * GIB)
        for n in "ab"
    ]
    made = {n: Heavy(n, device, measures=False) for n in "ab"}
    device.hold = lambda who, size: None  # type: ignore[method-assign]
    run_rounds(ThreadExecutor(small, CARD), {n: (lambda n=n: made[n]) for n in "ab"}, 3)  # type: ignore[misc]
    assert [heavy.moves for heavy in made.values()] == [[], []]


class Away(TabularLearner):
    """Says in its metrics how often it went."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)
        self._out = self._in = 0

    def offload(self) -> None:
        self._out += 1

    def restore(self) -> None:
        self._in += 1

    def update(self, examples: Sequence[Example]) -> Metrics:
        return {**super().update(examples), "out": float(self._out), "in": float(self._in)}


def test_a_policy_in_a_process_of_its_own_goes_and_comes_too() -> None:
    executor = ProcessExecutor([declared("a"), declared("b")], CARD)
    history = run_rounds(executor, {name: make_away(name) for name in "ab"}, 3)
    for name in "ab":
        last = history[2][name]
        assert last["out"] >= 2
        assert last["out"] - last["in"] in (0.0, 1.0)


def make_away(name: str) -> Callable[[], Learner]:
    from functools import partial

    return partial(Away, name)
