"""What policies need and what machines have: the whole input of an allocation, as data.

Needs     one phase of one policy: a gang of members, each with CPUs, GPUs and memory, for so many seconds
Demand    a policy: its phases in order, its weights, whether they can be moved off a device meanwhile
Node      a machine: CPUs, memory, equal GPUs
Supply    all of them
Rounds    how many rounds, and how far apart policies may be in them
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from learners.resources.cards import cards
from learners.resources.device import Device
from learners.resources.record import MOVE, Outcome, Span
from mutual_env.errors import InvalidInputError, UnknownNameError

PHASES = ("act", "verify", "score", "update", "sync")
"""In the order of a round. Between verify and score all policies meet: what is shared in a round is known only then."""

COMPUTING = ("act", "score", "update")
"""Those in which a model computes."""

EVALUATE, LOAD = "evaluate", "load"
"""Sampling that is no part of a round, and the loading of what a copy samples with: they take what `act` takes, and are
recorded by their own names."""

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Needs:
    """What one phase takes, all of it at once or not at all.

    Each of `gang` members takes `cpus` of a node and there `gpus`: a fraction of one GPU, or a whole number of them.
    `memory` is the peak on each of its GPUs, in bytes, weights included (on the node where the phase takes no GPU).
    `together`: all members in one node. `seconds` is what it usually takes, `limit` after how long it counts as hung
    (None: learnt from what it takes, see limits.py).
    """

    seconds: float = 1.0
    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0
    gang: int = 1
    together: bool = False
    limit: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("seconds", 0.0), ("cpus", 0.0), ("gpus", 0.0), ("memory", 0.0), ("gang", 1.0)):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= least):
                raise InvalidInputError(f"Needs.{name} must be a number of at least {least:g}, got {value!r}")
        if self.limit is not None and not 0.0 < self.limit < math.inf:
            raise InvalidInputError(
                f"Needs.limit must be finite and above 0 (no wait is unbounded), got {self.limit!r}"
            )
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise InvalidInputError(
                f"Needs.gpus must be a fraction of one GPU or a whole number of them, got {self.gpus!r}: "
                f"use {math.ceil(self.gpus)}, or a gang"
            )
        if self.cpus == 0 and self.gpus == 0:
            raise InvalidInputError("Needs takes neither CPUs nor GPUs: give cpus a fraction, such as 0.1")

    @property
    def width(self) -> float:
        """How much of the scarce kind it takes: GPUs, or CPUs where it takes no GPU."""
        return self.gang * (self.gpus or self.cpus)


@dataclass(frozen=True, slots=True)
class Demand:
    """One policy. `phases` maps a phase to its needs; a phase that is not there costs nothing.

    `weights` bytes stay on each device between its leases. `offload_seconds` is what it takes to bring them back after
    they have made room for another policy; None: they cannot leave, and the policy keeps to the devices it has.
    `kind` is the only kind of node it can use ("" for any). `spreads`: its learner starts actors of its own on Ray, one
    on each GPU of its gang.
    """

    policy: str
    phases: Mapping[str, Needs]
    weights: int = 0
    offload_seconds: float | None = 0.0
    kind: str = ""
    spreads: bool = False

    def __post_init__(self) -> None:
        if not self.phases:
            raise InvalidInputError(f"Demand of {self.policy!r} has no phases: give it at least 'act' or 'update'")
        for phase in self.phases:
            if phase not in PHASES:
                raise UnknownNameError.of(f"phase of policy {self.policy!r}", phase, PHASES)
            if 0 < self.phases[phase].memory < self.weights:
                raise InvalidInputError(
                    f"Needs.memory of {self.policy!r} in phase {phase!r} is {self.phases[phase].memory}, less than its "
                    f"weights, {self.weights}: the peak includes the weights"
                )
        if self.offload_seconds is not None and not 0.0 <= self.offload_seconds < math.inf:
            raise InvalidInputError(
                f"Demand.offload_seconds of {self.policy!r} must be at least 0, or None, got {self.offload_seconds!r}"
            )

    @property
    def movable(self) -> bool:
        return self.offload_seconds is not None

    @property
    def chain(self) -> float:
        """Seconds of one round, alone on the machines."""
        return sum(needs.seconds for needs in self.phases.values())

    def remaining(self, phase: str, measured: Mapping[tuple[str, str], float]) -> float:
        """Seconds from this phase to the next time all policies meet, as far as they were measured: what makes it
        urgent."""
        order = PHASES[2:] + PHASES[:2]
        left = [name for name in order[order.index(phase) :] if name in self.phases]
        return sum(measured.get((self.policy, name), self.phases[name].seconds) for name in left)

    def with_seconds(self, measured: Mapping[tuple[str, str], float]) -> Demand:
        """The same demand with the durations that a run's record measured (see `Record.phase_seconds`)."""
        phases = {
            phase: dataclasses.replace(needs, seconds=measured.get((self.policy, phase), needs.seconds))
            for phase, needs in self.phases.items()
        }
        move = measured.get((self.policy, MOVE))
        if move is None or self.offload_seconds is None:
            return dataclasses.replace(self, phases=phases)
        return dataclasses.replace(self, phases=phases, offload_seconds=2 * move)  # one goes, one comes


@dataclass(frozen=True, slots=True)
class Node:
    """One machine. Memory 0 means that it is not known, and is not checked."""

    name: str
    cpus: float
    gpus: int = 0
    gpu_memory: int = 0
    memory: int = 0
    kind: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.cpus) and self.cpus >= 0 and self.gpus >= 0) or self.cpus + self.gpus == 0:
            raise InvalidInputError(
                f"Node {self.name!r} has {self.cpus!r} CPUs and {self.gpus!r} GPUs: it needs one of either"
            )

    def gpu(self, index: int) -> Device:
        return Device(self.name, index)

    @property
    def cpu(self) -> Device:
        return Device(self.name)


