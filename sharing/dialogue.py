"""Whether a reader would have had the conversation that a peer had.

A peer's turns are trained on behind the replies that the peer got. Where the world answers each conversation by itself,
the reader would have got the same ones; in a debate or a game they depend on what the others said, and on who is asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from mutual_env.errors import ConfigError
from mutual_env.types import Experience, Group
from sharing.admission import Admitted

Found: TypeAlias = Mapping[str, Mapping[str, Group]]


def checked_divergence(given: float) -> float:
    """A strategy's option `max_divergence`, or a sentence that says what it may be."""
    if not isinstance(given, (int, float)) or isinstance(given, bool) or not 0.0 <= given <= 1.0:
        raise ConfigError(
            f"max_divergence must be a share of replies from 0 (none may be others) to 1 (all may), got {given!r}"
        )
    return float(given)


def in_own_dialogue(env: Any, reader: str, admitted: Admitted, most: float) -> Admitted:
    """What is left once conversations with a larger share of other replies than `most` are turned away. An env that
    does not know what it would have said turns none away."""
    measure: Callable[[str, Experience], float] | None = getattr(env.unwrapped, "divergence", None)
    talked = [e for found in (admitted.rollouts, admitted.successes) for e in _experiences(found) if e.earlier]
    if measure is None or not talked:
        return admitted
    shares = {id(e): measure(reader, e) for e in talked}
    far = {i for i, share in shares.items() if share > most}
    mean = sum(shares.values()) / len(shares)
    if not far:
        return replace(admitted, divergence=mean)
    counts = Counter(admitted.counts)
    counts["refused/other_dialogue"] += len(far)
    rollouts, successes = _without(admitted.rollouts, far), _without(admitted.successes, far)
    return replace(admitted, rollouts=rollouts, successes=successes, counts=counts, divergence=mean)


def _experiences(found: Found) -> list[Experience]:
    return [e for by_author in found.values() for group in by_author.values() for e in group]


def _without(found: Found, far: set[int]) -> dict[str, dict[str, Group]]:
    left = {
        task: {author: tuple(e for e in group if id(e) not in far) for author, group in by_author.items()}
        for task, by_author in found.items()
    }
    return {task: {author: g for author, g in by_author.items() if g} for task, by_author in left.items()}
