"""A round, turn after turn: what is open is asked for, what was written is stepped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from mutual_env.seeding import derive_seed
from mutual_env.types import Completion, Context, Prompt

Groups: TypeAlias = list[tuple[Completion, ...]]
Asked: TypeAlias = tuple[Sequence[Prompt | Context], int, int]
"""What a policy is asked: prompts or contexts, how many samples of each, the seed."""
Act: TypeAlias = Callable[[Mapping[str, Asked]], Mapping[str, Groups]]
"""Every policy's answer to what it is asked."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What everybody observes, and how each is asked to go on."""

    observations: Mapping[str, Any]
    number: int
    group_size: int
    seed: int

    def asked(self, names: Sequence[str]) -> dict[str, Asked]:
        """In the first turn a group for each prompt, later one answer to each open conversation; a policy whose
        conversations are over, or wait for others, is not asked."""
        if self.number == 0 and not self._is_opened:
            return {name: (self._begun(name), self.group_size, self.seed) for name in names}
        seed = derive_seed(self.seed, "turn", self.number) if self.number else self.seed
        contexts = {name: list(self._open(name)) for name in names if name in self.observations}
        return {name: (found, 1, seed) for name, found in contexts.items() if found}

    def actions(self, answers: Mapping[str, Groups]) -> dict[str, Any]:
        """The answers as the env takes them: a group for each prompt, None where a conversation is over."""
        if self.number == 0 and not self._is_opened:
            return dict(answers)
        return {name: self._in_place(name, answers.get(name, ())) for name in self.observations}

    @property
    def _is_opened(self) -> bool:
        """Whether the world spoke first, so that some wait, and nobody's conversation is its prompt alone."""
        seen = (group for each in self.observations.values() for group in each.get("conversations", ()))
        return any(context is None or context.turns for group in seen for context in group)

    def _begun(self, name: str) -> Sequence[Prompt | Context]:
        """The prompts, said to begin conversations where they do: a sampler then keeps what it computes of them."""
        seen = self.observations[name]
        prompts: Sequence[Prompt] = seen["prompts"]
        return [Context(prompt) for prompt in prompts] if "conversations" in seen else prompts

    def _open(self, name: str) -> Iterator[Context]:
        return (c for group in self.observations[name]["conversations"] for c in group if c is not None)

    def _in_place(self, name: str, answers: Sequence[tuple[Completion, ...]]) -> list[list[Completion | None]]:
        written = iter(answers)
        return [
            [None if context is None else next(written)[0] for context in group]
            for group in self.observations[name]["conversations"]
        ]


def play(env: Any, step: Callable[[dict[str, Any]], Any], first: Turn, names: Sequence[str], act: Act) -> Iterator[Any]:
    """What each step of a round returns, until nobody is left. `step` is the env's, or its first half."""
    turn = first
    while True:
        result = step(turn.actions(act(turn.asked(names))))
        yield result
        if not env.agents:
            return
        observations = result[0] if isinstance(result, tuple) else result.observations
        turn = Turn(observations, turn.number + 1, turn.group_size, turn.seed)
