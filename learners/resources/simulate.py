"""A discrete-event simulation of a run over the allocation code that the executors use: for plans, and for clusters one
does not have. Only time is simulated; every decision is the allocator's own."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, assert_never

import numpy as np

from learners.resources.allocate import Allocator
from learners.resources.demand import PHASES, Demand, Lease, Node, Patience, Refusal, Rounds, Supply
from learners.resources.device import Device
from learners.resources.failures import Failures, NodeLoss
from learners.resources.record import Event, Incident, Outcome, Span, UsageRecord
from mutual_env.seeding import generator

Meeting: TypeAlias = Literal["round", "phase"]
"""How often synchronous policies meet: once a round, before what was shared is learnt from; or after every phase."""

MEETING_POINT = PHASES.index("score")


@dataclass(frozen=True, slots=True)
class Simulation:
    """What would happen. `bound`: no schedule takes less (see `lower_bound`). `serial`: one policy after the other."""

    makespan: float
    bound: float
    serial: float
    record: UsageRecord
    spans: tuple[Span, ...]
    events: tuple[Event, ...]
    completed: Mapping[str, int]
    parked: Mapping[str, str]
    stuck: tuple[str, ...]
    longest_wait: float
    wait_bound: float
    peak_memory: Mapping[Device, int]
    decisions: int


def simulate(
    demands: Iterable[Demand],
    supply: Supply,
    rounds: Rounds,
    patience: Patience | None = None,
    *,
    failures: Failures | None = None,
    meeting: Meeting = "round",
    settled: bool = False,
) -> Simulation:
    """Run the policies through their rounds on the supply. `settled`: each lives on the GPUs that it begins on, as the
    workers of every executor do."""
    demands = tuple(demands)
    allocator = Allocator(demands, supply, patience)
    if settled:
        allocator.settle(demand.policy for demand in demands)
    run = _Simulator(demands, supply, rounds, allocator, failures or Failures(), meeting)
    run.go()
    return run.outcome()


@dataclass(frozen=True, slots=True)
class _Ends:
    """The lease of this number ends."""

    lease: int


@dataclass(frozen=True, slots=True)
class _AsksAgain:
    """A policy that lost its lease with a node asks anew."""

    policy: str


@dataclass(frozen=True, slots=True)
class _Ages:
    """The oldest request has waited long enough for something to change."""


_Happening: TypeAlias = _Ends | _AsksAgain | _Ages | NodeLoss | Node  # a node that is lost, one that is back


@dataclass(slots=True)
class _Progress:
    """Where each policy is, in phases since the start, and the least of them."""

    at: dict[str, int]
    counts: Counter[int] = field(default_factory=Counter)
    least: int = 0

    def __post_init__(self) -> None:
        self.counts.update(self.at.values())

    def advance(self, policy: str) -> None:
        self.counts[self.at[policy]] -= 1
        self.at[policy] += 1
        self.counts[self.at[policy]] += 1
        self._settle()

    def drop(self, policy: str) -> None:
        self.counts[self.at.pop(policy)] -= 1
        self._settle()

    def _settle(self) -> None:
        last = max(self.at.values(), default=0) if not self.counts[self.least] else self.least
        while self.least < last and not self.counts[self.least]:
            self.least += 1


class _Simulator:
    def __init__(
        self,
        demands: tuple[Demand, ...],
        supply: Supply,
        rounds: Rounds,
        allocator: Allocator,
        failures: Failures,
        meeting: Meeting,
    ) -> None:
        self.demands, self.supply, self.rounds, self.meeting = demands, supply, rounds, meeting
        self.allocator, self.failures = allocator, failures
        self.now = 0.0
        self.record = UsageRecord({str(device): size for device, size in supply.devices.items()})
        self.spans: list[Span] = []
        self.events: list[Event] = []
        self.progress = _Progress({demand.policy: 0 for demand in self.demands})
        self.completed = {demand.policy: 0 for demand in self.demands}
        self.parked: dict[str, str] = {}
        self.gated: dict[str, int] = {}
        self.peak: dict[Device, int] = {}
        self.decisions = 0
        self.generator = generator(self.failures.seed, "failures")
        self.running: dict[int, tuple[Lease, Outcome]] = {}
        self.gpu_work = self.cpu_work = 0.0  # seconds x how many
        self.segments: dict[int, dict[str, float]] = {}  # by meeting, each policy's seconds up to it
        self._wake_at = -1.0
        self._heap: list[tuple[float, int, _Happening]] = []
        self._order = itertools.count()

    # -- the clock ---------------------------------------------------------------------------------------------------

    def go(self) -> None:
        for loss in self.failures.nodes:
            self.push(loss.at, loss)
        for demand in self.demands:
            self.begin(demand.policy)
        self.decide()
        while self._heap and len(self.progress.at) > 0:
            self.now = self._heap[0][0]
            while self._heap and self._heap[0][0] <= self.now:
                self.handle(heapq.heappop(self._heap)[-1])
            self.decide()

    def push(self, at: float, happening: _Happening) -> None:
        heapq.heappush(self._heap, (at, next(self._order), happening))

    def handle(self, happening: _Happening) -> None:
        match happening:
            case _Ends(number):
                self.end(number)
            case _AsksAgain(policy):
                if policy in self.progress.at:
                    self.ask(policy)
            case NodeLoss():
                self.lose_node(happening)
            case Node():
                self.allocator.add_node(happening)
                self.note("device added", "", happening.name)
            case _Ages():
                for refusal in self.allocator.overdue(self.now):
                    self.refuse(refusal)
            case _:
                assert_never(happening)

    def decide(self) -> None:
        self.decisions += 1
        for lease in self.allocator.decide(self.now):
            self.start(lease)
        wake = self.allocator.next_wake(self.now)
        if wake is not None and not self.now < self._wake_at <= wake:
            self._wake_at = wake
            self.push(wake, _Ages())

    # -- a policy's way through its rounds ---------------------------------------------------------------------------

    def begin(self, policy: str) -> None:
        """Go on from where the policy is: through phases that cost nothing, up to a request, a gate or the end."""
        while policy in self.progress.at:
            at = self.progress.at[policy]
            if at >= (self.rounds.count + self.rounds.staleness) * len(PHASES):
                return
            if self.gate(at) > self.progress.least:
                self.gated[policy] = self.gate(at)
                return
            if self.has_round(at) and PHASES[at % len(PHASES)] in self.allocator.demands[policy].phases:
                self.ask(policy)
                return
            self.step(policy)

    def has_round(self, at: int) -> bool:
        """The last steps sample nothing, and the first learn nothing."""
        step, phase = divmod(at, len(PHASES))
        return step < self.rounds.count if phase < MEETING_POINT else step >= self.rounds.staleness

    def gate(self, at: int) -> int:
        """How far everybody must be before anybody passes this point."""
        if self.meeting == "phase" and not self.rounds.staleness:
            return at
        return max(0, at - self.rounds.staleness * len(PHASES)) if at % len(PHASES) == MEETING_POINT else 0

    def step(self, policy: str) -> None:
        before = self.progress.least
        self.progress.advance(policy)
        steps, phase = divmod(self.progress.at[policy], len(PHASES))
        if phase == 0 and steps > self.rounds.staleness:
            self.completed[policy] += 1
        if self.progress.least > before:
            self.open_gates()

    def open_gates(self) -> None:
        through = [policy for policy, gate in self.gated.items() if gate <= self.progress.least]
        for policy in through:
            del self.gated[policy]
        queue = deque(through)
        while queue:
            self.begin(queue.popleft())

    def ask(self, policy: str) -> None:
        phase = PHASES[self.progress.at[policy] % len(PHASES)]
        answer = self.allocator.request(policy, phase, self.now)
        if isinstance(answer, Refusal):
            self.refuse(answer)

    def start(self, lease: Lease) -> None:
        seconds, outcome = self.attempts(lease)
        self.running[lease.number] = (lease, outcome)
        for device in lease.devices:
            self.peak[device] = max(self.peak.get(device, 0), self.allocator.memory_on(device))
        self.push(self.now + lease.load_seconds + seconds, _Ends(lease.number))

    def attempts(self, lease: Lease) -> tuple[float, Outcome]:
        """How long the lease lasts, failures and restarts within it included."""
        seconds, needs = 0.0, lease.request.needs
        for attempt in range(self.allocator.patience.restarts + 1):
            lost = self.fate(lease)
            if lost is None:
                return seconds + needs.seconds, "done"
            seconds += lost
            if attempt < self.allocator.patience.restarts:
                seconds += self.failures.restart
                self.note("restarted", lease.policy, lease.request.phase)
        return seconds, "failed"

    def fate(self, lease: Lease) -> float | None:
        """Seconds lost until a failure is noticed; None where there is none."""
        policy, phase, needs = lease.policy, lease.request.phase, lease.request.needs
        if policy in self.failures.broken:
            return self.failures.notice
        if not self.failures.death and not self.failures.hang:
            return None
        chance = self.generator.random()
        if chance < self.failures.hang:
            return self.allocator.limits.of(policy, phase)
        if chance < self.failures.hang + self.failures.death:
            return float(np.clip(self.generator.random(), 0.0, 1.0)) * needs.seconds + self.failures.notice
        return None

    def end(self, number: int) -> None:
        if number not in self.running:
            return  # lost with its node before
        lease, outcome = self.running.pop(number)
        self.allocator.release(lease)
        self.account(lease, outcome)
        if outcome == "failed":
            times = self.allocator.patience.restarts + 1
            self.park(lease.policy, f"its worker failed {times} times in phase {lease.request.phase!r}")
            return
        self.step(lease.policy)
        self.begin(lease.policy)

    # -- what goes wrong ---------------------------------------------------------------------------------------------

    def refuse(self, refusal: Refusal) -> None:
        self.note("refused", refusal.request.policy, refusal.reason)
        self.park(refusal.request.policy, refusal.reason)

    def park(self, policy: str, reason: str) -> None:
        self.parked[policy] = reason
        self.note("parked", policy, reason)
        self.gated.pop(policy, None)
        before = self.progress.least
        self.progress.drop(policy)
        if self.progress.at and self.progress.least > before:
            self.open_gates()

    def lose_node(self, loss: NodeLoss) -> None:
        known = {node.name: node for node in self.allocator.nodes}
        if loss.node not in known:
            return
        self.note("device lost", "", loss.node)
        lost, refused = self.allocator.remove_node(loss.node)
        for lease in lost:
            del self.running[lease.number]
            self.account(lease, "lost")
            self.push(self.now + self.failures.notice + self.failures.restart, _AsksAgain(lease.policy))
        for refusal in refused:
            self.refuse(refusal)
        if loss.back_after is not None:
            self.push(self.now + loss.back_after, known[loss.node])

    # -- the books ---------------------------------------------------------------------------------------------------

    def note(self, kind: Incident, policy: str, detail: str) -> None:
        event = Event(self.now, kind, policy, detail)
        self.events.append(event)
        self.record.add(event)

    def account(self, lease: Lease, outcome: Outcome) -> None:
        request = lease.request
        span = lease.span(self.now, outcome)
        self.spans.append(span)
        self.record.add(span)
        if outcome == "lost":
            return  # on another node it would not have been: no part of the bound
        useful = max(0.0, span.ran - lease.load_seconds)
        needs = request.needs
        self.gpu_work += useful * needs.gang * needs.gpus
        self.cpu_work += useful * needs.gang * needs.cpus
        at = self.progress.at.get(request.policy, 0)
        segment = at if self.meeting == "phase" else (at - MEETING_POINT) // len(PHASES)
        sums = self.segments.setdefault(0 if self.rounds.staleness else segment, {})
        sums[request.policy] = sums.get(request.policy, 0.0) + useful

    def outcome(self) -> Simulation:
        end = self.rounds.count
        stuck = tuple(policy for policy in self.progress.at if self.completed[policy] < end)
        return Simulation(
            makespan=max((span.ended for span in self.spans), default=0.0),
            bound=max(self.critical_path(), self.work_bound()),
            serial=sum(sum(segment.values()) for segment in self.segments.values()),
            record=self.record,
            spans=tuple(self.spans),
            events=tuple(self.events),
            completed=self.completed,
            parked=self.parked,
            stuck=stuck,
            longest_wait=max((span.waited for span in self.spans), default=0.0),
            wait_bound=self.allocator.wait_bound(),
            peak_memory=self.peak,
            decisions=self.decisions,
        )

    def critical_path(self) -> float:
        """The longest way through what must follow each other, workers that died or hung included: they would have cost
        any schedule as much. Between two meetings, that is the slowest policy."""
        return sum(max(segment.values()) for segment in self.segments.values())

    def work_bound(self) -> float:
        """When all work could be done if every device that is there were busy all the time."""
        return max(
            _time_for(self.gpu_work, self.supply, self.failures.nodes, lambda node: float(node.gpus)),
            _time_for(self.cpu_work, self.supply, self.failures.nodes, lambda node: node.cpus),
        )


def _time_for(work: float, supply: Supply, losses: Iterable[NodeLoss], size: Callable[[Node], float]) -> float:
    """The time by which the supply, as it shrinks and grows, has done that much work."""
    nodes = {node.name: node for node in supply.nodes}
    capacity = sum(size(node) for node in supply.nodes)
    changes: list[tuple[float, float]] = []
    for loss in losses:
        changes.append((loss.at, -size(nodes[loss.node])))
        if loss.back_after is not None:
            changes.append((loss.at + loss.back_after, size(nodes[loss.node])))
    time = 0.0
    for at, change in sorted(changes):
        if work <= capacity * (at - time):
            break
        work -= capacity * (at - time)
        time, capacity = at, capacity + change
    return time + (work / capacity if capacity > 0 else 0.0)
