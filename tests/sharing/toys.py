"""A small real env for tests of strategies: who answers what is written down, and an answer is right if it says
so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv

from mutual_env.spaces import GroupSpace, round_space
from mutual_env.types import Completion, Experience, Group, Task, Verdict
from sharing import Origin, Rollout, Statistics, Success

GOOD, BAD = "yes", "no"
TOKENIZER = "toy"


def task(name: str) -> Task:
    return Task(id=name, prompt=f"{name}?", answer=GOOD)


def completion(text: str, *, version: int = 0, logprob: float = -0.5, tokens: int | None = None) -> Completion:
    n = len(text) if tokens is None else tokens
    return Completion(text, np.arange(n) % 100, np.full(n, logprob), "stop", version, TOKENIZER)


def verdict(text: str) -> Verdict:
    """Right if the text says yes; a number is worth itself; "?" cannot be scored."""
    if text.startswith("?"):
        return Verdict.unscored("timeout")
    try:
        return Verdict.scored(float(text), correct=float(text) == 1.0)
    except ValueError:
        right = text.startswith(GOOD)
        return Verdict.scored(float(right), correct=right)


def experience(name: str, author: str, text: str, *, round: int = 0, version: int = 0) -> Experience:
    return Experience(task(name), author, completion(text, version=version), verdict(text), round)


class ToyEnv(ParallelEnv[str, Any, Any]):
    """Tasks "t<round>.<i>" (or always the same ones, `fixed`), P of them a round."""

    metadata = {"name": "toy", "render_modes": []}  # noqa: RUF012  # as PettingZoo declares it

    def __init__(
        self, agents: Sequence[str] = ("a", "b"), *, prompts: int = 2, group: int = 2, fixed: bool = False
    ) -> None:
        self.possible_agents = list(agents)
        self.agents: list[str] = []
        self.round = -1
        self.prompts = prompts
        self.fixed = fixed
        self.verified = 0
        self.verifier_id = "toy-verifier"
        self.render_mode = None
        self._observations = {a: round_space(prompts, 1000) for a in agents}
        self._actions = {a: GroupSpace(prompts, group, 2**21) for a in agents}

    def observation_space(self, agent: str) -> Any:
        return self._observations[agent]

    def action_space(self, agent: str) -> Any:
        return self._actions[agent]

    def tasks(self) -> list[Task]:
        return [task(f"t{0 if self.fixed else self.round}.{i}") for i in range(self.prompts)]

    def verify(self, items: Sequence[tuple[Task, str]]) -> list[Verdict]:
        self.verified += len(items)
        return [verdict(text) for _, text in items]

    def reset(self, seed: int | None = None, options: Mapping[str, Any] | None = None) -> Any:
        following = 0 if seed is not None else self.round + 1
        self.round = (options or {}).get("round", following)
        self.agents = self.possible_agents[:]
        infos = {a: {"round": self.round, "groups": (), "metrics": {}} for a in self.agents}
        return self._observe(), infos

    def step(self, actions: Mapping[str, Any]) -> Any:
        infos = {a: self._info(a, actions[a]) for a in self.agents}
        agents, self.agents = self.agents, []
        rewards = dict.fromkeys(agents, 0.0)
        return self._observe(), rewards, dict.fromkeys(agents, True), dict.fromkeys(agents, False), infos

    def _observe(self) -> Any:
        return {a: {"prompts": tuple(t.prompt for t in self.tasks())} for a in self.possible_agents}

    def _info(self, agent: str, action: Any) -> Any:
        groups: tuple[Group, ...] = tuple(
            tuple(
                Experience(t, agent, c if isinstance(c, Completion) else completion(c), verdict(_text(c)), self.round)
                for c in group
            )
            for t, group in zip(self.tasks(), action, strict=True)
        )
        return {"round": self.round, "groups": groups, "metrics": {"reward/mean": 0.0}}


def _text(item: Any) -> str:
    return item.text if isinstance(item, Completion) else item


def play(env: Any, answers: Mapping[str, Sequence[Sequence[Any]]], *, round: int = 0, seed: int = 7) -> Any:
    """One round in which each agent gives its group of answers to each task. Returns the infos."""
    env.reset(seed=seed, options={"round": round})
    return env.step({a: [list(g) for g in answers[a]] for a in env.agents})[-1]


def origin(
    name: str, author: str = "stranger", *, round: int = 0, version: int = 0, tokenizer: str = TOKENIZER
) -> Origin:
    return Origin(name, author, round, version, tokenizer, "toy-verifier")


def success(name: str, author: str = "stranger", text: str = GOOD, *, index: int = 0, **of: Any) -> Success:
    return Success(origin(name, author, **of), index, text, "stop", 1.0)


def rollout(
    name: str, author: str = "stranger", text: str = GOOD, *, index: int = 0, logprob: float = -0.5, **of: Any
) -> Rollout:
    said = verdict(text)
    written = completion(text, version=of.get("version", 0), logprob=logprob)
    return Rollout(origin(name, author, **of), index, written, said.reward or 0.0, said.correct)


def statistics(name: str, author: str = "stranger", rewards: Sequence[float] = (1.0, 0.0), **of: Any) -> Statistics:
    return Statistics(origin(name, author, **of), len(rewards), sum(rewards), sum(r * r for r in rewards))
