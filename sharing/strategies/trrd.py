"""TRRD (RLAD): the trust region lies between the old policy and a teacher."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Unpack

from mutual_env.errors import ConfigError
from mutual_env.options import Unbounded
from mutual_env.types import OldPolicy, TeacherMixture
from sharing.situation import Common, Credit, Shared, Situation
from sharing.wrapper import SharingWrapper


class TrustRegionRatioDistillation(SharingWrapper):
    """The lessons below on the reader's own rollouts, their ratio taken against π_old^alpha · π_teacher^(1 - alpha).

    The advantage and the clip stay as they are. `teacher` names a frozen model or another policy of the run;
    through the bridge it may have another tokenizer, and unaligned tokens use π_old alone. A pull to the
    first weights is no part of it: that is the learner's own `kl_coefficient`, as under every strategy. The teacher
    counts as no further from π_old than `log_ratio_limit` nats on any chunk: log π_teacher is clamped to
    log π_old ± limit (RLAD's appendix B; .inf: the teacher as it is).

    alpha = 1, or a reader that is its own teacher: exactly the lessons below.
    """

    credits: ClassVar[frozenset[Credit]] = frozenset({"teacher"})
    needs: ClassVar[frozenset[Credit]] = frozenset({"own rollouts"})

    def __init__(
        self, env: Any, *, teacher: str, alpha: float = 0.5, log_ratio_limit: Unbounded = 1.0, **common: Unpack[Common]
    ) -> None:
        super().__init__(env, **common)
        if not 0.0 <= alpha <= 1.0:
            raise ConfigError(f"alpha must lie in [0, 1], got {alpha}: 1 is GRPO, 0 the teacher alone")
        if not log_ratio_limit > 0.0:
            raise ConfigError(f"log_ratio_limit must be above 0 nats, got {log_ratio_limit}: .inf sets no limit")
        self._correction = TeacherMixture(teacher, alpha, log_ratio_limit)

    def share(self, situation: Situation) -> Shared:
        if self._correction.alpha == 1.0 or situation.reader == self._correction.teacher:
            return Shared(situation.lessons, {"taught": 0.0})
        return with_correction(situation, self._correction)


def with_correction(situation: Situation, correction: Any) -> Shared:
    """The reader's own lessons, that were against the old policy, with this correction instead."""
    mine = [
        lesson.experience.author == situation.reader and lesson.correction == OldPolicy()
        for lesson in situation.lessons
    ]
    lessons = tuple(
        replace(lesson, correction=correction) if own else lesson
        for lesson, own in zip(situation.lessons, mine, strict=True)
    )
    return Shared(lessons, {"taught": float(sum(mine))})
