"""The simulator, and what holds of random fleets in it."""

from __future__ import annotations

import os

import numpy as np
import pytest

from benchmarks.fleets import random_fleet
from learners.resources.demand import Demand, Needs, Node, Rounds, Supply
from learners.resources.simulate import Failures, NodeLoss, simulate

FLEETS = int(os.environ.get("FLEETS", "100"))  # `make fleets` tries 10,000


def demand(policy: str, act: float, update: float) -> Demand:
    return Demand(policy, {"act": Needs(seconds=act), "update": Needs(seconds=update)})


def test_two_rounds_on_two_cores_take_what_a_person_works_out() -> None:
    demands = [demand("p0", 1, 1), demand("p1", 2, 1), demand("p2", 3, 1)]
    result = simulate(demands, Supply((Node("n", 2.0),)), Rounds(2))
    # Round 1: p2 0-3 beside p1 0-2, p0 2-3. Then two updates 3-4, and while p0's runs 4-5 p2 acts 4-7, p1 acts 5-7,
    # p0 acts 7-8; last updates 8-9 and 9-10.
    assert result.makespan == 10.0
    # Critical path: 3 to the first meeting, 4 to the second, 1 after it. Work: 2 x (1+1+2+1+3+1) / 2 = 9.
    assert result.bound == 9.0
    assert result.serial == 18.0
    assert result.longest_wait == 2.0


def test_policies_that_meet_after_every_phase_wait_for_the_slowest_each_time() -> None:
    demands = [demand("a", 1, 3), demand("b", 3, 1)]
    supply = Supply((Node("n", 2.0),))
    assert simulate(demands, supply, Rounds(2), meeting="phase").makespan == 12.0  # (3 + 3) x 2
    assert simulate(demands, supply, Rounds(2)).makespan == 3.0 + 4.0 + 3.0  # a's update and act 3 + 1 = b's 1 + 3


def test_a_fast_policy_gets_ahead_by_the_staleness_and_no_further() -> None:
    demands = [demand("fast", 1, 0), demand("slow", 10, 0)]
    result = simulate(demands, Supply((Node("n", 2.0),)), Rounds(4, staleness=2))
    starts = [span.began for span in result.spans if span.policy == "fast" and span.phase == "act"]
    # In step 2 it learns from round 0 once slow has sampled that, at 10, and goes on; its last, from round 3, at 40.
    assert starts == [0.0, 1.0, 2.0, 10.0]
    assert [span.began for span in result.spans if span.policy == "fast" and span.phase == "update"] == [
        10.0,
        20.0,
        30.0,
        40.0,
    ]
    assert result.completed == {"fast": 4, "slow": 4}


def test_a_policy_whose_worker_always_dies_is_parked_and_the_others_finish() -> None:
    failures = Failures(broken=frozenset({"bad"}))
    result = simulate(
        [demand("bad", 1, 1), demand("good", 1, 1)], Supply((Node("n", 2.0),)), Rounds(3), failures=failures
    )
    assert result.completed == {"bad": 0, "good": 3}
    assert result.parked == {"bad": "its worker failed 4 times in phase 'act'"}
    assert result.stuck == ()


def test_work_lost_with_a_node_is_done_again_on_another() -> None:
    supply = Supply((Node("n0", 1.0), Node("n1", 1.0)))
    failures = Failures(nodes=(NodeLoss(5.0, "n0"),), notice=1.0, restart=2.0)
    result = simulate([demand("a", 10, 0)], supply, Rounds(1), failures=failures)
    # lost at 5, asked again at 5 + 1 + 2 = 8, done at 18
    assert [(span.outcome, span.began, span.ended) for span in result.spans if span.phase == "act"] == [
        ("lost", 0.0, 5.0),
        ("done", 8.0, 18.0),
    ]


def test_a_cluster_that_is_lost_altogether_ends_with_a_sentence() -> None:
    failures = Failures(nodes=(NodeLoss(1.0, "n"),))
    result = simulate([demand("a", 10, 1)], Supply((Node("n", 2.0),)), Rounds(2), failures=failures)
    assert result.stuck == ()
    assert "no node is left" in result.parked["a"]


@pytest.fixture(scope="module")
def fleets() -> list[tuple[int, float, float]]:
    """(seed, makespan / bound, serial / makespan) of each fleet; what must hold of every single one is checked here."""
    ratios = []
    for seed in range(FLEETS):
        fleet = random_fleet(seed)
        result = fleet.simulate()
        assert result.stuck == (), f"fleet {seed}: nothing is left to happen, and these have not finished"
        assert result.longest_wait <= result.wait_bound, f"fleet {seed}"
        for policy, rounds in result.completed.items():
            assert (rounds == fleet.rounds.count) != (policy in result.parked), f"fleet {seed}, {policy}"
        assert set(result.parked) <= fleet.failures.broken | {e.policy for e in result.events if e.kind == "restarted"}
        assert result.makespan >= result.bound * (1 - 1e-9), f"fleet {seed}: faster than anything can be"
        ratios.append((seed, result.makespan / result.bound, result.serial / result.makespan))
    return ratios


@pytest.mark.long
def test_no_random_fleet_deadlocks_or_waits_longer_than_the_bound(fleets: list[tuple[int, float, float]]) -> None:
    assert len(fleets) == FLEETS


def test_random_fleets_finish_close_to_the_lower_bound(fleets: list[tuple[int, float, float]]) -> None:
    ratios = np.array([ratio for _, ratio, _ in fleets])
    assert np.median(ratios) <= 1.15
    # The 99th percentile of a small sample is its worst case or two: those are allowed for.
    assert np.sum(ratios > 1.30) <= max(2, FLEETS // 100), sorted(fleets, key=lambda item: -item[1])[:5]


def test_random_fleets_are_faster_than_one_policy_at_a_time(fleets: list[tuple[int, float, float]]) -> None:
    assert np.median([speedup for _, _, speedup in fleets]) > 1.4


def test_no_device_is_promised_more_memory_than_it_has() -> None:
    for seed in range(20):
        fleet = random_fleet(seed)
        sizes = {node.gpu(i): node.gpu_memory for node in fleet.supply.nodes for i in range(node.gpus)}
        for device, peak in fleet.simulate().peak_memory.items():
            assert peak <= sizes.get(device, peak)


def test_the_same_fleet_gives_the_same_simulation() -> None:
    assert random_fleet(7).simulate().spans == random_fleet(7).simulate().spans
