"""What a run would do on given machines, without running anything."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from learners.resources.allocate import Allocator
from learners.resources.demand import GIB, Demand, Node, Patience, Refusal, Rounds, Supply
from learners.resources.hardware import gpu_named
from learners.resources.simulate import Meeting, Simulation, simulate
from mutual_env.errors import InvalidInputError

MOST_NODES, MOST_GPUS = 4096, 64


@dataclass(frozen=True, slots=True)
class Plan:
    """The prediction: what fits, as a simulation; and what does not, each with a sentence that says what would."""

    supply: Supply
    demands: tuple[Demand, ...]
    rounds: Rounds
    simulation: Simulation | None
    misfits: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return not self.misfits


def make_plan(
    demands: Sequence[Demand],
    supply: Supply,
    rounds: Rounds | None = None,
    patience: Patience | None = None,
    *,
    meeting: Meeting = "phase",
) -> Plan:
    """Simulate the policies that fit. `meeting`: "phase" is what the training loop does."""
    rounds = rounds or Rounds()
    allocator = Allocator(demands, supply, patience)
    misfits: dict[str, str] = {}
    for demand in demands:
        for phase in demand.phases:
            answer = allocator.request(demand.policy, phase, 0.0)
            if isinstance(answer, Refusal):
                misfits.setdefault(demand.policy, answer.reason)
            allocator.withdraw(demand.policy)
    fitting = [demand for demand in demands if demand.policy not in misfits]
    simulation = simulate(fitting, supply, rounds, patience, meeting=meeting, settled=True) if fitting else None
    return Plan(supply, tuple(demands), rounds, simulation, tuple(misfits.values()))


def parse_devices(text: str) -> Supply:
    """Machines in short: "2x8:80,1x0@16" is two nodes of 8 GPUs with 80 GiB each, and one of no GPU and 16 CPUs.

    Each part is NODES x GPUS, then ":" GiB of each GPU or its name (1x8:H100), then "@" CPUs of each node (16 for each
    GPU where not said).
    """
    nodes: list[Node] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)x(\d+)(?::([\w.-]+))?(?:@(\d+))?", part.strip())
        if match is None:
            raise InvalidInputError(
                f"devices {part.strip()!r} must read NODESxGPUS[:GIB][@CPUS], e.g. 2x8:80 for two nodes of eight "
                "GPUs with 80 GiB, 1x1:H100 for one of that name, or 1x0@16 for one of 16 CPUs"
            )
        count, gpus = int(match[1][:9]), int(match[2][:9])
        if not (1 <= count <= MOST_NODES and gpus <= MOST_GPUS and len(match[0]) < 60):
            raise InvalidInputError(
                f"devices {part.strip()[:60]!r}: nodes must be 1 to {MOST_NODES}, GPUs of each at most {MOST_GPUS}"
            )
        (memory, kind), cpus = _gpu(match[3] or "0"), float(match[4] or 16 * max(1, gpus))
        nodes += [Node(f"node{len(nodes) + i}", cpus, gpus, memory, kind=kind) for i in range(count)]
    return Supply(tuple(nodes))


def _gpu(text: str) -> tuple[int, str]:
    """Bytes of memory and the kind of node: of a name that is known, or of so many GiB."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return int(float(text) * GIB), ""
    gpu = gpu_named(text)
    return gpu.memory, gpu.name
