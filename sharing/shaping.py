"""What length does to a reward and to a lesson: the soft penalty of answers that come near the limit, and the mask of
those that were cut off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

from mutual_env.errors import ConfigError
from mutual_env.options import fields_of
from mutual_env.types import Experience, Group, Lesson
from sharing.records import reward_of

Truncated: TypeAlias = Literal["keep", "mask"]


@dataclass(frozen=True, slots=True)
class SoftOverlong:
    """DAPO's soft overlong punishment, added to the reward of a sample whose author wrote n tokens:

    0 up to limit - buffer, (limit - buffer - n) / buffer from there to the limit, and -1 beyond it.

    A sample without a token trace has no length here, and is left as it is.
    """

    limit: int
    buffer: int

    def __post_init__(self) -> None:
        if not 0 < self.buffer <= self.limit:
            raise ConfigError(
                f"length_penalty needs limit >= buffer > 0 tokens, got limit={self.limit}, buffer={self.buffer}"
            )

    def penalty(self, tokens: int) -> float:
        return min(0.0, max(-1.0, (self.limit - self.buffer - tokens) / self.buffer))

    def shaped(self, experience: Experience) -> Experience:
        """The experience as its reader sees it: what was right stays right, its reward is lower."""
        penalty = self.penalty(sum(completion.token_ids.size for completion in experience.written))
        if penalty == 0.0:
            return experience
        return replace(experience, verdict=replace(experience.verdict, reward=reward_of(experience) + penalty))


def penalty_of(given: SoftOverlong | Mapping[str, Any] | None) -> SoftOverlong | None:
    """A strategy's option `length_penalty`."""
    return fields_of("length_penalty", SoftOverlong, given) if isinstance(given, Mapping) else given


def shaped(group: Group, penalty: SoftOverlong | None) -> Group:
    """A group of scored experience under a penalty, or as it is."""
    return group if penalty is None else tuple(penalty.shaped(experience) for experience in group)


def checked_truncated(given: str) -> str:
    if given not in get_args(Truncated):
        raise ConfigError(f"truncated must be one of {', '.join(get_args(Truncated))}, got {given!r}")
    return given


def whole(lessons: Sequence[Lesson]) -> tuple[Lesson, ...]:
    """The lessons on completions that ended by themselves. Their groups' statistics still hold the others' rewards."""
    return tuple(lesson for lesson in lessons if lesson.experience.completion.finish_reason != "length")
