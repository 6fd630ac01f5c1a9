"""The part of `mutual_env.testing.check_env` that plays an episode of several turns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pettingzoo import ParallelEnv

from mutual_env.errors import ConformanceError, MutualEnvError
from mutual_env.types import AgentInfo, Context

MOST_TURNS = 100


def check_turns(env: ParallelEnv[str, Any, Any], observations: Mapping[str, Any]) -> None:
    """Turns follow until nobody is left; contexts only grow, by what was written and what the world answered."""
    written: dict[str, list[list[str]]] = {}
    for _ in range(MOST_TURNS):
        agents = list(env.agents)
        actions = {agent: env.action_space(agent).sample() for agent in agents}
        for agent in agents:
            _remember(written, agent, observations[agent]["conversations"], actions[agent])
        results = env.step({agent: actions[agent] for agent in reversed(agents)})
        for result in results:
            _expect(list(result) == agents, f"what step returns is for every live agent, in order, got {list(result)}")
        observations = results[0]
        for agent in agents:
            _check_agent(env, agent, [result[agent] for result in results], written[agent])
        if not env.agents:
            break
        _expect(any(_is_asked(observations[agent]) for agent in env.agents), "somebody is asked until the round ends")
    _expect(not env.agents, f"a round ends within {MOST_TURNS} turns")
    try:
        env.step({})
    except MutualEnvError:
        return
    _expect(False, "a step after the round's end is refused")


def ended_in(
    plain: ParallelEnv[str, Any, Any], wrapped: ParallelEnv[str, Any, Any]
) -> list[dict[str, tuple[Any, ...]]]:
    """What each agent was given when it ended, in either env: both are played with the same actions. A wrapper may keep
    an agent until the others are done; what it is told at the end is the same."""
    ends: list[dict[str, tuple[Any, ...]]] = [{}, {}]
    for _ in range(MOST_TURNS):
        actions = {agent: plain.action_space(agent).sample() for agent in plain.possible_agents}
        for env, ended in zip((plain, wrapped), ends, strict=True):
            live = list(env.agents)
            if live:
                results = env.step({agent: actions[agent] for agent in live})
                told = {agent: tuple(result[agent] for result in results) for agent in live}
                ended |= {agent: found for agent, found in told.items() if found[2] or found[3]}
        if not plain.agents and not wrapped.agents:
            break
    for ended in ends:
        _expect(ended.keys() == set(plain.possible_agents), f"a round ends for everybody, got {sorted(ended)}")
    return ends


def said_in(steps: Sequence[Any]) -> list[Any]:
    """What was said in a round's conversations, and what they came to: not what a wrapper makes of it, which may
    remember earlier rounds. Nothing of an env of one turn, whose tasks may follow from what was learnt."""
    if not all("conversations" in observation for step in steps for observation in step[0].values()):
        return []
    return [(*step[:4], {agent: info["groups"] for agent, info in step[4].items()}) for step in steps]


def _check_agent(env: ParallelEnv[str, Any, Any], agent: str, result: Sequence[Any], written: list[list[str]]) -> None:
    """What one step returned to one agent."""
    observation, reward, terminated, truncated, info = result
    ended = terminated or truncated
    _expect((agent in env.agents) is not ended, f"{agent!r} is an agent until it is terminated or truncated")
    _expect(observation in env.observation_space(agent), f"observation of {agent!r} lies in its space")
    contexts = [context for group in observation["conversations"] for context in group]
    waits = getattr(env.unwrapped, "takes_turns", False) and not ended
    fits = waits or _is_asked(observation) is not ended
    _expect(fits, f"{agent!r} ends when all its conversations are over, not sooner or later")
    if ended:
        _check_ended(env, agent, info, written, reward)
    else:
        _expect(reward == 0.0 and info["groups"] == (), "nothing is settled before the end")
        _check_contexts(agent, contexts, written)


def _is_asked(observation: Mapping[str, Any]) -> bool:
    return any(context is not None for group in observation["conversations"] for context in group)


def _remember(
    written: dict[str, list[list[str]]],
    agent: str,
    contexts: Sequence[Sequence[Context | None]],
    action: Sequence[Sequence[str]],
) -> None:
    """What the agent wrote into each conversation, turn by turn."""
    flat = [context for group in contexts for context in group]
    own = written.setdefault(agent, [[] for _ in flat])
    for texts, context, text in zip(own, flat, (text for group in action for text in group), strict=True):
        if context is not None:
            texts.append(text)


def _check_contexts(agent: str, contexts: Sequence[Context | None], written: Sequence[Sequence[str]]) -> None:
    for context, texts in zip(contexts, written, strict=True):
        seen = texts if context is None else [t.completion.text for t in context.turns if not t.is_opening]
        _expect(seen == texts, f"a context of {agent!r} holds what it wrote, {texts!r:.200}, got {seen!r:.200}")


def _check_ended(
    env: ParallelEnv[str, Any, Any], agent: str, info: AgentInfo, written: Sequence[Sequence[str]], reward: float
) -> None:
    size = len(written) // len(env.tasks)
    for number, group in enumerate(info["groups"]):
        texts = [tuple(w) for w in written[number * size : (number + 1) * size]]
        for e in group:
            _expect(e.author == agent and e.task == env.tasks[number], f"an experience says whose it is: {e!r:.300}")
            said = (*(turn.completion.text for turn in e.earlier if not turn.is_opening), e.completion.text)
            _expect(said in texts, "an experience holds what was written, turn by turn")
    rewards = [e.verdict.reward or 0.0 for group in info["groups"] for e in group]
    mean = math.fsum(rewards) / len(rewards) if rewards else 0.0
    _expect(reward == mean, f"rewards[{agent!r}] is the mean over the groups, {mean!r}, got {reward!r}")
    for name, value in info["metrics"].items():
        _expect(isinstance(value, float) and math.isfinite(value), f"metric {name!r} is a finite float, got {value!r}")


def _expect(holds: bool, sentence: str) -> None:
    ConformanceError.unless(holds, f"expected: {sentence}")
