"""A control of SGT: as many imitated successes, of as much weight, that are no help with what failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Unpack

from mutual_env.errors import ConfigError
from mutual_env.types import JSON, Experience, Group, Metrics
from sharing.edges import PerEdge
from sharing.records import Kind
from sharing.rescue import Imitation, ShareController, as_json, drawn_one, failed, from_json
from sharing.situation import Common, Credit, Shared, Situation
from sharing.wrapper import SharingWrapper


class PlaceboRescue(SharingWrapper):
    """The lessons below, and for each rescue that SGT would give a placebo with the same `weight` λ.

    `source="prompt"`: a peer's verified success on another prompt of the round, drawn uniformly over all of them.
    `source="own"`: a success of the reader's own from an earlier round, drawn uniformly from the last `capacity` (one
    a prompt and round is kept). What SGT does and this does not is due to the rescue being of the prompt that failed,
    or due to its coming from somebody else.

    `target_share` adapts λ as SGT's does. A placebo that cannot be given is counted. λ = 0, no peers, nothing failed:
    exactly the lessons below.
    """

    kinds: tuple[Kind, ...] = ("success",)
    credits: ClassVar[frozenset[Credit]] = frozenset({"peers' rollouts"})
    needs: ClassVar[frozenset[Credit]] = frozenset({"own rollouts"})

    def __init__(
        self,
        env: Any,
        *,
        weight: PerEdge = 0.1,
        source: Literal["prompt", "own"] = "prompt",
        capacity: int = 256,
        per_rescue: bool = False,
        target_share: float | None = None,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(env, **common)
        if source not in ("prompt", "own"):
            raise ConfigError(f"source must be 'prompt' or 'own', got {source!r}")
        if capacity < 1:
            raise ConfigError(f"capacity must be at least 1, got {capacity}")
        self._imitation = Imitation.of(weight, env.possible_agents, compatible=False, per_rescue=per_rescue)
        self._controller = ShareController.of(target_share, self._imitation)
        self._from_own = source == "own"
        self._capacity = capacity
        self._own: dict[str, tuple[Experience, ...]] = {}

    def asks(self, groups: Sequence[Group]) -> Sequence[str]:
        """The others' prompts are where a placebo comes from, unless it is one's own."""
        if self._imitation.is_off or not any(map(failed, groups)):
            return ()
        return [group[0].task.id for group in groups if failed(group) or (group and not self._from_own)]

    def share(self, situation: Situation) -> Shared:
        offers = {
            group[0].task.id: self._imitation.offered(situation, group[0].task.id)
            for group in situation.groups
            if group
        }
        rescued = [g[0].task.id for g in situation.groups if failed(g) and offers[g[0].task.id]]
        placebos = []
        for task_id in [] if self._imitation.is_off else rescued:
            offered = self._elsewhere(situation, offers, task_id)
            if offered:
                chosen = drawn_one(offered, situation, "placebo", task_id)
                factor = self._controller.factor(situation.reader)
                placebos.append(self._imitation.lesson(situation.reader, chosen, factor))
        self._keep(situation)
        metrics = {
            "failed": float(sum(map(failed, situation.groups))),
            "placebos": float(len(placebos)),
            "placebos_missing": float(len(rescued) - len(placebos)),
            **self._controller.metrics(situation.reader),
        }
        return Shared((*situation.lessons, *placebos), metrics)

    def learnt(self, reader: str, metrics: Metrics) -> None:
        super().learnt(reader, metrics)
        self._controller.learnt(reader, metrics)

    def state_dict(self) -> dict[str, JSON]:
        own: JSON = {reader: [as_json(e) for e in kept] for reader, kept in sorted(self._own.items())}
        return {**super().state_dict(), **self._controller.state(), "own": own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._controller.restore(state)
        self._own = {reader: tuple(from_json(e) for e in kept) for reader, kept in state["own"].items()}

    def _elsewhere(self, situation: Situation, offers: Mapping[str, Group], task_id: str) -> list[Experience]:
        if self._from_own:
            return [e for e in self._own.get(situation.reader, ()) if e.task.id != task_id]
        return [e for other, offered in offers.items() if other != task_id for e in offered]

    def _keep(self, situation: Situation) -> None:
        if not self._from_own:
            return
        kept = list(self._own.get(situation.reader, ()))
        for group in situation.groups:
            right = [e for e in group if e.verdict.correct and not e.earlier]
            if right:
                kept.append(drawn_one(right, situation, "placebo own", right[0].task.id))
        self._own[situation.reader] = tuple(kept[-self._capacity :])
