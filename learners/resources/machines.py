"""What is free where: the bookkeeping under the allocator, with an index that finds devices without looking at all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from learners.resources.demand import Needs, Node, Slot
from learners.resources.device import Device

EPSILON = 1e-9  # shares are fractions: ten times 0.1 must fit


@dataclass(slots=True, eq=False)
class Occupancy:
    """What is free of a GPU (capacity 1) or of a node's CPUs (capacity: how many), and of its memory (0: unknown).

    `resting` and `pinned`: weights of policies that are not running here now; those that may be moved out (least
    recently used first), and those that may not. `residents`: how many policies have no other place to run.
    `held` is kept free for the request that is served next.
    """

    device: Device
    capacity: float
    memory: int
    free: float
    used: int = 0
    resting: dict[str, int] = field(default_factory=dict)
    pinned: dict[str, int] = field(default_factory=dict)
    residents: int = 0
    held: float = 0.0
    held_memory: int = 0
    busy_until: float = 0.0

    def room(self, policy: str, share: float, memory: int, *, first: bool) -> bool:
        """Whether this share and memory are free, counting weights that may be moved out as free."""
        free = self.free if first else self.free - self.held
        if free + EPSILON < share:
            return False
        if not memory or not self.memory:
            return True
        others = sum(size for name, size in self.pinned.items() if name != policy) if self.pinned else 0
        return self.memory - self.used - others - (0 if first else self.held_memory) >= memory

    def evict(self) -> list[str]:
        """Move out what must go for the memory to suffice; who went."""
        gone: list[str] = []
        if not self.memory or not self.resting:
            return gone
        total = self.used + sum(self.resting.values()) + sum(self.pinned.values())
        for policy in list(self.resting):
            if total <= self.memory:
                break
            total -= self.resting.pop(policy)
            gone.append(policy)
        return gone

    @property
    def occupied(self) -> int:
        return self.used + sum(self.resting.values()) + sum(self.pinned.values())


@dataclass(slots=True, eq=False)
class Machine:
    """A node's devices. `whole` counts the GPUs nobody uses."""

    node: Node
    cpu: Occupancy
    gpus: tuple[Occupancy, ...]
    whole: int

    @classmethod
    def of(cls, node: Node) -> Machine:
        cpu = Occupancy(node.cpu, node.cpus, node.memory, node.cpus)
        gpus = tuple(Occupancy(node.gpu(index), 1.0, node.gpu_memory, 1.0) for index in range(node.gpus))
        return cls(node, cpu, gpus, len(gpus))

    def find(
        self, policy: str, needs: Needs, home: frozenset[Device] | None, *, first: bool, off_homes: bool
    ) -> tuple[int, ...] | None:
        """GPU indices for one member, empty where it needs none; None where it does not fit here."""
        memory = 0 if needs.gpus else needs.memory
        if not self.cpu.room(policy, needs.cpus, memory, first=first):
            return None
        if not needs.gpus:
            return () if home is None or self.cpu.device in home else None
        count = max(1, int(needs.gpus))
        if needs.gpus >= 1 and self.whole < count:
            return None
        share = min(1.0, needs.gpus)
        fitting = [
            (self._preference(gpu, policy), index)
            for index, gpu in enumerate(self.gpus)
            if (home is None or gpu.device in home)
            and not (off_homes and gpu.residents)
            and gpu.room(policy, share, needs.memory, first=first)
        ]
        if len(fitting) < count:
            return None
        fitting.sort()
        return tuple(index for _, index in fitting[:count])

    @staticmethod
    def _preference(gpu: Occupancy, policy: str) -> tuple[bool, int, float, int, float]:
        """Where the weights are, where nobody has to run, the tightest fit, the fewest to move out, the soonest."""
        return policy not in gpu.resting, gpu.residents, gpu.free, len(gpu.resting), gpu.busy_until


