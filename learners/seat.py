"""A policy that is not trained, in a seat of an env: a judge, a user."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from learners.protocol import Learner
from mutual_env.types import Prompt


@dataclass(frozen=True, slots=True)
class Seat:
    """What a learner says to a prompt; see `mutual_env.interaction.Speaker`. Several envs may ask it, one at a time."""

    learner: Learner
    lock: threading.Lock = field(default_factory=threading.Lock, compare=False)

    def __call__(self, prompts: Sequence[Prompt], seed: int) -> list[str]:
        with self.lock:
            return [group[0].text for group in self.learner.act(prompts, 1, seed=seed)]


def seated(learner: Learner) -> Seat:
    """As `mutual_env.make(..., seats={"judge": seated(learner)})` takes it: it is asked, and never taught."""
    return Seat(learner)
