"""Calls under leases, in threads of this process: what the thread, process and Ray executors have in common."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from learners.protocol import Learner
from learners.resources.allocate import Allocator
from learners.resources.clock import SteadyClock
from learners.resources.demand import EVALUATE, LOAD, Demand, Lease, Needs, Node, Patience, Refusal, Supply, even_share
from learners.resources.device import Device
from learners.resources.record import Event, Incident, UsageRecord
from learners.resources.residents import Residents
from mutual_env.errors import ConfigError, DeadlineExceededError, InvalidInputError, WorkerLostError

T = TypeVar("T")

TICK_SECONDS = 0.5  # how often a thread that waits looks up, so that nothing waits for a notice that never comes


@dataclass(slots=True, eq=False)
class _Job:
    """One call of one policy. `leased`: the phase whose needs it takes."""

    policy: str
    phase: str
    call: Callable[[], Any]
    limit: float  # seconds that it may run
    leased: str
    lease: Lease | None = None
    began: float | None = None
    value: Any = None
    error: BaseException | None = None
    ended: bool = False


@dataclass(slots=True, eq=False)
class _Lane:
    """A policy's own thread: the libraries under a learner keep state for each thread."""

    jobs: queue.Queue[_Job | None] = field(default_factory=queue.Queue)
    thread: threading.Thread | None = None


