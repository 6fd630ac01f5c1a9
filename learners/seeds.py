"""The seed of each sample of `act`."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mutual_env.seeding import derive_seeds
from mutual_env.types import Context, Prompt


def sample_seeds(seed: int, name: str, prompts: Sequence[Prompt | Context], n: int) -> list[tuple[int, ...]]:
    """n seeds for each prompt, from (seed, policy, prompt, its occurrence among the prompts, index) alone."""
    occurrences: dict[str, int] = {}
    seeds: list[tuple[int, ...]] = []
    for prompt in prompts:
        key = _key(prompt)
        occurrence = occurrences.get(key, 0)
        occurrences[key] = occurrence + 1
        seeds.append(derive_seeds(seed, "act", name, key, occurrence, count=n))
    return seeds


def _key(prompt: Prompt | Context) -> str:
    """What tells prompts apart; a context of no turns is its prompt."""
    if isinstance(prompt, Context):
        said = [[turn.completion.text, turn.reply.role, turn.reply.text] for turn in prompt.turns]
        return json.dumps([_key(prompt.prompt), said]) if said else _key(prompt.prompt)
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True)