class Machines:
    """All nodes. `claim` takes a gang's devices or nothing; `give_back` returns them."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.machines: dict[str, Machine] = {}
        self._devices: dict[Device, Occupancy] = {}
        self._by_whole: dict[int, dict[str, None]] = {}
        self._whole = 0
        self._shared: dict[Device, str] = {}  # GPUs that are leased in part -> their node
        self._free_cpus = 0.0
        self._where: dict[str, dict[str, None]] = {}  # policy -> nodes that hold its weights
        for node in nodes:
            self.add(node)

    def add(self, node: Node) -> None:
        machine = Machine.of(node)
        self.machines[node.name] = machine
        for occupancy in (machine.cpu, *machine.gpus):
            self._devices[occupancy.device] = occupancy
        self._by_whole.setdefault(machine.whole, {})[node.name] = None
        self._whole += machine.whole
        self._free_cpus += machine.cpu.free

    def remove(self, name: str) -> None:
        machine = self.machines.pop(name)
        for occupancy in (machine.cpu, *machine.gpus):
            del self._devices[occupancy.device]
            self._shared.pop(occupancy.device, None)
        del self._by_whole[machine.whole][name]
        self._whole -= machine.whole
        self._free_cpus -= machine.cpu.free
        for nodes in self._where.values():
            nodes.pop(name, None)

    def on(self, device: Device) -> Occupancy:
        return self._devices[device]

    def occupancies(self) -> Iterable[Occupancy]:
        return self._devices.values()

    def enough(self, needs: Needs) -> bool:
        """Whether there is enough free at all, wherever it is."""
        if needs.gpus:
            free = self._whole if needs.gpus >= 1 else self._whole + len(self._shared)
            if (needs.gang * needs.gpus if needs.gpus >= 1 else 1) > free:
                return False
        return needs.gang * needs.cpus <= self._free_cpus + EPSILON

    def claim(
        self,
        policy: str,
        needs: Needs,
        *,
        kind: str = "",
        home: frozenset[Device] | None = None,
        first: bool = False,
        off_homes: bool = False,
        order: Iterable[str] | None = None,
    ) -> tuple[Slot, ...] | None:
        """A slot for every member of the gang, taken; or None, and nothing is taken.

        `first`: may use what is held. `off_homes`: keep off GPUs where somebody lives who has no other place. `order`:
        nodes to try, instead of those with the weights, then the tightest fit.
        """
        if not self.enough(needs):
            return None
        taken: list[Slot] = []
        for name in order if order is not None else self._candidates(policy, needs, home):
            machine = self.machines.get(name)
            if machine is None or (kind and machine.node.kind != kind):
                continue
            here = len(taken)
            while len(taken) < needs.gang:
                gpus = machine.find(policy, needs, home, first=first, off_homes=off_homes)
                if gpus is None:
                    break
                taken.append(self._take(machine, policy, needs, gpus))
            if len(taken) == needs.gang:
                return tuple(taken)
            if needs.together:
                self.give_back(policy, needs, taken[here:])
                del taken[here:]
        self.give_back(policy, needs, taken)
        return None

    def settle(self, policy: str, needs: Needs, slots: Iterable[Slot], until: float) -> tuple[list[str], bool]:
        """After a claim: move others' weights out where needed. Who went, and whether the policy's own must come in."""
        moved: list[str] = []
        missing = False
        for occupancy in self._of(slots):
            occupancy.busy_until = until
            if not needs.memory:
                continue
            held = occupancy.resting.pop(policy, None)
            missing |= held is None and occupancy.pinned.pop(policy, None) is None
            moved += occupancy.evict()
        return moved, missing

    def rest(self, policy: str, slots: Iterable[Slot], weights: int, *, movable: bool) -> None:
        """Weights stay where the policy last ran."""
        for slot in slots:
            if slot.node in self.machines:
                self._where.setdefault(policy, {})[slot.node] = None
        for occupancy in self._of(slots):
            (occupancy.resting if movable else occupancy.pinned)[policy] = weights

    def give_back(self, policy: str, needs: Needs, slots: Iterable[Slot]) -> None:
        share = min(1.0, needs.gpus)
        for slot in slots:
            machine = self.machines.get(slot.node)
            if machine is None:  # the node is gone, and its devices with it
                continue
            machine.cpu.free += slot.cpus
            self._free_cpus += slot.cpus
            if not slot.gpus:
                machine.cpu.used -= needs.memory
            for index in slot.gpus:
                gpu = machine.gpus[index]
                gpu.free += share
                gpu.used -= needs.memory
                if gpu.free >= 1.0 - EPSILON:
                    gpu.free = 1.0
                    self._shared.pop(gpu.device, None)
                    self._count_whole(machine, +1)

    def hold(self, needs: Needs, slots: Iterable[Slot], *, sign: int = 1) -> None:
        """Keep these devices free for the request that is served next (sign -1: no longer)."""
        share = min(1.0, needs.gpus)
        for slot in slots:
            machine = self.machines.get(slot.node)
            if machine is None:
                continue
            machine.cpu.held += sign * slot.cpus
            if not slot.gpus:
                machine.cpu.held_memory += sign * needs.memory
            for index in slot.gpus:
                machine.gpus[index].held += sign * share
                machine.gpus[index].held_memory += sign * needs.memory

    def soonest(self, needs: Needs) -> list[str]:
        """Nodes in the order in which they will be free for a member of this gang."""

        def free_at(machine: Machine) -> float:
            if not needs.gpus:
                return machine.cpu.busy_until
            count = max(1, int(needs.gpus))
            if len(machine.gpus) < count:
                return math.inf
            return sorted(gpu.busy_until for gpu in machine.gpus)[count - 1]

        return sorted(self.machines, key=lambda name: free_at(self.machines[name]))

    def _take(self, machine: Machine, policy: str, needs: Needs, gpus: tuple[int, ...]) -> Slot:
        share = min(1.0, needs.gpus)
        machine.cpu.free -= needs.cpus
        self._free_cpus -= needs.cpus
        if not gpus:
            machine.cpu.used += needs.memory
        for index in gpus:
            gpu = machine.gpus[index]
            if gpu.free >= 1.0:
                self._count_whole(machine, -1)
            gpu.free -= share
            gpu.used += needs.memory
            if gpu.free > EPSILON:
                self._shared[gpu.device] = machine.node.name
        return Slot(machine.node.name, needs.cpus, gpus)

    def _count_whole(self, machine: Machine, change: int) -> None:
        name = machine.node.name
        del self._by_whole[machine.whole][name]
        machine.whole += change
        self._whole += change
        self._by_whole.setdefault(machine.whole, {})[name] = None

    def _candidates(self, policy: str, needs: Needs, home: frozenset[Device] | None) -> Iterator[str]:
        if home is not None:
            yield from dict.fromkeys(device.node for device in sorted(home, key=str))
            return
        seen = set(self._where.get(policy, ()))
        yield from self._where.get(policy, ())
        for name in self._by_fit(needs):
            if name not in seen:
                yield name

    def _by_fit(self, needs: Needs) -> Iterator[str]:
        """Whole GPUs: the tightest node that takes all of the gang, then the roomiest first. A share of one: those that
        are shared already, then the fewest whole GPUs first, so that it does not break up what a gang may want."""
        counts = sorted(count for count, names in self._by_whole.items() if names)
        if needs.gpus >= 1:
            total, each = needs.gang * int(needs.gpus), int(needs.gpus)
            fitting = [count for count in counts if count >= total]
            counts = fitting + [count for count in reversed(counts) if each <= count < total]
        elif needs.gpus:
            yield from dict.fromkeys(
                node for gpu, node in self._shared.items() if self._devices[gpu].free + EPSILON >= needs.gpus
            )
            counts = [count for count in counts if count]
        for count in counts:
            yield from list(self._by_whole[count])

    def _of(self, slots: Iterable[Slot]) -> Iterator[Occupancy]:
        for slot in slots:
            machine = self.machines.get(slot.node)
            if machine is not None:  # else the node is gone, and its devices with it
                yield from (machine.gpus[index] for index in slot.gpus) if slot.gpus else (machine.cpu,)