class LeasedCalls:
    """Runs one call per policy, each once its lease is granted. Every wait is bounded."""

    def __init__(
        self,
        demands: Iterable[Demand],
        supply: Supply,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.patience = patience or Patience()
        self.clock = SteadyClock(clock)
        self.record = UsageRecord({str(device): size for device, size in supply.devices.items()})
        self.parked: dict[str, str] = {}
        self._supply = supply
        self._allocator = Allocator(demands, supply, self.patience)
        self._residents = Residents(self.clock, self.record.add, self.note, self._allocator.moved)
        self._declared = frozenset(self._allocator.demands)
        self.limits = self._allocator.limits
        self._condition = threading.Condition()
        self._granted: dict[str, Lease] = {}
        self._refused: dict[str, str] = {}
        self._lanes: dict[str, _Lane] = {}
        self._threads: set[int] = set()
        self._closed = False
        self._check_demands()

    def know(self, policies: Iterable[str]) -> None:
        """Policies without a demand take one CPU in every phase."""
        with self._condition:
            for demand in even_share([p for p in policies if p not in self._allocator.demands], self._supply):
                self._allocator.demands[demand.policy] = demand

    def settle(self, policies: Iterable[str]) -> dict[str, tuple[int, ...] | None]:
        """The GPUs of this machine that each policy lives on from now on, and is leased no others than; None where
        nothing was declared for it."""
        with self._condition:
            self._allocator.settle(policy for policy in policies if policy in self._declared)
            homes = {policy: self._allocator.homes.get(policy, frozenset()) for policy in policies}
        gpus = {policy: sorted(d.gpu for d in home if d.gpu is not None) for policy, home in homes.items()}
        nodes = sorted({device.node for home in homes.values() for device in home if device.gpu is not None})
        if len(nodes) > 1:
            raise ConfigError(
                f"the policies would live on GPUs of {len(nodes)} nodes ({', '.join(nodes)}), and this executor runs "
                "on one machine: use resources.executor=ray, or name the devices of one node"
            )
        return {p: tuple(gpus[p]) if p in self._declared else None for p in policies}

    def hosted(self, learners: Mapping[str, Learner]) -> None:
        """These live here now: they make room for one another where leases ask for it. One whose memory can be measured
        and was not declared is taken to need the whole of its GPUs until it was."""
        self._residents.learners.update(learners)
        with self._condition:
            for name in learners:
                if name in self._allocator.demands and self._residents.measure(name) is not None:
                    self._allocator.assume_whole(name)

    @property
    def nodes(self) -> tuple[Node, ...]:
        with self._condition:
            return self._allocator.nodes

    def widest(self, policy: str) -> Needs:
        """The needs of its phase that takes most."""
        phases = self._allocator.demands[policy].phases.values()
        return max(phases, key=lambda needs: (needs.gang * needs.gpus, needs.gang * needs.cpus))

    def spreads(self, policy: str) -> bool:
        """Whether its learner starts actors of its own."""
        return self._allocator.demands[policy].spreads

    def keep_to(self, policy: str, devices: Iterable[Device]) -> None:
        """Lease only these to the policy from now on: it lives there."""
        with self._condition:
            self._allocator.keep_to(policy, frozenset(devices))

    def map(self, phase: str, calls: Mapping[str, Callable[[], T]]) -> dict[str, T]:
        if threading.get_ident() in self._threads:
            raise InvalidInputError(f"map({phase!r}) was called from inside a call under a lease: call it after that")
        self.know(calls)
        jobs = [self._job(policy, phase, call) for policy, call in calls.items() if policy not in self.parked]
        with self._condition:
            for job in jobs:
                self._ask(job)
            self._decide()
        for job in jobs:
            self._lane(job.policy).jobs.put(job, timeout=TICK_SECONDS)
        for job in jobs:
            self._await(job)
        return self._results(jobs)

    def note(self, kind: Incident, policy: str, detail: str) -> None:
        self.record.add(Event(self.clock(), kind, policy, detail))

    def park(self, policy: str, reason: str) -> None:
        """Give a policy up, visibly."""
        with self._condition:
            if policy not in self.parked:
                self.parked[policy] = reason
                self.note("parked", policy, reason)
            self._condition.notify_all()

    def remove_node(self, name: str) -> None:
        """A node is gone. Calls that run on it end by their own error; what can no longer be served is refused."""
        with self._condition:
            self.note("device lost", "", name)
            _, refusals = self._allocator.remove_node(name)
            self._refuse(refusals)
            self._decide()

    def add_node(self, node: Node) -> None:
        with self._condition:
            self._allocator.add_node(node)
            self.note("device added", "", node.name)
            self._decide()

    def close(self) -> None:
        """End the lanes that are idle. One that hangs is a daemon thread, and is left behind."""
        with self._condition:
            self._closed = True
            lanes, self._lanes = list(self._lanes.values()), {}
            self._condition.notify_all()
        for lane in lanes:
            lane.jobs.put(None, timeout=TICK_SECONDS)
        for lane in lanes:
            if lane.thread is not None:
                lane.thread.join(timeout=TICK_SECONDS)

    # -- in the calling thread ---------------------------------------------------------------------------------------

    def _check_demands(self) -> None:
        for demand in self._allocator.demands.values():
            for phase in demand.phases:
                answer = self._allocator.request(demand.policy, phase, 0.0)
                if isinstance(answer, Refusal):
                    raise ConfigError(answer.reason)
                self._allocator.withdraw(demand.policy)

    def _job(self, policy: str, phase: str, call: Callable[[], Any]) -> _Job:
        leased = "act" if phase in (EVALUATE, LOAD) else phase
        return _Job(policy, phase, call, self.limits.lease(policy, leased), leased)

    def _ask(self, job: _Job) -> None:
        if self._allocator.needs(job.policy, job.leased) is None:
            return
        answer = self._allocator.request(job.policy, job.leased, self.clock())
        if isinstance(answer, Refusal):
            self._refuse([answer])

    def _lane(self, policy: str) -> _Lane:
        with self._condition:
            if self._closed:
                raise InvalidInputError("this executor is closed: make a new one")
            lane = self._lanes.get(policy)
            if lane is None:
                lane = self._lanes[policy] = _Lane()
                lane.thread = threading.Thread(target=self._work, args=(lane.jobs,), name=policy, daemon=True)
                lane.thread.start()
        return lane

    def _await(self, job: _Job) -> None:
        """Until the job ends, or has run longer than it may. The wait for its lease is bounded by the allocator."""
        with self._condition:
            while not job.ended:
                if job.began is not None and self.clock() - job.began > job.limit:
                    self._abandon(job)
                    return
                self._condition.wait(timeout=TICK_SECONDS)
                self._tick()

    def _abandon(self, job: _Job) -> None:
        """A thread cannot be ended from outside: its lease is taken back, its lane left behind, its result ignored."""
        job.ended = True
        job.error = DeadlineExceededError(
            f"policy {job.policy!r} did not finish phase {job.phase!r} within {job.limit:.0f} s: raise the limit of "
            "its demand, or find out what it hangs on"
        )
        self.note("hung", job.policy, job.phase)
        self._lanes.pop(job.policy, None)
        self._release(job, "lost")

    def _results(self, jobs: list[_Job]) -> dict[str, Any]:
        results: dict[str, Any] = {}
        lost: list[BaseException] = []
        for job in jobs:
            if job.error is None:
                results[job.policy] = job.value
            elif isinstance(job.error, (WorkerLostError, DeadlineExceededError)):
                lost.append(job.error)
                self.park(job.policy, str(job.error))
            else:
                job.error.add_note(f"policy {job.policy!r}, phase {job.phase!r}")
                raise job.error
        if lost and not results:
            raise lost[0]
        return results

    # -- in a policy's own thread --------------------------------------------------------------------------------------

    def _work(self, jobs: queue.Queue[_Job | None]) -> None:
        self._threads.add(threading.get_ident())
        try:
            while not self._closed:
                try:
                    job = jobs.get(timeout=60.0)
                except queue.Empty:
                    continue
                if job is None:
                    return
                self._run(job)
                if job.error is not None and not self._is_own(jobs):
                    return  # abandoned: another lane has taken over
        finally:
            self._threads.discard(threading.get_ident())  # the next thread may get the same number

    def _is_own(self, jobs: queue.Queue[_Job | None]) -> bool:
        with self._condition:
            return any(lane.jobs is jobs for lane in self._lanes.values())

    def _run(self, job: _Job) -> None:
        try:
            self._wait_for_lease(job)
            if job.lease is not None:
                self._residents.make_room(job.lease, job.limit)
            value, error = job.call(), None
            measured = self._residents.measure(job.policy) if job.lease is not None else None
        except BaseException as caught:  # a boundary: the error is raised in the thread that called `map`
            value, error, measured = None, caught, None
        with self._condition:
            if not job.ended:
                job.value, job.error, job.ended = value, error, True
                if measured is not None:
                    self._allocator.measured(job.policy, job.leased, *measured)
                self._release(job, "done" if error is None else "failed")
            self._condition.notify_all()

    def _wait_for_lease(self, job: _Job) -> None:
        with self._condition:
            while self._allocator.needs(job.policy, job.leased) is not None:
                if job.policy in self._refused:
                    raise WorkerLostError(self._refused.pop(job.policy))
                lease = self._granted.pop(job.policy, None)
                if lease is not None:
                    job.lease = lease
                    break
                if self._closed:
                    raise WorkerLostError(f"the executor was closed while policy {job.policy!r} waited for a lease")
                self._condition.wait(timeout=TICK_SECONDS)
                self._tick()
            job.began = self.clock()

    def _release(self, job: _Job, outcome: Any) -> None:
        if job.lease is not None:
            span = replace(job.lease.span(self.clock(), outcome), phase=job.phase)
            self.record.add(span)
            if outcome == "done" and job.phase == job.leased:
                self._allocator.observe(span.policy, span.phase, span.ran)
            self._allocator.release(job.lease)
            self._decide()
        self._condition.notify_all()

    # -- the allocator, under the lock ---------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self.clock()
        wake = self._allocator.next_wake(now)
        if wake is not None and wake <= now + TICK_SECONDS:
            self._refuse(self._allocator.overdue(now))
            self._decide()

    def _decide(self) -> None:
        for lease in self._allocator.decide(self.clock()):
            self._residents.promise(lease)
            self._granted[lease.policy] = lease
        self._condition.notify_all()

    def _refuse(self, refusals: Iterable[Refusal]) -> None:
        for refusal in refusals:
            self._refused[refusal.request.policy] = refusal.reason
            self.note("refused", refusal.request.policy, refusal.reason)
