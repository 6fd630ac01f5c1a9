"""Policies on a Ray cluster: each learner is an actor in a placement group of its own.

Ray places, transports, restarts and retries. What is ours: the leases (the allocator that every executor uses), and
giving a restarted actor its last state back, which Ray does not keep.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from learners.protocol import Learner
from learners.resources.demand import Demand, Needs, Node, Patience, Supply
from learners.resources.device import Device
from learners.resources.leased import LeasedCalls
from learners.resources.limits import START
from learners.resources.machines import Machines
from learners.resources.record import UsageRecord
from learners.resources.remote import Hear, RemoteLearner, WorkerDiedError, WorkerHungError
from learners.resources.worker import Call, LearnerWorker, Reply
from mutual_env.errors import ConfigError, MissingExtraError, StorageError, WorkerLostError

T = TypeVar("T")

LOOK_SECONDS = 2.0  # between two looks at whether an actor that does not answer still has a place
DISPLACED_SECONDS = 10.0  # that Ray may take to place an actor of a lost node again, before it is asked for less
SPARE_SHARE = 0.05  # of every node's CPUs: what is not reserved
CONNECT_SECONDS = 60.0  # to find the cluster's nodes


class RayExecutor:
    """`address`: of a running cluster ("auto" for the one started on this machine with `ray start`); empty: a cluster
    of this machine alone, for as long as the executor lives.

    Where policies together need more than the cluster has, each reserves its part of it with Ray, and leases let them
    take turns on the whole.
    """

    def __init__(
        self,
        demands: Iterable[Demand] = (),
        patience: Patience | None = None,
        *,
        address: str = "",
        keep: int = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ray = _connect(address)
        self._owns_cluster = not address
        self._keep = keep
        self._calls = LeasedCalls(demands, Supply(_nodes(self._ray)), patience, clock)
        self._hosts: dict[str, ActorHost] = {}
        self._hosted: dict[str, RemoteLearner] = {}
        self._following = threading.Lock()
        self._gpus: dict[str, dict[str, int]] = {}

    @property
    def record(self) -> UsageRecord:
        return self._calls.record

    @property
    def parked(self) -> Mapping[str, str]:
        return self._calls.parked

    @property
    def hosts(self) -> Mapping[str, ActorHost]:
        return self._hosts

    def host(self, makers: Mapping[str, Callable[[], Learner]]) -> dict[str, Learner]:
        self._calls.know(makers)
        needs = {name: self._calls.widest(name) for name in makers}
        limits = self._calls.limits
        for name in sorted(makers, key=lambda policy: -needs[policy].width):  # the widest while there is most room
            self._hosts[name] = ActorHost(
                self._ray, name, makers[name], needs[name], tuple(needs.values()), spreads=self._calls.spreads(name)
            )
        for name in makers:
            began = time.monotonic()
            try:
                self._hosts[name].wait_until_ready(limits.start(name))
            except (WorkerDiedError, WorkerHungError) as error:
                raise WorkerLostError(f"policy {name!r} could not be placed: {error}") from error
            limits.observe(name, START, time.monotonic() - began)
            self._hosted[name] = RemoteLearner(name, self._hosts[name], self._calls.note, limits, keep=self._keep)
        built: dict[str, Learner] = {name: self._hosted[name] for name in makers}
        self._calls.hosted(built)
        return built

    def map(self, phase: str, calls: Mapping[str, Callable[[], T]]) -> dict[str, T]:
        self._follow_cluster()
        return self._calls.map(phase, calls)

    def close(self) -> None:
        self._calls.close()
        while self._hosted:
            self._hosted.popitem()[1].close()
        self._hosts.clear()
        if self._owns_cluster:
            self._ray.shutdown()

    def _follow_cluster(self) -> None:
        """Leases are for the nodes that are there, and each policy's for those where Ray has put it."""
        with self._following:
            self._follow()

    def _follow(self) -> None:
        there = {node.name: node for node in _nodes(self._ray)}
        known = {node.name for node in self._calls.nodes}
        for name in sorted(known - there.keys()):
            self._calls.remove_node(name)
        for name in sorted(there.keys() - known):
            self._calls.add_node(there[name])
        for policy, host in self._hosts.items():
            places = [place for place in host.places() if place.node in there]
            self._calls.keep_to(
                policy, [device for place in places for device in self._devices(there[place.node], place)]
            )

    def _devices(self, node: Node, place: Place) -> list[Device]:
        """Ray's GPUs of a node are numbered as they are met: all that matters is who has the same one."""
        if not place.gpus:
            return list(Supply((node,)).devices)
        known = self._gpus.setdefault(node.name, {})
        return [node.cpu, *(node.gpu(known.setdefault(gpu, len(known))) for gpu in place.gpus)]


@dataclass(frozen=True, slots=True)
class Place:
    """Of one member of a gang: its node, and Ray's names of its GPUs (none: all that the node has)."""

    node: str
    gpus: tuple[str, ...] = ()


