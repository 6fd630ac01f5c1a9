"""The allocation policy: leases, bounds, refusals, shrinking supplies."""

from __future__ import annotations

import pytest

from learners.resources.allocate import Allocator
from learners.resources.demand import GIB, Demand, Lease, Needs, Node, Patience, Refusal, Request, Supply
from learners.resources.device import Device
from mutual_env.errors import InvalidInputError, UnknownNameError


def one_phase(policy: str, needs: Needs, **more: object) -> Demand:
    return Demand(policy, {"act": needs}, **more)  # type: ignore[arg-type]


def gpus(count: int, nodes: int = 1, memory: int = 0) -> Supply:
    return Supply(tuple(Node(f"n{index}", 64.0, count, memory) for index in range(nodes)))


def test_a_lease_is_all_of_a_gang_or_nothing() -> None:
    allocator = Allocator([one_phase("wide", Needs(gpus=1, gang=3)), one_phase("narrow", Needs(gpus=1))], gpus(3))
    allocator.request("narrow", "act", 0.0)
    (narrow,) = allocator.decide(0.0)
    allocator.request("wide", "act", 0.0)
    assert allocator.decide(0.0) == []  # two of three are free: none is taken
    allocator.release(narrow)
    (wide,) = allocator.decide(1.0)
    assert {str(device) for device in wide.devices} == {"n0/gpu0", "n0/gpu1", "n0/gpu2"}


def test_the_one_with_most_work_before_the_next_meeting_goes_first() -> None:
    demands = [one_phase("short", Needs(seconds=1, gpus=1)), one_phase("long", Needs(seconds=9, gpus=1))]
    allocator = Allocator(demands, gpus(1))
    allocator.request("short", "act", 0.0)
    allocator.request("long", "act", 0.0)
    assert [lease.policy for lease in allocator.decide(0.0)] == ["long"]


def test_what_leases_were_seen_to_take_counts_for_more_than_what_was_said() -> None:
    demands = [one_phase("said to be long", Needs(seconds=9, gpus=1)), one_phase("is long", Needs(seconds=1, gpus=1))]
    allocator = Allocator(demands, gpus(1))
    allocator.observe("is long", "act", 20.0)
    allocator.observe("is long", "act", 10.0)  # 15 on the average of before and now
    for policy in ("said to be long", "is long"):
        allocator.request(policy, "act", 0.0)
    assert [lease.policy for lease in allocator.decide(0.0)] == ["is long"]


def test_an_aged_gang_is_served_however_busy_small_requests_keep_the_devices() -> None:
    small = {f"small{index}": one_phase(f"small{index}", Needs(seconds=10, gpus=1)) for index in range(4)}
    wide = one_phase("wide", Needs(seconds=1, gpus=1, gang=2))
    allocator = Allocator([*small.values(), wide], gpus(2), Patience(reserve=30.0))
    held: list[Lease] = []
    served = None
    for policy in small:
        allocator.request(policy, "act", 0.0)
    allocator.request("wide", "act", 0.0)
    for tick in range(0, 100, 5):
        now = float(tick)
        over = [lease for lease in held if lease.granted + 10 + 5 * int(lease.policy[-1] == "1") <= now]
        for lease in over:  # small ones take 10 or 15 s, never end together, and ask again at once
            held.remove(lease)
            allocator.release(lease)
            allocator.request(lease.policy, "act", now)
        for lease in allocator.decide(now):
            if lease.policy == "wide":
                served = now
            held.append(lease)
        if served is not None:
            break
    # Aged at 30, like the small ones still waiting from time 0; then both devices are kept for it until both are free.
    assert served is not None
    assert 30.0 <= served <= 60.0


def test_a_policy_that_asks_while_holding_is_told_so() -> None:
    allocator = Allocator([one_phase("a", Needs())], gpus(1))
    allocator.request("a", "act", 0.0)
    with pytest.raises(InvalidInputError, match="give that back first"):
        allocator.request("a", "act", 0.0)
    with pytest.raises(UnknownNameError, match="did you mean 'a'"):
        allocator.request("aa", "act", 0.0)
    with pytest.raises(InvalidInputError, match="takes nothing in phase 'update'"):
        allocator.request("a", "update", 0.0)


@pytest.mark.parametrize(
    ("needs", "remedy"),
    [
        (Needs(gpus=1, gang=9), "gang=8 instead of 9"),
        (Needs(gpus=1, memory=100 * GIB), "memory=80 GiB instead of 100 GiB"),
        (Needs(cpus=65), "cpus=64 instead of 65"),
        (Needs(gpus=1, gang=6, together=True), "together=false"),
        (Needs(gpus=5), "gpus=4 instead of 5"),
    ],
)
def test_what_can_never_fit_is_refused_with_the_nearest_change_that_would(needs: Needs, remedy: str) -> None:
    allocator = Allocator([one_phase("a", needs)], gpus(4, nodes=2, memory=80 * GIB))
    answer = allocator.request("a", "act", 0.0)
    assert isinstance(answer, Refusal)
    assert f"It would fit with {remedy}" in answer.reason