@dataclass(frozen=True, slots=True)
class Supply:
    """The machines."""

    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        names = [node.name for node in self.nodes]
        if not names:
            raise InvalidInputError("Supply has no nodes: give at least one, e.g. Supply.local()")
        if len(set(names)) != len(names):
            raise InvalidInputError(
                f"Supply has two nodes of one name: {sorted(n for n in names if names.count(n) > 1)[0]!r}"
            )

    @classmethod
    def local(cls) -> Supply:
        """This machine: the CPUs and the NVIDIA GPUs that this process may use, and their memory."""
        gpus = cards()
        least = min((card.memory for card in gpus), default=0)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        kind = gpus[0].name if gpus else ""
        return cls((Node("local", float(len(os.sched_getaffinity(0))), len(gpus), least, memory, kind),))

    @property
    def devices(self) -> dict[Device, float]:
        """Every device, with how much of it there is: GPUs are 1, the CPUs of a node are as many as they are."""
        sizes: dict[Device, float] = {}
        for node in self.nodes:
            if node.cpus:
                sizes[node.cpu] = node.cpus
            sizes.update(dict.fromkeys((node.gpu(index) for index in range(node.gpus)), 1.0))
        return sizes

    @property
    def cpus(self) -> float:
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> int:
        return sum(node.gpus for node in self.nodes)


@dataclass(frozen=True, slots=True)
class Rounds:
    """In step r a policy samples and verifies round r, and learns from round r - `staleness` once everybody has sampled
    that: a fast policy gets ahead by so many rounds, and all that anybody learns from was written with weights that
    many updates old. What is left at the end is learnt without sampling. 0: synchronous, all meet in every round."""

    count: int = 1
    staleness: int = 0

    def __post_init__(self) -> None:
        if self.count < 1 or self.staleness < 0:
            raise InvalidInputError(
                f"Rounds needs count >= 1 and staleness >= 0, got {self.count!r} and {self.staleness!r}"
            )


@dataclass(frozen=True, slots=True)
class Patience:
    """How long anybody waits. After `reserve` seconds a request is served in order of arrival, with devices kept free
    for it; after `limit` it is given up. `restarts`: how often a worker is started again before its policy is parked,
    and `restart_limit` how long that may take (None: learnt from what it takes)."""

    reserve: float = 60.0
    limit: float = 3600.0
    restarts: int = 3
    restart_limit: float | None = None

    def __post_init__(self) -> None:
        for name in ("reserve", "limit", "restart_limit"):
            value = getattr(self, name)
            if value is not None and not (0.0 <= value < math.inf):
                raise InvalidInputError(f"Patience.{name} must be finite and at least 0, got {value!r}")
        if self.restarts < 0:
            raise InvalidInputError(f"Patience.restarts must be at least 0, got {self.restarts!r}")


def even_share(policies: Iterable[str], supply: Supply, on_gpu: Collection[str] = ()) -> list[Demand]:
    """The demand of policies nobody described: one CPU for every phase, or the whole of a machine that has less; and a
    GPU of those `on_gpu` wherever they compute."""
    cpus = min(1.0, max(node.cpus for node in supply.nodes))
    plain, on_a_gpu = Needs(cpus=cpus), Needs(cpus=cpus, gpus=1.0)
    computing = {phase: on_a_gpu if phase in COMPUTING else plain for phase in PHASES}
    return [Demand(p, computing if p in on_gpu else dict.fromkeys(PHASES, plain)) for p in policies]


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one member of a gang runs. `gpus` are indices in the node."""

    node: str
    cpus: float
    gpus: tuple[int, ...] = ()

    @property
    def devices(self) -> tuple[Device, ...]:
        if self.gpus:
            return tuple(Device(self.node, index) for index in self.gpus)
        return (Device(self.node),)


@dataclass(frozen=True, slots=True)
class Request:
    """A policy asks for all that a phase takes. Requests of a higher `urgency` (seconds of work behind it) go first."""

    policy: str
    phase: str
    needs: Needs
    urgency: float
    asked: float = field(compare=False)


@dataclass(frozen=True, slots=True)
class Lease:
    """All of it, until released or until `expires`. `load_seconds`: time to bring the policy's weights in first;
    `moved`: the policies whose weights must go to the machine's memory before."""

    number: int
    request: Request
    slots: tuple[Slot, ...]
    granted: float
    expires: float
    load_seconds: float = 0.0
    moved: tuple[str, ...] = ()

    @property
    def policy(self) -> str:
        return self.request.policy

    @property
    def devices(self) -> tuple[Device, ...]:
        """Each once, however many members of the gang are on it."""
        return tuple(dict.fromkeys(device for slot in self.slots for device in slot.devices))

    def span(self, ended: float, outcome: Outcome, since: float = 0.0) -> Span:
        """What the record keeps of it; times are counted from `since`."""
        needs, devices = self.request.needs, self.devices
        share = needs.gang * (needs.gpus or needs.cpus) / len(devices)
        times = (self.request.asked - since, self.granted - since, ended - since)
        names = tuple(map(str, devices))
        return Span(self.policy, self.request.phase, names, *times, outcome, min(share, 1.0) if needs.gpus else share)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that cannot be served, now or ever, and why, in a sentence that ends with a remedy."""

    request: Request
    reason: str
