"""How long a call may take before it counts as hung: what was said, else what such calls have taken so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from learners.resources.demand import Demand, Needs, Patience

TIMES = 10.0
"""A call may take so many times the longest that was seen: responses get longer as a policy learns to think."""

LEAST_SECONDS = 300.0
FIRST_SECONDS = 3600.0
"""Of a phase that nobody has seen: the first round of a large model compiles, captures graphs and fills caches."""

LEAST_START_SECONDS = 120.0
FIRST_START_SECONDS = 1800.0
"""Of a worker that nobody has seen start: reading a large model and starting an engine take minutes."""

START = "start"


@dataclass(slots=True)
class Limits:
    """Of every (policy, phase), and of starting a policy's worker. What a demand or the patience states is fixed; the
    rest learns. Calls that are no phase (save, load) have the longest limit of their policy's phases."""

    demands: Mapping[str, Demand]
    patience: Patience
    _longest: dict[tuple[str, str], float] = field(default_factory=dict)

    def observe(self, policy: str, phase: str, seconds: float) -> None:
        """What one took that ended well."""
        self._longest[policy, phase] = max(seconds, self._longest.get((policy, phase), 0.0))

    def of(self, policy: str, phase: str) -> float:
        phases = self.demands[policy].phases if policy in self.demands else {}
        if phase in phases:
            return self._of_phase(policy, phase, phases[phase])
        longest = max((self._of_phase(policy, *item) for item in phases.items()), default=FIRST_SECONDS)
        return max(longest, TIMES * self._longest.get((policy, phase), 0.0))

    def start(self, policy: str) -> float:
        """Of building the learner in a worker, an engine's start included."""
        if self.patience.restart_limit is not None:
            return self.patience.restart_limit
        return self._learnt(policy, START, FIRST_START_SECONDS, LEAST_START_SECONDS)

    def lease(self, policy: str, phase: str) -> float:
        """The longest a lease lasts: every attempt up to its limit, and the restarts between them."""
        once, restarts = self.of(policy, phase), self.patience.restarts
        return once + restarts * (once + self.start(policy))

    def longest_lease(self, demands: Iterable[Demand]) -> float:
        return max(self.lease(demand.policy, phase) for demand in demands for phase in demand.phases)

    def _of_phase(self, policy: str, phase: str, needs: Needs) -> float:
        if needs.limit is not None:
            return needs.limit
        return max(self._learnt(policy, phase, FIRST_SECONDS, LEAST_SECONDS), TIMES * needs.seconds)

    def _learnt(self, policy: str, phase: str, first: float, least: float) -> float:
        seen = self._longest.get((policy, phase))
        return first if seen is None else max(least, TIMES * seen)