def test_weights_that_may_be_moved_make_room_and_cost_the_time_to_bring_them_back() -> None:
    needs = Needs(gpus=1, memory=50 * GIB)
    demands = [one_phase(name, needs, weights=40 * GIB, offload_seconds=2.0) for name in "ab"]
    allocator = Allocator(demands, gpus(1, memory=80 * GIB))
    loads = []
    for policy in "aabb":
        allocator.request(policy, "act", 0.0)
        (lease,) = allocator.decide(0.0)
        assert allocator.memory_on(Device("n0", 0)) == 50 * GIB  # 50 + 40 of the other would not fit in 80
        allocator.release(lease)
        loads.append(lease.load_seconds)
    assert loads == [2.0, 0.0, 2.0, 0.0]


def test_weights_that_cannot_be_moved_keep_a_device_and_policies_are_spread_over_them() -> None:
    needs = Needs(gpus=1, memory=50 * GIB)
    demands = [one_phase(name, needs, weights=50 * GIB, offload_seconds=None) for name in "abc"]
    allocator = Allocator(demands, gpus(2, memory=80 * GIB))
    assert {policy: {str(d) for d in home if d.gpu is not None} for policy, home in allocator.homes.items()} == {
        "a": {"n0/gpu0"},
        "b": {"n0/gpu1"},
    }
    answer = allocator.request("c", "act", 0.0)
    assert isinstance(answer, Refusal)
    assert "kept by policies that cannot be moved" in answer.reason


def test_who_can_run_anywhere_keeps_off_the_home_of_who_cannot_while_there_is_another_place() -> None:
    needs = Needs(gpus=1, memory=50 * GIB)
    here = one_phase("here", needs, weights=GIB, offload_seconds=None)
    moving = [one_phase(name, needs, weights=40 * GIB) for name in "ab"]
    allocator = Allocator([here, *moving], Supply((Node("n0", 8.0, 1, 80 * GIB), Node("n1", 8.0, 2, 80 * GIB))))
    (home,) = {device for device in allocator.homes["here"] if device.gpu is not None}
    for _ in range(2):  # also once the weights of one have been in the home, for want of another place
        for policy in "ab":
            allocator.request(policy, "act", 0.0)
        leases = allocator.decide(0.0)
        assert home not in {device for lease in leases for device in lease.devices}
        allocator.request("here", "act", 0.0)
        (mine,) = allocator.decide(0.0)
        assert set(mine.devices) == {home}
        allocator.release(mine)
        allocator.release(leases[1])
        allocator.keep_to("b", frozenset({home}))
        allocator.request("b", "act", 0.0)
        (forced,) = allocator.decide(0.0)
        assert set(forced.devices) == {home}
        allocator.keep_to("b", frozenset())
        for lease in (leases[0], forced):
            allocator.release(lease)


def test_shares_of_one_gpu_go_together_so_that_whole_ones_stay_free() -> None:
    demands = [one_phase(name, Needs(cpus=0.1, gpus=0.1)) for name in "abcdefghij"]
    allocator = Allocator([*demands, one_phase("whole", Needs(gpus=1))], gpus(2))
    for demand in demands:
        allocator.request(demand.policy, "act", 0.0)
    assert {lease.devices for lease in allocator.decide(0.0)} == {(Device("n0", 0),)}  # ten times 0.1 is 1
    allocator.request("whole", "act", 0.0)
    assert [lease.devices for lease in allocator.decide(0.0)] == [(Device("n0", 1),)]


def test_a_lost_node_takes_its_leases_and_what_no_longer_fits_is_refused() -> None:
    demands = [one_phase("wide", Needs(gpus=1, gang=2)), one_phase("narrow", Needs(gpus=1))]
    allocator = Allocator(demands, gpus(1, nodes=2))
    allocator.request("narrow", "act", 0.0)
    (narrow,) = allocator.decide(0.0)
    allocator.request("wide", "act", 0.0)
    lost, refused = allocator.remove_node(narrow.slots[0].node)
    assert lost == [narrow]
    assert [refusal.request.policy for refusal in refused] == ["wide"]
    assert "It would fit with gang=1 instead of 2" in refused[0].reason
    allocator.release(narrow)  # late news of a lease that is gone changes nothing
    allocator.request("narrow", "act", 1.0)
    assert len(allocator.decide(1.0)) == 1


def test_a_request_is_given_up_after_its_limit_with_a_sentence() -> None:
    allocator = Allocator([one_phase("a", Needs()), one_phase("b", Needs(cpus=64))], gpus(1), Patience(limit=100.0))
    allocator.request("b", "act", 0.0)
    allocator.decide(0.0)
    allocator.request("a", "act", 0.0)
    assert allocator.decide(0.0) == []
    assert allocator.overdue(99.0) == []
    assert allocator.next_wake(61.0) == 100.0
    (refusal,) = allocator.overdue(100.0)
    assert "waited 100 s" in refusal.reason
    assert not allocator.waiting


def test_a_withdrawn_request_is_forgotten() -> None:
    allocator = Allocator([one_phase("a", Needs())], gpus(1))
    assert isinstance(allocator.request("a", "act", 0.0), Request)
    allocator.withdraw("a")
    assert allocator.decide(1.0) == []


def test_needs_that_make_no_sense_are_refused_by_name() -> None:
    for wrong in ({"gang": 0}, {"cpus": float("nan")}, {"limit": float("inf")}, {"gpus": 1.5}, {"cpus": 0.0}):
        with pytest.raises(InvalidInputError, match="Needs"):
            Needs(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="peak includes the weights"):
        one_phase("a", Needs(memory=1), weights=2)