class ActorHost:
    """A worker in a Ray actor. Ray restarts the actor and repeats a call that was in flight; the worker then says that
    it is at an older version, and is given its state."""

    shares_files = False

    def __init__(
        self,
        ray: Any,
        name: str,
        make: Callable[[], Learner],
        needs: Needs,
        everybody: tuple[Needs, ...],
        *,
        spreads: bool = False,
    ) -> None:
        """`spreads`: the learner's own actors take the group's GPUs, one bundle each, and the worker takes none."""
        self._ray, self._make, self._needs, self._everybody = ray, make, needs, everybody
        self._spreads = spreads
        self.name = name
        self._full = (ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError)
        self._asked_on: list[str] = []
        self._told: list[Any] = []
        self._place()

    def call(self, call: Call, limit: float, hear: Hear | None = None) -> Reply:
        """An actor says nothing before its reply."""
        reply: Reply = self._get(self._actor.serve.remote(call), limit, call.method)
        return reply

    @property
    def alive(self) -> bool:
        """Ray sees to that."""
        return True

    def restart(self, limit: float) -> None:
        """Ray does it, where it can; where it has no place for as much, the actor is placed anew with less."""
        try:
            self._get(self._actor.place.remote(), limit / 2, "starting")
        except (WorkerDiedError, WorkerHungError):
            self.close()
            self._place(anew=True)
            self._get(self._actor.place.remote(), limit / 2, "starting")

    def wait_until_ready(self, limit: float) -> None:
        self._get(self._actor.place.remote(), limit, "starting")
        if self.places() == []:
            self._ray.wait(self._told, num_returns=len(self._told), timeout=limit)

    def places(self) -> list[Place]:
        """Where its placement group is now, each member; nothing while that is not known."""
        table = self._ray.util.placement_group_table(self._group)
        nodes = sorted(set(table["bundles_to_node_id"].values()) - {"", None})
        if not self._needs.gpus:
            return [Place(node) for node in nodes]
        if nodes != self._asked_on:
            self._asked_on, self._told = nodes, self._ask_places() if nodes else []
        try:
            done, pending = self._ray.wait(self._told, num_returns=len(self._told), timeout=0.01) if nodes else ([], [])
            found: list[list[Place]] = [] if pending else self._ray.get(done, timeout=1.0)
            told = [place for places in found for place in places]
        except self._ray.exceptions.RayError:  # it is on its way elsewhere, and asked again there
            self._asked_on, told = [], []
        return told

    def close(self) -> None:
        with contextlib.suppress(Exception):  # a boundary: the actor, its node or the cluster may be gone already
            self._ray.kill(self._actor)
        with contextlib.suppress(Exception):
            self._ray.util.remove_placement_group(self._group)

    def _place(self, *, anew: bool = False) -> None:
        bundle = _bundle(self._needs, self._everybody, _nodes(self._ray))
        if anew and "CPU" in bundle:
            bundle["CPU"] = 0.01  # that much is left on every node; who computes when is for the leases to say
        if self._spreads:  # OpenRLHF's actors ask for as much of a CPU as of a GPU
            bundle["CPU"] = max(bundle.get("CPU", 0.0), bundle.get("GPU", 0.0))
        strategy = "STRICT_PACK" if self._needs.together else "PACK"
        self._group = self._ray.util.placement_group([bundle] * self._needs.gang, strategy=strategy)
        self._asked_on = []
        self._share = {"num_cpus": bundle.get("CPU", 0), "num_gpus": bundle.get("GPU", 0)}
        if self._spreads:
            self._share = {"num_cpus": 0, "num_gpus": 0}
        actor = self._ray.remote(_Actor).options(
            **self._share, **self._in_bundle(0), max_restarts=-1, max_task_retries=-1
        )
        self._actor = actor.remote(self._make)

    def _in_bundle(self, index: int) -> dict[str, Any]:
        scheduling = self._ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(
            self._group, placement_group_bundle_index=index, placement_group_capture_child_tasks=True
        )
        return {"scheduling_strategy": scheduling}

    def _ask_places(self) -> list[Any]:
        """The actor is the first member of the gang; what the others have been given, a short task in each says. A
        learner that spreads says itself where its actors are."""
        if self._spreads:
            return [self._actor.places.remote()]
        ask = self._ray.remote(_here)
        others = [ask.options(**self._share, **self._in_bundle(i)).remote() for i in range(1, self._needs.gang)]
        return [self._actor.places.remote(), *others]

    def _get(self, reference: Any, limit: float, what: str) -> Any:
        errors = self._ray.exceptions
        ends = time.monotonic() + limit
        displaced = 0.0
        while True:
            try:
                return self._ray.get(reference, timeout=max(0.01, min(LOOK_SECONDS, ends - time.monotonic())))
            except errors.GetTimeoutError:
                displaced = 0.0 if self._placed() else displaced + LOOK_SECONDS
                if displaced >= DISPLACED_SECONDS:
                    raise WorkerDiedError("the cluster has no place for its placement group") from None
                if time.monotonic() >= ends:
                    with contextlib.suppress(errors.RayError):
                        self._ray.kill(self._actor, no_restart=False)
                    raise WorkerHungError(f"no answer to {what} within {limit:.0f} s") from None
            except errors.RayTaskError as error:
                cause = error.as_instanceof_cause()
                raise (self._no_room(what) if isinstance(cause, self._full) else cause) from error
            except self._full as error:
                raise self._no_room(what) from error
            except errors.RayError as error:
                raise WorkerDiedError(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error

    def _no_room(self, what: str) -> StorageError:
        """Ray puts on a node's disk what its store does not hold, until the disk is nearly full."""
        return StorageError(
            f"policy {self.name!r}: Ray's object store is full, and so is the disk behind it, so there is no room for "
            f"what {what!r} hands over: start the nodes with a larger store (`ray start --object-store-memory BYTES`), "
            "or free the disk of Ray's temporary directory (`--temp-dir`)"
        )

    def _placed(self) -> bool:
        state: str = self._ray.util.placement_group_table(self._group).get("state", "")
        return state == "CREATED"


class _Actor(LearnerWorker):
    """The worker, where Ray runs it."""

    def place(self) -> Place:
        return _here()[0]

    def places(self) -> list[Place]:
        """Of this actor, or of those that its learner has started."""
        if isinstance(self._learner, Spread):
            return [Place(node, gpus) for node, gpus in self._learner.places()]
        return _here()


@runtime_checkable
class Spread(Protocol):
    """A learner that has started actors of its own."""

    def places(self) -> list[tuple[str, tuple[str, ...]]]:
        """Of each actor, its node and Ray's names of its GPUs."""


def _here() -> list[Place]:
    import ray

    context = ray.get_runtime_context()
    return [Place(context.get_node_id(), tuple(context.get_accelerator_ids().get("GPU", ())))]


def _connect(address: str) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not address and "ray" not in sys.modules:  # Ray reads it when it is imported, and listens on every interface
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise MissingExtraError.of("RayExecutor", "ray") from error
    if not ray.is_initialized():
        try:
            alone = {} if address else {"include_dashboard": False}
            ray.init(address=address or "local", namespace="mutual-env", log_to_driver=False, **alone)
        except ConnectionError as error:
            raise ConfigError(
                f"no Ray cluster answers at {address!r}: start one with `ray start --head`, or leave address empty"
            ) from error
    return ray


def _nodes(ray: Any) -> tuple[Node, ...]:
    """The nodes that are alive and have something to compute on."""
    ends = time.monotonic() + CONNECT_SECONDS
    while time.monotonic() < ends:
        found = [
            Node(item["NodeID"], float(r.get("CPU", 0.0)), int(r.get("GPU", 0)), memory=int(r.get("memory", 0)))
            for item in ray.nodes()
            if item["Alive"] and (r := item["Resources"]) and r.get("CPU", 0.0) + r.get("GPU", 0.0) > 0
        ]
        if found:
            return tuple(sorted(found, key=lambda node: node.name))
        time.sleep(LOOK_SECONDS)
    raise ConfigError(
        f"the Ray cluster has had no node with CPUs or GPUs for {CONNECT_SECONDS:.0f} s: add one with `ray start`"
    )


def _bundle(needs: Needs, everybody: tuple[Needs, ...], nodes: tuple[Node, ...]) -> dict[str, float]:
    """What a member reserves with Ray: all it needs, or the same part of it as everybody where that is what fits.

    A little of every node's CPUs is left over, so that an actor whose node is lost finds a place on another."""
    part, machines = 1.0, [dataclasses.replace(node, cpus=(1 - SPARE_SHARE) * node.cpus) for node in nodes]
    while part > 0.01 and not _all_fit([_reserved(one, part) for one in everybody], machines):
        part *= 0.9
    mine = _reserved(needs, part)
    return {kind: amount for kind, amount in (("CPU", mine.cpus), ("GPU", mine.gpus)) if amount}


def _reserved(needs: Needs, part: float) -> Needs:
    """Rounded down to hundredths: Ray counts in ten-thousandths, and the sum of the parts must not exceed the whole.
    Of several GPUs in one process Ray reserves no part: a gang of one each can be shared."""
    cpus = max(0.01, math.floor(needs.cpus * part * 100) / 100) if needs.cpus else 0.0
    gpus = needs.gpus if needs.gpus > 1 else math.floor(needs.gpus * part * 100) / 100
    return dataclasses.replace(needs, cpus=cpus, gpus=max(0.01, gpus) if needs.gpus else 0.0, memory=0)


def _all_fit(everybody: list[Needs], nodes: list[Node]) -> bool:
    machines = Machines(nodes)
    widest_first = sorted(everybody, key=lambda needs: (-needs.width, -needs.cpus))
    return all(machines.claim(str(index), needs) is not None for index, needs in enumerate(widest_first))
