"""Which runs of a suite go on at the same time, and on which GPUs each: the allocator's decision."""

from __future__ import annotations

from collections.abc import Iterable

from learners.resources import Demand, Needs, Supply
from learners.resources.allocate import Allocator
from learners.resources.demand import Lease, Node, Refusal
from mutual_env.errors import ConfigError

_PHASE = "act"  # a run is one lease, from its start to its end


class Slots:
    """Every run waits in the order of `names`. Each takes one of `processes` and, where the machine has GPUs, `gpus` of
    them: a fraction of one, or whole ones that nobody else gets meanwhile."""

    def __init__(self, names: Iterable[str], processes: int, gpus: float, supply: Supply) -> None:
        there = sum(node.gpus for node in supply.nodes) if gpus else 0
        needs = Needs(cpus=1.0, gpus=gpus if there else 0.0)
        machine = Supply((Node("local", float(processes), there),))
        demands = [Demand(name, {_PHASE: needs}) for name in names]
        self._allocator = Allocator(demands, machine)
        self._leases: dict[str, Lease] = {}
        for demand in demands:
            answer = self._allocator.request(demand.policy, _PHASE, 0.0)
            if isinstance(answer, Refusal):
                raise ConfigError(f"gpus={gpus:g}: {answer.reason}")

    def next(self) -> list[tuple[str, tuple[int, ...] | None]]:
        """The runs that may begin now, and the GPUs that each is to see; None: as many as there are."""
        granted = self._allocator.decide(0.0)
        self._leases.update((lease.policy, lease) for lease in granted)
        return [(lease.policy, _gpus(lease)) for lease in granted]

    def give_back(self, name: str) -> None:
        self._allocator.release(self._leases.pop(name))


def _gpus(lease: Lease) -> tuple[int, ...] | None:
    if not lease.request.needs.gpus:
        return None
    return tuple(device.gpu for device in lease.devices if device.gpu is not None)
