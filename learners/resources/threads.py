"""Policies in threads of this process: nothing to install, and learners that are plain objects of the caller's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from learners.placement import placed
from learners.protocol import Learner
from learners.resources.demand import Demand, Patience, Supply
from learners.resources.leased import LeasedCalls
from learners.resources.record import UsageRecord

T = TypeVar("T")


class ThreadExecutor:
    """Overlaps what releases Python's lock: matrix products, files, the network. A call that hangs is noticed and its
    policy parked, but a thread cannot be ended or restarted: for that, use processes or Ray."""

    def __init__(
        self,
        demands: Iterable[Demand] = (),
        supply: Supply | None = None,
        patience: Patience | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._calls = LeasedCalls(demands, supply or Supply.local(), patience, clock)
        self._hosted: dict[str, Learner] = {}

    @property
    def record(self) -> UsageRecord:
        return self._calls.record

    @property
    def parked(self) -> Mapping[str, str]:
        return self._calls.parked

    def host(self, makers: Mapping[str, Callable[[], Learner]]) -> dict[str, Learner]:
        for name, gpus in self._calls.settle(makers).items():
            with placed(gpus):
                self._hosted[name] = makers[name]()
            if gpus:
                self._calls.note("placed", name, f"GPU {', '.join(map(str, gpus))} of this process")
        built = {name: self._hosted[name] for name in makers}
        self._calls.hosted(built)
        return built

    def map(self, phase: str, calls: Mapping[str, Callable[[], T]]) -> dict[str, T]:
        return self._calls.map(phase, calls)

    def shrink(self, node: str) -> None:
        """A node is no longer there: what can no longer be served is refused, and its policy parked."""
        self._calls.remove_node(node)

    def close(self) -> None:
        self._calls.close()
        while self._hosted:
            self._hosted.popitem()[1].close()
