"""What each turn of a conversation is worth: states are scored, and turns earn the differences."""

from __future__ import annotations

from typing import Literal, TypeAlias

from mutual_env.credit import Span
from mutual_env.errors import ConfigError
from mutual_env.types import Experience, Group
from sharing.advantages import Std, group_advantages
from sharing.records import reward_of

TurnCredit: TypeAlias = Literal["conversation", "turns"]


def checked_credit(credit: str, gamma: float) -> str:
    """A strategy's options `credit` and `gamma`, or a sentence that says what they may be."""
    if credit not in ("conversation", "turns"):
        raise ConfigError(f"credit must be 'conversation' or 'turns', got {credit!r}")
    if not 0.0 <= gamma <= 1.0:
        raise ConfigError(f"gamma must lie between 0 and 1, got {gamma!r}")
    return credit


def scores_of(experience: Experience) -> list[float]:
    """The state after each turn: what the world said it was worth, where it said so, else as before; after the last,
    the verdict's reward. Before the first it is 0."""
    scores: list[float] = []
    for turn in experience.earlier:
        before = scores[-1] if scores else 0.0
        scores.append(before if turn.reply.reward is None else turn.reply.reward)
    return [*scores, reward_of(experience)]


def returns_of(experience: Experience, gamma: float) -> list[float]:
    """R_t = Σ_k γ^k (s_{t+k} - s_{t+k-1})."""
    scores = scores_of(experience)
    following = 0.0
    returns: list[float] = []
    for score, before in zip(reversed(scores), reversed([0.0, *scores[:-1]]), strict=True):
        following = score - before + gamma * following
        returns.append(following)
    return returns[::-1]


def turn_spans(group: Group, *, gamma: float, std: Std) -> list[tuple[Span, ...]]:
    """For each experience a span for each of its turns; none where nobody had more than one: that is GRPO."""
    if not any(experience.earlier for experience in group):
        return [()] * len(group)
    returns = [returns_of(experience, gamma) for experience in group]
    spans: list[list[Span]] = [[] for _ in group]
    for turn in range(max(map(len, returns))):
        there = [i for i, r in enumerate(returns) if turn < len(r)]
        for i, advantage in zip(there, group_advantages([returns[i][turn] for i in there], std=std), strict=True):
            spans[i].append(Span(turn, advantage))
    return [tuple(s) for s in spans]
