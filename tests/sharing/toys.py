"""Records of a stranger, and short names for the scripted env."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sharing import Origin, Rollout, Statistics, Success
from sharing.testing import ScriptedEnv, play, scripted_completion, scripted_verdict

__all__ = ["BAD", "GOOD", "ScriptedEnv", "origin", "play", "rollout", "statistics", "success"]
GOOD, BAD = "yes", "no"

REQUIRED: dict[str, dict[str, Any]] = {
    "trrd": {"teacher": "policy_1"},
    "kdrl": {"teacher": "policy_1"},
    "topd": {"teacher": "policy_1"},
    "offline": {"teacher": "policy_1"},
    "frozen": {"agents": ["policy_1"]},
}
"""Options that a strategy cannot do without."""


def origin(
    task_id: str, author: str = "stranger", *, round: int = 0, version: int = 0, tokenizer: str = "scripted"
) -> Origin:
    return Origin(task_id, author, round, version, tokenizer, "scripted")


def success(task_id: str, author: str = "stranger", text: str = GOOD, *, index: int = 0, **of: Any) -> Success:
    return Success(origin(task_id, author, **of), index, text, "stop", 1.0)


def rollout(
    task_id: str, author: str = "stranger", text: str = GOOD, *, index: int = 0, logprob: float = -0.5, **of: Any
) -> Rollout:
    said = scripted_verdict(text)
    written = scripted_completion(text, version=of.get("version", 0), logprob=logprob)
    return Rollout(origin(task_id, author, **of), index, written, said.reward or 0.0, said.correct)


def statistics(task_id: str, author: str = "stranger", rewards: Sequence[float] = (1.0, 0.0), **of: Any) -> Statistics:
    return Statistics(origin(task_id, author, **of), len(rewards), sum(rewards), sum(r * r for r in rewards))
