"""KD-RL: GRPO, and a KL term that pulls to a teacher."""

from __future__ import annotations

from typing import Any, ClassVar, Unpack

from mutual_env.errors import ConfigError
from mutual_env.types import TeacherDivergence
from sharing.situation import Common, Credit, Shared, Situation
from sharing.strategies.trrd import with_correction
from sharing.wrapper import SharingWrapper


class KnowledgeDistillationRL(SharingWrapper):
    """The lessons below on the reader's own rollouts, plus coefficient · KL(π || π_teacher) on their tokens, as far as
    the bridge can align them.

    `teacher` names a frozen model or another policy of the run. coefficient = 0, or a reader that is its own teacher:
    exactly the lessons below.
    """

    credits: ClassVar[frozenset[Credit]] = frozenset({"teacher"})
    needs: ClassVar[frozenset[Credit]] = frozenset({"own rollouts"})

    def __init__(self, env: Any, *, teacher: str, coefficient: float = 0.1, **common: Unpack[Common]) -> None:
        super().__init__(env, **common)
        if coefficient < 0:
            raise ConfigError(
                f"coefficient must be at least 0, got {coefficient}: less would push away from the teacher"
            )
        self._correction = TeacherDivergence(teacher, coefficient)

    def share(self, situation: Situation) -> Shared:
        if not self._correction.coefficient or situation.reader == self._correction.teacher:
            return Shared(situation.lessons, {"taught": 0.0})
        return with_correction(situation, self._correction)
