"""Random fleets: policies, machines and failures, to try allocation code on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from learners.resources.demand import GIB, Demand, Needs, Node, Patience, Rounds, Supply
from learners.resources.failures import Failures, NodeLoss
from learners.resources.simulate import Simulation, simulate
from mutual_env.seeding import generator

GPU_MEMORY = 80 * GIB


@dataclass(frozen=True, slots=True)
class Fleet:
    """One case. Its `simulate` runs it."""

    demands: tuple[Demand, ...]
    supply: Supply
    rounds: Rounds
    patience: Patience
    failures: Failures

    def simulate(self) -> Simulation:
        return simulate(self.demands, self.supply, self.rounds, self.patience, failures=self.failures)


def random_fleet(seed: int, *, room: float = 2.0) -> Fleet:
    """2 to 64 policies; weights from 0.1 to 100 GiB and rounds from 1 to 1000 s, each over three orders of magnitude
    with equal chance for every factor; one case in two with failures. Gangs follow from the weights: as many GPUs as
    the update's memory takes, in powers of two. There are at least `room` times as many GPUs as the largest gang takes:
    with 1, it has to have all of them, and nothing can run beside it."""
    rng = generator(seed, "fleet")
    policies = round(float(np.exp(rng.uniform(math.log(2), math.log(64)))))
    weights, gangs = _random_sizes(rng, policies)
    supply = _random_supply(rng, math.ceil(room * max(gangs)))
    demands = _random_demands(rng, weights, gangs)
    rounds = Rounds(int(rng.integers(2, 6)), int(rng.choice([0, 0, 1, 2, 4])))
    longest = max(demand.chain for demand in demands)
    failures = _random_failures(rng, demands, supply, longest * rounds.count)
    return Fleet(
        demands, supply, rounds, Patience(reserve=longest, limit=1e7, restarts=3, restart_limit=120.0), failures
    )


def many_policies(count: int, seed: int = 0) -> list[Demand]:
    """The policies of such a fleet, as many as are asked for."""
    rng = generator(seed, "many")
    return list(_random_demands(rng, *_random_sizes(rng, count)))


def _random_sizes(rng: np.random.Generator, count: int) -> tuple[list[float], list[int]]:
    weights = [float(size) for size in 0.1 * GIB * 10 ** rng.uniform(0.0, 3.0, count)]
    return weights, [2 ** math.ceil(math.log2(max(1.0, 8 * size / (0.9 * GPU_MEMORY)))) for size in weights]


def _random_demands(rng: np.random.Generator, weights: list[float], gangs: list[int]) -> tuple[Demand, ...]:
    return tuple(
        _random_demand(rng, f"policy_{index}", size, gang)
        for index, (size, gang) in enumerate(zip(weights, gangs, strict=True))
    )


def _random_supply(rng: np.random.Generator, least_gpus: int) -> Supply:
    per_node = int(rng.choice([1, 2, 4, 8]))
    nodes = max(math.ceil(least_gpus / per_node), round(float(np.exp(rng.uniform(0.0, math.log(32))))))
    memory = 1024 * GIB
    return Supply(tuple(Node(f"node{index}", 16.0 * per_node, per_node, GPU_MEMORY, memory) for index in range(nodes)))


def _random_demand(rng: np.random.Generator, name: str, weights: float, gang: int) -> Demand:
    seconds = 10 ** rng.uniform(0.0, 3.0)
    act, verify, update = (float(seconds * share) for share in rng.dirichlet((4.0, 1.0, 4.0)))
    each = int(weights / gang)
    samplers = gang if rng.random() < 0.5 else 1 << max(0, gang.bit_length() - 3)
    share = 0.5 if weights < 4 * GIB and rng.random() < 0.3 else 1.0

    def needs(seconds: float, factor: float, size: int) -> Needs:
        memory = min(int(weights * factor / size), int(0.95 * GPU_MEMORY))
        return Needs(seconds, 1.0, share, max(memory, each), size, limit=3 * seconds + 1.0)

    phases = {
        "act": needs(act, 1.5, samplers),
        "verify": Needs(verify, cpus=float(rng.integers(1, 9)), limit=3 * verify + 1.0),
        "update": needs(update, 8.0, gang),
        "sync": needs(0.02 * update, 1.5, gang),
    }
    offload = None if rng.random() < 0.1 and weights < 4 * GIB else 0.1 + each / (20 * GIB)
    return Demand(name, phases, each, offload)


def _random_failures(rng: np.random.Generator, demands: tuple[Demand, ...], supply: Supply, span: float) -> Failures:
    if rng.random() < 0.5:
        return Failures()
    losses: tuple[NodeLoss, ...] = ()
    if len(supply.nodes) > 2 and rng.random() < 0.5:
        at, index = float(rng.uniform(0.0, span)), int(rng.integers(len(supply.nodes)))
        losses = (NodeLoss(at, f"node{index}", float(rng.uniform(0.0, span)) if rng.random() < 0.7 else None),)
    broken = frozenset({demands[0].policy}) if rng.random() < 0.1 else frozenset()
    return Failures(
        death=float(rng.uniform(0.0, 0.03)),
        hang=float(rng.uniform(0.0, 0.005)),
        broken=broken,
        nodes=losses,
        seed=int(rng.integers(2**31)),
    )
