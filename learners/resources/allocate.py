"""The allocation policy: who gets a lease next, and on what. Pure code: no clock, no thread, no wait.

- A lease holds all that a phase needs, or nothing; a policy has one lease at a time and asks for the next after giving
  it back. Nobody holds something while waiting for more, so there is no deadlock.
- The most urgent request that fits goes first: the one with most work behind it before all policies meet again.
- A request older than `Patience.reserve` is served in order of arrival: devices are chosen for the oldest and kept free
  for it, whatever else is urgent. Each other policy can be ahead of it once, so the wait is bounded (`wait_bound`).
- Policies share devices by time. Weights that may be moved make room for another's; a policy whose weights may not be
  moved keeps to the devices chosen for it at the start, and the others keep off those while there is another place.

The executors and the simulator call this code, and only this code, to decide.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from learners.resources.demand import Demand, Lease, Needs, Node, Patience, Refusal, Request, Slot, Supply
from learners.resources.device import Device
from learners.resources.limits import Limits
from learners.resources.machines import Machines
from learners.resources.remedy import remedy
from mutual_env.errors import InvalidInputError, UnknownNameError

_Shape: TypeAlias = tuple[frozenset[Device] | str, int, float, float, bool]
_MOST = 1 << 62  # bytes: more than any request


class Allocator:
    """Grants leases on a supply to policies with known demands. Times are seconds on any clock that never goes back."""

    def __init__(self, demands: Iterable[Demand], supply: Supply, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()
        self.demands = {demand.policy: demand for demand in demands}
        self.limits = Limits(self.demands, self.patience)
        self._machines = Machines(supply.nodes)
        self._empty = Machines(supply.nodes)  # what could be had if nobody ran: only weights that stay are in it
        self._homes: dict[str, frozenset[Device]] = {}
        self._queue: list[tuple[float, int, Request, _Shape]] = []  # most urgent first
        self._changed = True  # something was given back since the last decision
        self._looked_at = 0
        self._arrivals: dict[str, Request] = {}  # by policy, oldest first
        self._leases: dict[str, Lease] = {}
        self._numbers = 0
        self._measured: dict[tuple[str, str], float] = {}
        self._assumed: set[tuple[str, str]] = set()  # phases whose memory nobody has said or measured
        self._held: tuple[Request, tuple[Slot, ...]] | None = None
        self._feasible: dict[tuple[str, Needs], bool] = {}
        self._settle(demand for demand in self.demands.values() if not demand.movable)

    @property
    def leases(self) -> Mapping[str, Lease]:
        """The lease of each policy that has one."""
        return self._leases

    @property
    def waiting(self) -> Mapping[str, Request]:
        """The request of each policy that waits, oldest first."""
        return self._arrivals

    @property
    def homes(self) -> Mapping[str, frozenset[Device]]:
        """The devices of each policy whose weights cannot be moved."""
        return self._homes

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(host.node for host in self._machines.machines.values())

    def needs(self, policy: str, phase: str) -> Needs | None:
        """What the phase takes; None where it costs nothing."""
        if policy not in self.demands:
            raise UnknownNameError.of("policy", policy, self.demands)
        return self.demands[policy].phases.get(phase)

    def wait_bound(self) -> float:
        """No request that can be served waits longer, while no device is lost."""
        return self.patience.reserve + len(self.demands) * self.limits.longest_lease(self.demands.values())

    def request(self, policy: str, phase: str, now: float) -> Request | Refusal:
        """Ask. What can never be served is refused here and now."""
        needs = self.needs(policy, phase)
        if needs is None:
            raise InvalidInputError(f"policy {policy!r} takes nothing in phase {phase!r}: there is nothing to ask for")
        if policy in self._arrivals or policy in self._leases:
            raise InvalidInputError(
                f"policy {policy!r} asks for phase {phase!r} while it waits for or holds another lease: "
                "give that back first (a call under a lease must not start another)"
            )
        urgency = self.demands[policy].remaining(phase, self._measured)
        request = Request(policy, phase, needs, urgency, now)
        if not self._fits_empty(request):
            return self._refusal(request)
        self._numbers += 1
        home = self._homes.get(policy)
        shape = (home or self.demands[policy].kind, needs.gang, needs.gpus, needs.cpus, needs.together)
        bisect.insort(self._queue, (-request.urgency, self._numbers, request, shape), key=lambda item: item[:2])
        self._arrivals[policy] = request
        return request

    def observe(self, policy: str, phase: str, seconds: float) -> None:
        """What a lease took. From now on urgency and limits are reckoned with that, not with the demand's estimate."""
        self.limits.observe(policy, phase, seconds)
        before = self._measured.get((policy, phase), seconds)
        self._measured[policy, phase] = (before + seconds) / 2

    def measured(self, policy: str, phase: str, held: int, peak: int) -> None:
        """Bytes that a policy kept after a phase, and the most that it had in it: what was not declared is known from
        now on, and what was declared too small is corrected."""
        demand = self.demands[policy]
        needs, weights = demand.phases[phase], max(held, demand.weights)
        known = 0 if (policy, phase) in self._assumed else needs.memory
        self._assumed.discard((policy, phase))
        phases = {**demand.phases, phase: dataclasses.replace(needs, memory=max(known, peak))}
        phases = {n: dataclasses.replace(x, memory=x.memory and max(weights, x.memory)) for n, x in phases.items()}
        self.demands[policy] = dataclasses.replace(demand, weights=weights, phases=phases)

    def assume_whole(self, policy: str) -> None:
        """Nobody said what this policy's phases take of their GPUs: all of it, until it is measured."""
        demand = self.demands[policy]
        least = min((node.gpu_memory for node in self.nodes if node.gpus), default=0)
        unknown = {name: needs for name, needs in demand.phases.items() if needs.gpus and not needs.memory}
        self._assumed.update((policy, name) for name in unknown)
        assumed = {n: dataclasses.replace(x, memory=int(min(1.0, x.gpus) * least)) for n, x in unknown.items()}
        self.demands[policy] = dataclasses.replace(demand, phases={**demand.phases, **assumed})

    def moved(self, policy: str, seconds: float) -> None:
        """What bringing a policy's state back took: what its next lease is reckoned with."""
        demand = self.demands[policy]
        if demand.offload_seconds is not None:
            self.demands[policy] = dataclasses.replace(demand, offload_seconds=seconds)

    def withdraw(self, policy: str) -> None:
        """Take a waiting request back, if there is one."""
        request = self._arrivals.pop(policy, None)
        if request is not None:
            self._queue = [item for item in self._queue if item[2].policy != policy]
            self._unhold(request)

    def decide(self, now: float) -> list[Lease]:
        """Every lease that can be granted now."""
        granted = self._serve_oldest(now)
        tried: dict[_Shape, int] = {}  # the least memory that did not fit
        queue = self._queue
        if not self._changed:  # nothing was given back: only those that are new can fit
            queue = [item for item in self._queue if item[1] > self._looked_at]
        self._changed, self._looked_at = False, self._numbers
        for _, _, request, shape in queue:
            if tried.get(shape, _MOST) <= request.needs.memory or not self._machines.enough(request.needs):
                continue
            if request.policy not in self._arrivals:
                continue
            lease = self._grant(request, now)
            if lease is None:
                tried[shape] = request.needs.memory
            else:
                granted.append(lease)
        if granted:
            gone = {lease.policy for lease in granted}
            self._queue = [item for item in self._queue if item[2].policy not in gone]
        return granted

    def release(self, lease: Lease) -> None:
        """Give it back. The policy's weights stay where they are until somebody needs the room."""
        if self._leases.get(lease.policy) != lease:
            return  # lost with its node, or given back already
        del self._leases[lease.policy]
        self._changed = True
        needs = lease.request.needs
        self._machines.give_back(lease.policy, needs, lease.slots)
        demand = self.demands[lease.policy]
        if demand.weights and needs.memory:
            self._machines.rest(lease.policy, lease.slots, demand.weights, movable=demand.movable)

    def overdue(self, now: float) -> list[Refusal]:
        """Requests that have waited longer than `Patience.limit`; they wait no more."""
        limit = self.patience.limit
        late = list(itertools.takewhile(lambda request: now - request.asked >= limit, self._arrivals.values()))
        for request in late:
            self.withdraw(request.policy)
        return [
            Refusal(
                request,
                f"policy {request.policy!r} waited {now - request.asked:.0f} s for phase {request.phase!r}, over the "
                f"limit of {limit:.0f} s: give it fewer rivals or more devices, or raise the limit",
            )
            for request in late
        ]

    def next_wake(self, now: float) -> float | None:
        """When something changes if nothing is released: the oldest request ages, or is given up."""
        if not self._arrivals:
            return None
        asked = next(iter(self._arrivals.values())).asked
        ages = asked + self.patience.reserve
        return ages if ages > now else max(now, asked + self.patience.limit)

    def remove_node(self, name: str) -> tuple[list[Lease], list[Refusal]]:
        """A node is gone: the leases lost with it, and the waiting requests that can now never be served."""
        if name not in self._machines.machines:
            raise UnknownNameError.of("node", name, self._machines.machines)
        lost = [lease for lease in self._leases.values() if any(slot.node == name for slot in lease.slots)]
        self._clear_hold()
        self._changed = True
        self._machines.remove(name)
        self._empty.remove(name)
        self._feasible.clear()
        for lease in lost:
            self.release(lease)
        for policy, home in list(self._homes.items()):
            if any(device.node == name for device in home):
                del self._homes[policy]
                if not self.demands[policy].movable:
                    self._forget(policy, home)
                    self._settle_home(self.demands[policy])
        stuck = [request for request in self._arrivals.values() if not self._fits_empty(request)]
        for request in stuck:
            self.withdraw(request.policy)
        return lost, [self._refusal(request) for request in stuck]

    def keep_to(self, policy: str, devices: frozenset[Device]) -> None:
        """The policy lives on these devices, and is leased no others (nothing: it may live anywhere again)."""
        if devices == self._homes.get(policy, frozenset()):
            return
        self._homes.pop(policy, None)
        if devices:
            self._homes[policy] = devices
        self._feasible = {key: fits for key, fits in self._feasible.items() if key[0] != policy}
        self._changed = True

    def settle(self, policies: Iterable[str]) -> None:
        """Choose the GPUs that each of these lives on, where it takes any and has none yet: a worker cannot leave the
        devices that it was started on."""
        homeless = [self.demands[policy] for policy in policies if policy not in self._homes]
        self._settle(demand for demand in homeless if any(needs.gpus for needs in demand.phases.values()))
        self._feasible.clear()
        self._changed = True

    def add_node(self, node: Node) -> None:
        if node.name in self._machines.machines:
            raise InvalidInputError(f"node {node.name!r} is already part of the supply")
        self._machines.add(node)
        self._changed = True
        self._empty.add(node)
        self._feasible.clear()

    def memory_on(self, device: Device) -> int:
        """Bytes in use: of running phases, and of weights that rest there."""
        return self._machines.on(device).occupied

    # -- how ---------------------------------------------------------------------------------------------------------

    def _serve_oldest(self, now: float) -> list[Lease]:
        granted: list[Lease] = []
        while self._arrivals:
            oldest = next(iter(self._arrivals.values()))
            if now - oldest.asked < self.patience.reserve:
                break
            lease = self._grant(oldest, now)
            if lease is None:
                self._hold(oldest)
                break
            granted.append(lease)
        return granted

    def _grant(self, request: Request, now: float) -> Lease | None:
        demand, needs = self.demands[request.policy], request.needs
        slots = self._claim(request)
        if slots is None:
            return None
        moved, missing = self._machines.settle(request.policy, needs, slots, now + needs.seconds)
        load = (demand.offload_seconds or 0.0) if moved or missing else 0.0
        self._numbers += 1
        expires = now + load + self.limits.lease(request.policy, request.phase)
        lease = Lease(self._numbers, request, slots, now, expires, load, tuple(moved))
        self._leases[request.policy] = lease
        del self._arrivals[request.policy]
        self._unhold(request)
        return lease

    def _claim(self, request: Request) -> tuple[Slot, ...] | None:
        """Who can run anywhere runs where nobody has to, as long as there is such a place."""
        policy, needs, kind = request.policy, request.needs, self.demands[request.policy].kind
        home, first = self._homes.get(policy), self._is_held_for(request)
        if self._homes and home is None and needs.gpus:
            slots = self._machines.claim(policy, needs, kind=kind, first=first, off_homes=True)
            if slots is not None:
                return slots
        return self._machines.claim(policy, needs, kind=kind, home=home, first=first)

    def _hold(self, request: Request) -> None:
        """Choose the devices that will be free soonest for the oldest request, and keep them for it."""
        if self._held is not None:
            return
        demand, needs = self.demands[request.policy], request.needs
        order = self._machines.soonest(needs)
        home = self._homes.get(request.policy)
        slots = self._empty.claim(request.policy, needs, kind=demand.kind, home=home, order=order)
        if slots is not None:
            self._empty.give_back(request.policy, needs, slots)
            self._machines.hold(needs, slots)
            self._held = (request, slots)

    def _is_held_for(self, request: Request) -> bool:
        return self._held is not None and self._held[0] == request

    def _unhold(self, request: Request) -> None:
        if self._is_held_for(request):
            self._clear_hold()

    def _clear_hold(self) -> None:
        if self._held is not None:
            self._machines.hold(self._held[0].needs, self._held[1], sign=-1)
            self._changed = True
            self._held = None

    def _settle(self, demands: Iterable[Demand]) -> None:
        for demand in sorted(demands, key=lambda item: (-item.weights, -item.chain)):
            self._settle_home(demand)

    def _settle_home(self, demand: Demand) -> None:
        """Devices for a policy that keeps to some: its widest phase fits, and they have the least to do."""
        widest = max(demand.phases.values(), key=lambda needs: (needs.gpus > 0, needs.gang * max(1.0, needs.gpus)))
        slots = self._empty.claim(demand.policy, widest, kind=demand.kind, order=self._empty.soonest(widest))
        if slots is None:
            return  # every request of it is refused, with the reason
        self._empty.give_back(demand.policy, widest, slots)
        nodes = {Device(slot.node) for slot in slots}  # its phases that take no GPU stay beside it
        self._homes[demand.policy] = frozenset({device for slot in slots for device in slot.devices} | nodes)
        for machines in (self._empty, self._machines):
            if demand.weights and not demand.movable:
                machines.rest(demand.policy, slots, demand.weights, movable=False)
        for slot in slots:
            for device in slot.devices:
                self._empty.on(device).busy_until += demand.chain
                self._machines.on(device).residents += 0 if demand.movable else 1

    def _forget(self, policy: str, home: frozenset[Device]) -> None:
        for machines in (self._empty, self._machines):
            for occupancy in machines.occupancies():
                if occupancy.device in home:
                    occupancy.pinned.pop(policy, None)
                    occupancy.residents = max(0, occupancy.residents - 1)

    def _fits_empty(self, request: Request) -> bool:
        demand = self.demands[request.policy]
        key = (request.policy if request.policy in self._homes or not demand.movable else demand.kind, request.needs)
        if key not in self._feasible:
            home = self._homes.get(request.policy)
            slots = self._empty.claim(request.policy, request.needs, kind=demand.kind, home=home)
            if slots is not None:
                self._empty.give_back(request.policy, request.needs, slots)
            self._feasible[key] = slots is not None and (demand.movable or home is not None)
        return self._feasible[key]

    def _refusal(self, request: Request) -> Refusal:
        demand = self.demands[request.policy]
        return Refusal(request, remedy(request.policy, request.phase, demand, self.nodes, self._empty))
