"""Conversations of one policy on one prompt, for a loop that is another library's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import mutual_env
from mutual_env import interaction
from mutual_env.errors import InvalidInputError
from mutual_env.registry import source_of
from mutual_env.tasks.source import InteractiveSource
from mutual_env.types import Completion, Context, Experience, Prompt
from mutual_env.verifiers import VerifierPool
from tokenizers_bridge import Tokenizer
from tokenizers_bridge.protocol import stop_ids_of


@dataclass(frozen=True, slots=True)
class Ended:
    """What a conversation came to. `reward` is None where it got no verdict; `is_cut`: one of its agent's conversations
    reached a limit."""

    reward: float | None
    correct: bool
    is_cut: bool


class Table:
    """`size` conversations on the prompt of a round. Where the world answers them together (a debate, a game) each is
    an agent's of its own, and the policy meets itself; otherwise they are one agent's group.

    `contexts` holds for each what the policy goes on from, None where it is over; `ended` what it came to, once its
    agent is done.
    """

    def __init__(self, id: str, *, size: int, seed: int, pool: VerifierPool, options: Mapping[str, Any]) -> None:
        joint = answers_together(id, options)
        names = [f"policy_{i}" for i in range(size)] if joint else ["policy_0"]
        self._group = 1 if joint else size
        self._owners = [name for name in names for _ in range(self._group)]
        self._env: Any = mutual_env.make(
            id,
            agents=names,
            group_size=self._group,
            prompts_per_round=1,
            seed=seed,
            pool=pool,
            unscored_limit=1.0,
            **options,
        )
        self.prompt: Prompt = ""
        self.contexts: list[Context | None] = []
        self.ended: list[Ended | None] = []
        self._last: list[Completion | None] = []

    def begin(self, round: int) -> None:
        observations, _ = self._env.reset(options={"round": round})
        size = len(self._owners)
        self.prompt = observations[self._owners[0]]["prompts"][0]
        self.contexts = [Context(self.prompt)] * size
        self.ended, self._last = [None] * size, [None] * size

    def step(self, written: Sequence[Completion | None]) -> None:
        """What was written next in each conversation; nothing is read of one that is over."""
        self._last = [
            new if c is not None else old for c, new, old in zip(self.contexts, written, self._last, strict=True)
        ]
        actions: dict[str, Any] = {}
        for name, completion in zip(self._owners, written, strict=True):
            if name in self._env.agents:
                actions.setdefault(name, [[]])[0].append(completion)
        observations, _, _, truncations, infos = self._env.step(actions)
        live = self._env.agents
        for i, name in enumerate(self._owners):
            if name not in infos:
                continue
            self.contexts[i] = observations[name]["conversations"][0][i % self._group] if name in live else None
            if name not in live:
                self.ended[i] = ended(self._last[i], infos[name]["groups"][0], is_cut=truncations[name])

    def close(self) -> None:
        self._env.close()


def answers_together(id: str, options: Mapping[str, Any]) -> bool:
    """Whether the conversations of all agents on a task are answered in one call."""
    own = {k: v for k, v in options.items() if k not in ("prompt", "max_turns", "max_tokens", "verifier", "seats")}
    source = source_of(id, **own)
    if not isinstance(source, InteractiveSource):
        return False
    made = interaction.make(source.interaction)
    if interaction.takes_turns(made):
        raise InvalidInputError(
            f"{id}: its agents write one after the other, and another library's loop asks everybody at once: play it "
            "with mutual_env.make and our loop, or choose a family in which nobody waits"
        )
    return made.joint


def ended(last: Completion | None, group: Sequence[Experience], *, is_cut: bool) -> Ended:
    """Of the conversation that ended with `last`; one that got no verdict is missing from its group."""
    found = next((e for e in group if e.completion is last), None)
    return Ended(None, False, is_cut) if found is None else Ended(found.verdict.reward, found.verdict.correct, is_cut)


def written_by(tokenizer: Tokenizer, ids: Sequence[int], logprobs: Sequence[float] | None = None) -> Completion:
    """What somebody else's sampler wrote. Where it says no log-probabilities they are NaN."""
    token_ids = np.array(ids, np.int32)
    stopped = token_ids.size > 0 and int(token_ids[-1]) in stop_ids_of(tokenizer)
    return Completion(
        text=tokenizer.decode(token_ids),
        token_ids=token_ids,
        logprobs=np.full(token_ids.size, np.nan) if logprobs is None else np.array(logprobs, np.float64),
        finish_reason="stop" if stopped else "length",
        policy_version=0,
        tokenizer=tokenizer.fingerprint,
    )
