"""Offline distillation: cross-entropy on a teacher's verified traces."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from mutual_env.errors import ConfigError
from mutual_env.types import CrossEntropy, Lesson
from sharing.pooling import drawn
from sharing.records import Kind
from sharing.situation import Common, Credit, Shared, Situation
from sharing.wrapper import SharingWrapper


class OfflineDistillation(SharingWrapper):
    """Cross-entropy with `weight` on what the teacher solved, and nothing else: no reward of the reader's own counts.

    `teacher` is an author of the exchange, usually a recording, hence any staleness unless told. `per_prompt`
    bounds how many of its successes on a prompt are taken, drawn uniformly (seeded by run, round, reader and
    task); None: all. Around another strategy, its lessons stay and the cross-entropy is added. The teacher itself
    learns nothing here.
    """

    kinds: tuple[Kind, ...] = ("success",)
    credits: ClassVar[frozenset[Credit]] = frozenset({"peers' rollouts"})

    def __init__(
        self,
        env: Any,
        *,
        teacher: str,
        weight: float = 1.0,
        per_prompt: int | None = None,
        **common: Unpack[Common],
    ) -> None:
        if weight < 0 or (per_prompt is not None and per_prompt < 1):
            raise ConfigError(f"weight must be at least 0 and per_prompt at least 1, got {weight} and {per_prompt}")
        common.setdefault("max_staleness", None)
        common.setdefault("peers", [teacher])
        super().__init__(env, **common)
        self._weight = weight
        self._per_prompt = per_prompt

    def share(self, situation: Situation) -> Shared:
        lessons = list(situation.lessons)
        covered = 0
        for group in situation.groups:
            task_id = group[0].task.id if group else ""
            traces = tuple(e for solved in situation.successes.get(task_id, {}).values() for e in solved)
            covered += bool(traces)
            chosen = drawn(traces, self._per_prompt, situation, "offline", task_id) if self._weight else ()
            lessons.extend(Lesson(e, 1.0, CrossEntropy(), weight=self._weight) for e in chosen)
        return Shared(tuple(lessons), {"covered": float(covered)})
