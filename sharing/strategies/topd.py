"""TOP-D: a teacher's opinion of each chunk, bounded from below, as its credit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Unpack

from mutual_env.errors import ConfigError
from mutual_env.types import Correction, Lesson, OldPolicy, TeacherReward
from sharing.advantages import Std, checked_std
from sharing.situation import Common, Credit, Shared, Situation
from sharing.wrapper import SharingWrapper


class TrustRegionPolicyDistillation(SharingWrapper):
    """The lessons below on the reader's own rollouts, whose credit is no longer the verifier's but a teacher's.

    The reward of a chunk is log(alpha ρ + 1 - alpha), ρ = π_teacher / π on it, π the policy that sampled it: the
    log-ratio to a proximal teacher alpha π_teacher + (1 - alpha) π, never below log(1 - alpha) however little the
    teacher thinks of the chunk. The chunk's return is its reward plus the mean of the later chunks' of its sample, and
    its advantage that return against those of all chunks of the group: (R - mean) / (std + 1e-6). All of its tokens
    have it. What the bridge cannot align has no reward. Ratio and clip are those of the lessons below, against π_old.

    `teacher` names a frozen model or another policy of the run. `verified`: so many times the advantages of the
    lessons below are added; 0 is distillation alone, which sees no verdict. alpha = 1 is on-policy distillation with
    the reward log ρ, which has no bound.

    alpha = 0, or a teacher that gives every chunk the reader's probability: no reward, `verified` times the credit
    below; with `verified` = 1 exactly the lessons below. A reader that is its own teacher: the lessons below.
    """

    credits: ClassVar[frozenset[Credit]] = frozenset({"teacher"})
    needs: ClassVar[frozenset[Credit]] = frozenset({"own rollouts"})

    def __init__(
        self,
        env: Any,
        *,
        teacher: str,
        alpha: float = 0.2,
        verified: float = 0.0,
        std: Std = True,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(env, **common)
        if not 0.0 <= alpha <= 1.0:
            raise ConfigError(f"alpha must lie in [0, 1], got {alpha}: 0 gives no reward, 1 one without a bound")
        if not verified >= 0.0:
            raise ConfigError(f"verified must be at least 0, got {verified}: 1 adds the verifier's credit whole")
        self._teacher, self._verified = teacher, verified
        self._correction: Correction = TeacherReward(teacher, alpha, checked_std(std)) if alpha else OldPolicy()

    def share(self, situation: Situation) -> Shared:
        if situation.reader == self._teacher:
            return Shared(situation.lessons, {"taught": 0.0})
        mine = [x.experience.author == situation.reader and x.correction == OldPolicy() for x in situation.lessons]
        lessons = tuple(
            self._taught(lesson) if own else lesson for lesson, own in zip(situation.lessons, mine, strict=True)
        )
        return Shared(lessons, {"taught": float(sum(mine))})

    def _taught(self, lesson: Lesson) -> Lesson:
        spans = tuple(replace(span, advantage=self._verified * span.advantage) for span in lesson.spans)
        return replace(lesson, advantage=self._verified * lesson.advantage, spans=spans, correction=self._correction)
