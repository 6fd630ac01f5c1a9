"""SGT: a verified peer success, where the reader's whole group failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

from mutual_env.errors import ConfigError
from mutual_env.seeding import generator
from mutual_env.types import CrossEntropy, Experience, Group, Lesson
from sharing.records import Kind
from sharing.situation import Common, Credit, Shared, Situation
from sharing.wrapper import SharingWrapper


class SuccessGatedTransfer(SharingWrapper):
    """The lessons of the strategy below, plus one rescue for each prompt where every own rollout failed and a peer
    succeeded: one success drawn uniformly from all peers' (seeded by run, round, reader and task), as
    cross-entropy with `weight` λ.

    Nothing else moves. λ = 0, no peers, no peer success, nothing failed: exactly the lessons below. Successes that
    this env did not verify itself are verified before they are drawn from.
    """

    kinds: tuple[Kind, ...] = ("success",)
    credits: ClassVar[frozenset[Credit]] = frozenset({"peers' rollouts"})
    needs: ClassVar[frozenset[Credit]] = frozenset({"own rollouts"})

    def __init__(self, env: Any, *, weight: float = 0.1, **common: Unpack[Common]) -> None:
        super().__init__(env, **common)
        if weight < 0:
            raise ConfigError(f"weight must be at least 0, got {weight}: less would teach to avoid successes")
        self._weight = weight

    def asks(self, groups: Sequence[Group]) -> Sequence[str]:
        return [group[0].task.id for group in groups if failed(group)] if self._weight else ()

    def share(self, situation: Situation) -> Shared:
        rescues = tuple(
            Lesson(self._draw(situation, group[0].task.id), 1.0, CrossEntropy(), weight=self._weight)
            for group in situation.groups
            if failed(group) and self._weight and situation.successes.get(group[0].task.id)
        )
        metrics = {"failed": float(sum(map(failed, situation.groups))), "rescued": float(len(rescues))}
        return Shared(situation.lessons + rescues, metrics)

    def _draw(self, situation: Situation, task_id: str) -> Experience:
        by_author = situation.successes[task_id]
        candidates = [experience for author in sorted(by_author) for experience in by_author[author]]
        draw = generator(situation.seed, "sgt", situation.round, situation.reader, task_id)
        return candidates[int(draw.integers(len(candidates)))]


def failed(group: Group) -> bool:
    """Something was tried and nothing of it was right."""
    return bool(group) and not any(e.verdict.correct for e in group)
