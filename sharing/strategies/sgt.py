"""SGT: a verified peer success, where the reader's whole group failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Unpack

from mutual_env.types import JSON, Group, Metrics
from sharing.edges import PerEdge
from sharing.records import Kind
from sharing.rescue import Imitation, ShareController, drawn_one, failed
from sharing.situation import Common, Credit, Shared, Situation
from sharing.wrapper import SharingWrapper


class SuccessGatedTransfer(SharingWrapper):
    """The lessons of the strategy below, plus one rescue for each prompt where every own rollout failed and a peer
    succeeded: one success drawn uniformly from all peers' (seeded by run, round, reader and task), as
    cross-entropy with `weight` λ, one for all, each reader or each edge.

    `compatible`: λ min(1, s) in the place of λ, s = exp(mean log π_old - mean log β) of the success drawn: what the
    reader finds unlikely is imitated less. This reads rollouts, for the log-probabilities that a success has not.
    `per_rescue`: the sum over a rescue's tokens is divided by what the own samples' are, so that λ weighs a rescue
    against an own sample of its length, the same for any number of rescues and optimizer steps; without it, λ weighs
    the mean over all rescued tokens of a step, however few, against the mean over all own ones.

    `target_share`: λ is adapted so that rescues are this share of the reader's gradient, as its updates measure it
    (`batch/imitation_gradient_share`); the given λ is what it begins with, and the edges keep their proportions. See
    `ShareController`; a loop of one's own calls `learnt` after each update.

    Nothing else moves. λ = 0, no peers, no peer success, nothing failed: exactly the lessons below. Successes that
    this env did not verify itself are verified before they are drawn from; those over an edge with λ = 0 are none.
    """

    kinds: tuple[Kind, ...] = ("success",)
    credits: ClassVar[frozenset[Credit]] = frozenset({"peers' rollouts"})
    needs: ClassVar[frozenset[Credit]] = frozenset({"own rollouts"})

    def __init__(
        self,
        env: Any,
        *,
        weight: PerEdge = 0.1,
        compatible: bool = False,
        per_rescue: bool = False,
        target_share: float | None = None,
        **common: Unpack[Common],
    ) -> None:
        self._imitation = Imitation.of(weight, env.possible_agents, compatible=compatible, per_rescue=per_rescue)
        self._controller = ShareController.of(target_share, self._imitation)
        self.kinds = self._imitation.kinds
        super().__init__(env, **common)

    def asks(self, groups: Sequence[Group]) -> Sequence[str]:
        return () if self._imitation.is_off else [group[0].task.id for group in groups if failed(group)]

    def share(self, situation: Situation) -> Shared:
        failures = [group[0].task.id for group in situation.groups if failed(group)]
        offers = {task_id: self._imitation.offered(situation, task_id) for task_id in failures}
        factor = self._controller.factor(situation.reader)
        rescues = tuple(
            self._imitation.lesson(situation.reader, drawn_one(offered, situation, "sgt", task_id), factor)
            for task_id, offered in offers.items()
            if offered
        )
        metrics = {"failed": float(len(failures)), "rescued": float(len(rescues))}
        return Shared(situation.lessons + rescues, {**metrics, **self._controller.metrics(situation.reader)})

    def learnt(self, reader: str, metrics: Metrics) -> None:
        super().learnt(reader, metrics)
        self._controller.learnt(reader, metrics)

    def state_dict(self) -> dict[str, JSON]:
        return {**super().state_dict(), **self._controller.state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._controller.restore(state)
