"""The executors of one machine: the same numbers as one policy after the other, whatever dies on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from learners.resources.clock import SteadyClock
from learners.resources.demand import Demand, Needs, Node, Patience, Supply
from learners.resources.executor import Executor, SerialExecutor
from learners.resources.processes import ProcessExecutor
from learners.resources.testing import check_executor
from learners.resources.threads import ThreadExecutor
from mutual_env.errors import ConfigError, ConformanceError, DeadlineExceededError, InvalidInputError, WorkerLostError
from tests.resources.toy import Fragile, makers, run_rounds
from tests.tiers import rest_long

TWO_CORES = Supply((Node("local", 2.0),))
QUICK = Patience(reserve=5.0, limit=60.0, restarts=2, restart_limit=60.0)


def quick_demands(*policies: str, limit: float = 30.0) -> list[Demand]:
    needs = Needs(seconds=0.1, limit=limit)
    return [Demand(policy, {"act": needs, "update": needs}) for policy in policies]


def events(executor: Executor) -> dict[str, int]:
    counts = executor.record.summary()["events"]
    assert isinstance(counts, dict)
    return counts  # type: ignore[return-value]


@pytest.mark.parametrize("make", rest_long([ThreadExecutor, ProcessExecutor], quick=1))
def test_every_executor_keeps_the_shipped_contract(make: Callable[..., Executor]) -> None:
    check_executor(lambda policies: make(quick_demands(*policies), TWO_CORES, QUICK))


def test_the_serial_executor_keeps_it_too() -> None:
    check_executor(lambda policies: SerialExecutor())


class Backwards(SerialExecutor):
    def map(self, phase: str, calls: Any) -> Any:
        return dict(reversed(super().map(phase, calls).items()))


class Silent(SerialExecutor):
    def map(self, phase: str, calls: Any) -> Any:
        try:
            return super().map(phase, calls)
        except ArithmeticError:
            return {}


class Nameless(SerialExecutor):
    def map(self, phase: str, calls: Any) -> Any:
        try:
            return super().map(phase, calls)
        except ArithmeticError as error:
            raise ArithmeticError(str(error)) from None


class Shared(SerialExecutor):
    """One policy under every name."""

    def host(self, makers: Any) -> Any:
        return dict.fromkeys(makers, super().host(makers)["a"])


@pytest.mark.parametrize(
    ("faulty", "sentence"),
    [
        (Backwards, "results must come in the order of the calls"),
        (Silent, "an error of a learner must be raised"),
        (Nameless, "must name policy and phase in a note"),
        (Shared, "round 0 must be that of the serial executor"),
    ],
)
def test_an_executor_that_breaks_the_contract_is_told_how(faulty: type[SerialExecutor], sentence: str) -> None:
    with pytest.raises(ConformanceError, match=sentence):
        check_executor(lambda policies: faulty())


@pytest.mark.parametrize("how", rest_long(["hangs", "dies", "dies after"], quick=1))
def test_a_worker_that_dies_or_hangs_is_replaced_and_the_numbers_stay_the_same(how: str, tmp_path: Path) -> None:
    fuse = tmp_path / "fuse"
    fuse.touch()
    # the state is put aside every 3 updates: at update 4 there is one update to do again
    executor = ProcessExecutor(quick_demands("a", "b", limit=3.0), TWO_CORES, QUICK, keep=3)
    policies = {"a": partial(Fragile, "a", how, 4, str(fuse)), **makers("b")}
    expected = run_rounds(SerialExecutor(), {"a": partial(Fragile, "a", how, -1), **makers("b")}, 6)
    assert run_rounds(executor, policies, 6) == expected
    assert not fuse.exists()
    assert events(executor) == {"hung" if how == "hangs" else "died": 1, "restarted": 1}
    assert executor.parked == {}


@pytest.mark.long
def test_workers_killed_at_random_moments_change_nothing() -> None:
    expected = run_rounds(SerialExecutor(), makers("a", "b"), 25)
    executor = ProcessExecutor(quick_demands("a", "b"), TWO_CORES, Patience(restarts=20), keep=4)
    over = threading.Event()
    killed = []

    def kill_now_and_then() -> None:
        while not over.wait(timeout=0.4 + 0.1 * (len(killed) % 5)):
            for _name, host in list(executor.hosts.items())[len(killed) % 2 :]:
                host.kill()
                killed.append(host)
                break
            if len(killed) == 4:
                return

    killer = threading.Thread(target=kill_now_and_then, daemon=True)
    killer.start()
    try:
        assert run_rounds(executor, makers("a", "b"), 25) == expected
    finally:
        over.set()
        killer.join(timeout=10.0)
    assert len(killed) >= 1


@pytest.mark.long
def test_a_policy_whose_worker_keeps_dying_is_parked_and_the_others_go_on() -> None:
    executor = ProcessExecutor(quick_demands("bad", "good"), TWO_CORES, QUICK)
    history = run_rounds(executor, {"bad": partial(Fragile, "bad", "dies", 1), **makers("good")}, 4)
    assert [sorted(metrics) for metrics in history] == [["bad", "good"], ["good"], ["good"], ["good"], ["good"]]
    assert "its worker failed 3 times in update" in executor.parked["bad"]
    assert events(executor) == {"died": 3, "restarted": 2, "parked": 1}


def test_a_loop_that_loses_everybody_ends_with_a_sentence() -> None:
    executor = ProcessExecutor(quick_demands("bad"), TWO_CORES, QUICK)
    with pytest.raises(WorkerLostError, match="policy 'bad' was given up"):
        run_rounds(executor, {"bad": partial(Fragile, "bad", "dies", 0)}, 1)


@pytest.mark.parametrize("make", [ThreadExecutor, ProcessExecutor])
def test_an_error_of_the_learner_itself_is_raised_and_not_retried(make: Callable[..., Executor]) -> None:
    executor = make(quick_demands("a", "b"), TWO_CORES, QUICK)
    with pytest.raises(ArithmeticError, match="not a number") as caught:
        run_rounds(executor, {"a": partial(Fragile, "a", "raises", 1), **makers("b")}, 3)
    assert "policy 'a', phase 'update'" in caught.value.__notes__
    assert events(executor) == {}


@pytest.mark.long
def test_a_worker_that_goes_on_from_a_checkpoint_survives_too(tmp_path: Path) -> None:
    first = ProcessExecutor(quick_demands("a"), TWO_CORES, QUICK)
    learner = first.host(makers("a"))["a"]
    learner.update([])
    learner.save(tmp_path)
    first.close()
    second = ProcessExecutor(quick_demands("a"), TWO_CORES, QUICK)
    learner = second.host(makers("a"))["a"]
    try:
        learner.load(tmp_path)
        for path in tmp_path.iterdir():
            path.unlink()
        learner.update([])
        second.hosts["a"].kill()
        assert learner.act(["1+1="], 1, seed=0)
        assert learner.version == 2
    finally:
        second.close()


def test_a_call_that_hangs_in_a_thread_is_given_up_and_the_others_go_on() -> None:
    executor = ThreadExecutor(quick_demands("a", "b", limit=0.5), TWO_CORES, Patience(restarts=0))
    block = threading.Event()
    started = time.monotonic()
    assert executor.map("act", {"a": lambda: block.wait(timeout=30.0), "b": lambda: 2}) == {"b": 2}
    assert time.monotonic() - started < 10.0
    assert "did not finish phase 'act'" in executor.parked["a"]
    assert executor.map("act", {"a": lambda: 1, "b": lambda: 2}) == {"b": 2}
    block.set()
    executor.close()


def test_no_more_runs_at_once_than_there_are_cores() -> None:
    executor = ThreadExecutor(quick_demands("a", "b", "c", "d"), TWO_CORES, QUICK)
    lock = threading.Lock()
    running, most = 0, 0

    def call() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.05)
        with lock:
            running -= 1

    for _ in range(3):
        executor.map("act", dict.fromkeys("abcd", call))
    assert most == 2
    assert executor.record.policies()["d"].longest_wait > 0.0
    executor.close()


def test_a_demand_that_can_never_fit_is_a_sentence_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match="cpus=2 instead of 3"):
        ThreadExecutor([Demand("a", {"act": Needs(cpus=3)})], TWO_CORES)


def test_a_call_under_a_lease_must_not_start_another() -> None:
    executor = ThreadExecutor(quick_demands("a"), TWO_CORES)
    with pytest.raises(InvalidInputError, match="inside a call under a lease"):
        executor.map("act", {"a": lambda: executor.map("update", {"a": lambda: 1})})
    executor.close()


def test_a_clock_that_is_set_back_makes_no_wait_longer() -> None:
    readings = [0.0, 1.0, 2.0, -3600.0, -3599.0, -3598.0]
    clock = SteadyClock(iter(readings).__next__)
    assert [clock() for _ in range(5)] == [1.0, 2.0, 2.0, 3.0, 4.0]


def test_a_clock_that_leaps_ahead_ends_a_wait_with_its_sentence() -> None:
    leap = 0.0
    executor = ThreadExecutor(
        quick_demands("a", limit=50.0), TWO_CORES, Patience(restarts=0), clock=lambda: time.monotonic() + leap
    )
    block = threading.Event()
    started = threading.Event()

    def call() -> None:
        started.set()
        block.wait(timeout=30.0)

    def jump() -> None:
        nonlocal leap
        assert started.wait(timeout=10.0)
        leap = 3600.0

    thread = threading.Thread(target=jump, daemon=True)
    thread.start()
    with pytest.raises(DeadlineExceededError, match="did not finish phase 'act' within 50 s"):
        executor.map("act", {"a": call})
    block.set()
    thread.join(timeout=10.0)
    executor.close()


def test_a_cluster_that_shrinks_under_a_waiting_policy_is_a_sentence() -> None:
    supply = Supply((Node("small", 1.0), Node("large", 4.0)))
    executor = ThreadExecutor([Demand("a", {"act": Needs(cpus=4)}), *quick_demands("b")], supply, QUICK)
    executor.shrink("large")
    assert executor.map("act", {"a": lambda: 1, "b": lambda: 2}) == {"b": 2}
    assert "cpus=1 instead of 4" in executor.parked["a"]
    executor.close()
