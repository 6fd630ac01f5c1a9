"""A round that ends for all agents at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pettingzoo.utils.wrappers import BaseParallelWrapper

from mutual_env.env import Action, Observation, Stepped
from mutual_env.types import AgentInfo


class EndTogether(BaseParallelWrapper):  # type: ignore[misc]
    """Keeps an agent whose conversations are all over in the round until the last agent is done: what peers share is
    known only then. It observes that its conversations are over, and whatever it answers is not read. Its reward, its
    groups and how it ended come at the end of the round, with everybody's.
    """

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self._ended: dict[str, tuple[Observation, float, bool, bool, AgentInfo]] = {}

    @property
    def agents(self) -> list[str]:
        return list(self.possible_agents) if self.env.agents else []

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._ended = {}
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: Mapping[str, Action]) -> Stepped:
        if isinstance(actions, Mapping):
            actions = {agent: action for agent, action in actions.items() if agent not in self._ended}
        stepped: Stepped = self.env.step(actions)
        results = {agent: tuple(of[agent] for of in stepped) for agent in stepped[0]}
        self._ended.update((agent, r) for agent, r in results.items() if r[2] or r[3])  # type: ignore[misc]
        if self.env.agents:
            shown: dict[str, Any] = {agent: _held(r) for agent, r in {**results, **self._ended}.items()}
        else:
            shown = self._ended
        order = [agent for agent in self.possible_agents if agent in shown]
        one, two, three, four, five = ({agent: shown[agent][i] for agent in order} for i in range(5))
        return one, two, three, four, five


def _held(result: tuple[Any, ...]) -> tuple[Any, ...]:
    """As in the middle of a round."""
    observation, _, _, _, info = result
    return observation, 0.0, False, False, AgentInfo(round=info["round"], groups=(), metrics={})
